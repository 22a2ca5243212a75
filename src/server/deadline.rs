//! How long a call may take.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

/// The longest that a call may take until its answer begins, whatever its caller allows.
pub const CEILING: Duration = Duration::from_secs(10);

/// How much earlier than the caller's deadline ours is: its own timer starts earlier, and it is to read our answer.
const MARGIN: Duration = Duration::from_millis(100);

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The time until just before the caller's deadline, if it has one.
pub fn of_caller(headers: &HeaderMap) -> Option<Duration> {
    let allowed = headers.get(GRPC_TIMEOUT).and_then(|value| grpc_timeout(value.to_str().ok()?))?;
    Some(allowed.saturating_sub(MARGIN.min(allowed / 10)))
}

/// A timeout in the form of gRPC over HTTP/2: at most 8 digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let valid = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: u64 = if valid { digits.parse().ok()? } else { return None };
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn timeouts_are_read_in_every_unit_and_nothing_else_is_one() {
        let read: Vec<_> = ["1H", "2M", "3S", "4m", "5u", "6n"].map(grpc_timeout).into_iter().flatten().collect();
        assert_eq!(format!("{read:?}"), "[3600s, 120s, 3s, 4ms, 5µs, 6ns]");
        for text in ["", "S", "1", "1s", "-1S", "+1S", "123456789S", "1 S", "\u{e9}"] {
            assert_eq!(grpc_timeout(text), None, "{text:?}");
        }
    }

    #[test]
    fn our_deadline_comes_before_the_callers() {
        let of =
            |value: &'static str| of_caller(&HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static(value))]));
        assert_eq!(of("1S"), Some(Duration::from_millis(900)));
        assert_eq!(of("10m"), Some(Duration::from_millis(9)));
        assert_eq!(of_caller(&HeaderMap::new()), None);
    }
}
