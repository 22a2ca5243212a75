//! Phone numbers.

use super::Rule;

/// E.164 without its punctuation. Judged by form only: `+11111111111` is no number one can dial, and passes.
pub fn phone_number(text: &str) -> Result<String, Rule> {
    let number: String = text.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')')).collect();
    let fits = number.strip_prefix('+').is_some_and(|digits| {
        (2..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0')
    });
    if fits { Ok(number) } else { Err(Rule::PhoneNumber) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn punctuation_is_removed() {
        assert_eq!(phone_number("+1 (551) 344-66.34"), Ok("+15513446634".to_owned()));
        assert_eq!(phone_number("+11111111111"), Ok("+11111111111".to_owned()));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in
            ["", "+", "+1", "15513446634", "+0155134466", "+1234567890123456", "+1551a", "++15", "+1/55", "+\u{661}1"]
        {
            assert_eq!(phone_number(text), Err(Rule::PhoneNumber), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_punctuation_gives_the_same_number(digits in "[1-9][0-9]{1,14}", gaps in "[ ().-]{0,4}") {
            let spread = format!("+{digits}").split("").collect::<Vec<_>>().join(&gaps);
            prop_assert_eq!(phone_number(&spread), Ok(format!("+{digits}")));
        }
    }
}
