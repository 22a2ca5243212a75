//! Dates of birth.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};

use super::Rule;

/// The clocks furthest ahead: whoever is born today anywhere on Earth is not born in the future.
const FURTHEST_AHEAD: TimeDelta = TimeDelta::hours(14);

/// A real date in the form `YYYY-MM-DD`, from 1900-01-01 to the date it now is at UTC+14.
pub fn date_of_birth(now: DateTime<Utc>) -> impl Fn(&str) -> Result<NaiveDate, Rule> {
    move |text| {
        let earliest = NaiveDate::from_ymd_opt(1900, 1, 1).ok_or(Rule::DateOfBirth)?;
        let latest = (now + FURTHEST_AHEAD).date_naive();
        // chrono also reads `1995-1-1` and `+1995-01-01`: only what is written as it would be stored is a date.
        NaiveDate::parse_from_str(text, "%Y-%m-%d")
            .ok()
            .filter(|date| date.to_string() == text && (earliest..=latest).contains(date))
            .ok_or(Rule::DateOfBirth)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(now: &str) -> impl Fn(&str) -> Result<NaiveDate, Rule> {
        date_of_birth(now.parse().expect("a time"))
    }

    #[test]
    fn real_dates_from_1900_to_today_at_utc_plus_14() {
        let judge = at("2026-11-22T09:59:59Z");
        for text in ["1900-01-01", "2000-02-29", "2026-11-22"] {
            assert_eq!(judge(text).map(|date| date.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(judge("2026-11-23"), Err(Rule::DateOfBirth));
        assert!(at("2026-11-22T10:00:00Z")("2026-11-23").is_ok());
    }

    #[test]
    fn everything_else_is_refused() {
        let judge = at("2026-11-22T00:00:00Z");
        for text in [
            "",
            "1899-12-31",
            "1995-02-29",
            "1995-13-01",
            "1995-1-1",
            "+1995-01-01",
            "95-01-01",
            "1995/01/01",
            "1995-01-01T00:00:00Z",
            " 1995-01-01",
            "01-01-1995",
            "\u{661}995-01-01",
        ] {
            assert_eq!(judge(text), Err(Rule::DateOfBirth), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_date_is_its_own_stored_form(text in "[0-9+-]{8,11}|(19|20)[0-9]{2}-[01][0-9]-[0-3][0-9]") {
            if let Ok(date) = at("2026-11-22T00:00:00Z")(&text) {
                prop_assert_eq!(date.to_string(), text);
            }
        }
    }
}
