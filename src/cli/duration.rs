//! Durations on the command line.

use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);

/// The age of a connection.
pub fn connection_age(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(100), DAY * 365, "100ms to 365d")
}

/// How long a drain may take.
pub fn drain(text: &str) -> Result<Duration, String> {
    within(text, Duration::ZERO, DAY, "0s to 1d")
}

/// How long an answer may take.
pub fn patience(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(1), DAY, "1ms to 1d")
}

/// How long a key works.
pub fn lifetime(text: &str) -> Result<Duration, String> {
    within(text, SECOND, DAY * 36_500, "1s to 36500d")
}

fn within(text: &str, least: Duration, most: Duration, range: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (least..=most).contains(&duration) { Ok(duration) } else { Err(format!("it must be {range}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_taken_within_its_range_with_both_ends() {
        for text in ["100ms", "5m", "365d"] {
            connection_age(text).expect(text);
        }
        for text in ["99ms", "366d", "550000000000y", "5", ""] {
            connection_age(text).expect_err(text);
        }
        for text in ["0s", "10s", "1d"] {
            drain(text).expect(text);
        }
        for text in ["1s", "90d", "36500d"] {
            lifetime(text).expect(text);
        }
        for text in ["0s", "0d", "999ms", "36501d", "-1s"] {
            lifetime(text).expect_err(text);
        }
    }
}
