//! Text: one form for what looks the same, and limits in characters.

use unicode_normalization::{UnicodeNormalization as _, is_nfc};

use super::Rule;

/// The longest name, in characters.
const NAME: usize = 100;

/// The form in which every string of a request is judged: Unicode NFC, without white space at both ends.
pub fn clean(text: &str) -> String {
    // Most text is in the form already, and seeing that is much cheaper than making it.
    if is_nfc(text) { text.trim().to_owned() } else { text.nfc().collect::<String>().trim().to_owned() }
}

/// A person's first or last name: at most 100 characters.
pub fn name(text: &str) -> Result<String, Rule> {
    line::<NAME>(text)
}

/// An id that another system made: at most 100 characters.
pub fn identifier(text: &str) -> Result<String, Rule> {
    line::<100>(text)
}

/// One line of at most `MAX` characters.
pub fn line<const MAX: usize>(text: &str) -> Result<String, Rule> {
    limited::<MAX>(text, char::is_control)
}

/// Text of at most `MAX` characters that may have line breaks.
pub fn lines<const MAX: usize>(text: &str) -> Result<String, Rule> {
    limited::<MAX>(text, |c| c.is_control() && c != '\n' && c != '\r')
}

/// 1 to 12 digits, kept as text: leading zeros count.
pub fn postal_code(text: &str) -> Result<String, Rule> {
    let fits = (1..=12).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { Ok(text.to_owned()) } else { Err(Rule::PostalCode) }
}

fn limited<const MAX: usize>(text: &str, refused: impl Fn(char) -> bool) -> Result<String, Rule> {
    if text.contains(refused) {
        Err(Rule::Control)
    } else if text.chars().count() > MAX {
        Err(Rule::Length(MAX))
    } else {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_looks_the_same_is_the_same() {
        for text in ["\u{2003} Zoe\u{308}\t\n", "\u{2003} Zo\u{eb}\t\n"] {
            assert_eq!(clean(text), "Zo\u{eb}");
        }
    }

    #[test]
    fn length_counts_characters_and_not_bytes() {
        assert_eq!(name(&"\u{1f600}".repeat(100)), Ok("\u{1f600}".repeat(100)));
        assert_eq!(name(&"\u{1f600}".repeat(101)), Err(Rule::Length(100)));
    }

    #[test]
    fn control_characters_are_refused_and_line_breaks_only_where_there_are_lines() {
        for text in ["a\0b", "a\u{7f}b", "a\u{85}b", "a\tb"] {
            assert_eq!((line::<9>(text), lines::<9>(text)), (Err(Rule::Control), Err(Rule::Control)), "{text:?}");
        }
        assert_eq!((line::<9>("a\r\nb"), lines::<9>("a\r\nb")), (Err(Rule::Control), Ok("a\r\nb".to_owned())));
    }

    #[test]
    fn postal_codes_keep_their_zeros() {
        assert_eq!(postal_code("01010"), Ok("01010".to_owned()));
        for text in ["", "1234567890123", "12 34", "12a", "\u{661}\u{662}"] {
            assert_eq!(postal_code(text), Err(Rule::PostalCode), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn cleaning_twice_is_cleaning_once(text in any::<String>()) {
            let once = clean(&text);
            prop_assert_eq!(clean(&once), once);
        }

        #[test]
        fn an_accepted_line_is_stored_as_it_was_judged(text in any::<String>()) {
            let text = clean(&text);
            if let Ok(stored) = line::<20>(&text) {
                prop_assert!(stored.chars().count() <= 20);
                prop_assert!(!stored.contains(char::is_control));
                prop_assert_eq!(stored, text);
            }
        }
    }
}
