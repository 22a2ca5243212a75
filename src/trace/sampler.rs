//! Which calls are traced.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota};
use opentelemetry::trace::SpanContext;

use super::settings::Settings;

/// Calls a second that are traced because of what their callers have sent, a flag or a trace id that they chose: past it
/// chance decides, or anybody could have every call of theirs traced.
const OF_CALLERS: NonZeroU32 = NonZeroU32::new(100).expect("more than none");

/// Decides which calls are traced.
pub struct Sampler {
    ratio: f64,
    follows_callers: bool,
    of_callers: DefaultDirectRateLimiter,
}

impl Sampler {
    pub fn new(settings: &Settings) -> Self {
        Self {
            ratio: settings.ratio,
            follows_callers: settings.follows_callers,
            of_callers: DefaultDirectRateLimiter::direct(Quota::per_second(OF_CALLERS)),
        }
    }

    /// Whether a call with this span of its caller's is traced.
    pub fn samples(&self, parent: Option<&SpanContext>) -> bool {
        let Some(parent) = parent else { return self.by_chance() };
        let wanted = if self.follows_callers { parent.is_sampled() } else { self.by_trace(parent) };
        wanted && (self.ratio >= 1.0 || self.of_callers.check().is_ok() || self.by_chance())
    }

    fn by_chance(&self) -> bool {
        self.ratio > 0.0 && rand::random::<f64>() < self.ratio
    }

    /// As other services decide that have the same ratio: by the last 7 bytes of the trace id.
    fn by_trace(&self, parent: &SpanContext) -> bool {
        let random = u128::from_be_bytes(parent.trace_id().to_bytes()) % (1 << 56);
        #[allow(clippy::cast_precision_loss, reason = "56 bits are nearly those of the mantissa")]
        let part = random as f64 / (1_u64 << 56) as f64;
        part < self.ratio
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

    use super::*;

    fn sampler(ratio: f64, follows_callers: bool) -> Sampler {
        Sampler::new(&Settings { ratio, follows_callers, ..Settings::default() })
    }

    fn parent(trace: u128, flags: TraceFlags) -> SpanContext {
        SpanContext::new(TraceId::from(trace), SpanId::from(1), flags, true, TraceState::default())
    }

    #[test]
    fn a_call_without_a_caller_is_traced_by_chance() {
        let traced = |ratio| {
            let sampler = sampler(ratio, true);
            (0..100_000).filter(|_| sampler.samples(None)).count()
        };
        assert_eq!((traced(0.0), traced(1.0)), (0, 100_000));
        assert!((500..2000).contains(&traced(0.01)));
    }

    #[test]
    fn a_callers_flag_is_followed_until_there_are_too_many() {
        let (sampled, not) = (parent(1, TraceFlags::SAMPLED), parent(1, TraceFlags::default()));
        let few = sampler(0.01, true);
        assert!((0..1000).all(|_| !few.samples(Some(&not))));
        assert!((0..100).all(|_| few.samples(Some(&sampled))));
        let more = (0..10_000).filter(|_| few.samples(Some(&sampled))).count();
        assert!((20..1000).contains(&more), "{more}");
        let all = sampler(1.0, true);
        assert!((0..1000).all(|_| all.samples(Some(&sampled)) && !all.samples(Some(&not))));
    }

    #[test]
    fn by_the_ratio_alone_the_trace_id_decides_until_a_caller_chooses_it_too_often() {
        let (low, high) = (parent(1, TraceFlags::default()), parent(u128::MAX, TraceFlags::SAMPLED));
        let half = sampler(0.5, false);
        assert!((0..100).all(|_| half.samples(Some(&low)) && !half.samples(Some(&high))));
        assert!((0..1000).any(|_| !half.samples(Some(&low))), "then chance decides");
    }
}
