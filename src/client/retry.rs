//! When a call is repeated: docs/errors.md, "What to repeat".

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use super::{Error, error::Repeat};

/// 1 s, then twice as long each time, at most 30 s; each up to twice as much at random, so that clients that failed
/// together do not come back together.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_secs(1))
    .with_max_delay(Duration::from_secs(30))
    .without_max_times()
    .with_jitter();

/// The attempts of a call.
pub struct Attempts {
    left: u32,
    repeatable: bool,
    /// Whether no connection has been lost yet.
    fresh: bool,
    backoff: ExponentialBackoff,
}

impl Attempts {
    /// So many, of a call that may be harmless to repeat where nobody knows what became of it.
    pub fn new(most: u32, repeatable: bool) -> Self {
        Self { left: most.saturating_sub(1), repeatable, fresh: true, backoff: BACKOFF.build() }
    }

    /// As many as it takes.
    pub fn unbounded() -> Self {
        Self::new(u32::MAX, true)
    }

    /// Waits until the call is due again, or answers the error where it is not repeated before this time.
    pub async fn wait(&mut self, error: Error, until: Option<Instant>) -> Result<(), Error> {
        let delay = match error.repeat() {
            Repeat::After(delay) => jittered(delay),
            Repeat::AtOnce if self.repeatable && self.fresh => {
                self.fresh = false;
                Duration::ZERO
            }
            Repeat::AtOnce | Repeat::Later if self.repeatable => self.backoff.next().unwrap_or_default(),
            Repeat::AtOnce | Repeat::Later | Repeat::Never => return Err(error),
        };
        let due = Instant::now() + delay;
        if self.left == 0 || until.is_some_and(|until| due >= until) {
            return Err(error);
        }
        self.left -= 1;
        tokio::time::sleep_until(due).await;
        Ok(())
    }
}

/// This delay, up to twice as much at random.
fn jittered(delay: Duration) -> Duration {
    BACKOFF.with_min_delay(delay).build().next().unwrap_or(delay)
}
