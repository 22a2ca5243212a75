//! How many calls a key may make.

use std::{fmt, num::NonZeroU32, str::FromStr};

/// The highest rate, in calls a second: more than one program serves.
const HIGHEST: u32 = 1_000_000;

/// Calls a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(NonZeroU32);

impl Rate {
    /// From the column of a key. What is no rate allows as little as one.
    pub fn stored(calls_per_second: i32) -> Self {
        Self(u32::try_from(calls_per_second).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN))
    }

    pub const fn calls_per_second(self) -> NonZeroU32 {
        self.0
    }
}

impl From<Rate> for i32 {
    fn from(Rate(calls): Rate) -> Self {
        Self::try_from(calls.get()).unwrap_or(Self::MAX)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

/// The text is no rate.
#[derive(Debug, thiserror::Error)]
#[error("it must be calls a second, 1/s to {HIGHEST}/s, such as 100/s")]
pub struct NoRate;

impl FromStr for Rate {
    type Err = NoRate;

    fn from_str(text: &str) -> Result<Self, NoRate> {
        let calls = text.strip_suffix("/s").filter(|calls| calls.bytes().all(|byte| byte.is_ascii_digit()));
        let calls = calls.and_then(|calls| calls.parse().ok()).filter(|calls| (1..=HIGHEST).contains(calls));
        calls.and_then(NonZeroU32::new).map(Self).ok_or(NoRate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_of_calls_a_second() {
        for text in ["1/s", "100/s", "1000000/s"] {
            let rate: Rate = text.parse().expect(text);
            assert_eq!((rate.to_string().as_str(), Rate::stored(rate.into())), (text, rate));
        }
        for text in ["", "/s", "0/s", "1000001/s", "100", "100/m", "+1/s", "-1/s", "1.5/s", " 1/s", "99999999999/s"] {
            text.parse::<Rate>().expect_err(text);
        }
        assert_eq!(Rate::stored(0).to_string(), "1/s");
        assert_eq!(Rate::stored(100).calls_per_second().get(), 100);
    }
}
