//! Phone numbers.

use icu_properties::props::{BidiControl, BinaryProperty as _, EnumeratedProperty as _, GeneralCategory};

use super::Rule;

/// E.164 without what address books put between the digits. Judged by form only: `+11111111111` is no number one can
/// dial, and passes.
pub fn phone_number(text: &str) -> Result<String, Rule> {
    let mut number: String = text.chars().filter(|c| !is_gap(*c)).collect();
    // Without its parentheses the zero would be a digit of the number, and the number wrong.
    if number.contains("(0)") {
        return Err(Rule::TrunkZero);
    }
    number.retain(|c| !matches!(c, '(' | ')'));
    let fits = number.strip_prefix('+').is_some_and(|digits| {
        (2..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0')
    });
    if fits { Ok(number) } else { Err(Rule::PhoneNumber) }
}

/// White space, dots, dashes of every kind, and the controls that keep a number from left to right.
fn is_gap(c: char) -> bool {
    matches!(c, '.' | '\u{2212}')
        || c.is_whitespace()
        || BidiControl::for_char(c)
        || GeneralCategory::for_char(c) == GeneralCategory::DashPunctuation
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn punctuation_is_removed_as_address_books_paste_it() {
        assert_eq!(phone_number("+11111111111"), Ok("+11111111111".to_owned()));
        for text in [
            "+1 (551) 344-66.34",
            "+1\u{a0}551\u{a0}344\u{a0}6634",               // no-break spaces
            "+1\u{202f}551\u{2009}344\u{3000}6634\t",       // narrow, thin, ideographic
            "+1\u{2011}551\u{2010}344\u{2012}66\u{2013}34", // hyphens and dashes
            "+1\u{2014}551\u{2212}344\u{fe63}66\u{ff0d}34", // em dash, minus, small and full width
            "\u{202d}+1 551 344 6634\u{202c}",              // as macOS and iOS wrap it
            "\u{202a}+1 551 344 6634\u{202c}",              // as Windows wraps it
            "\u{2066}+1 551 344 6634\u{2069}",              // as browsers wrap it
            "\u{200e}+1 (551)\u{200f} 344\u{61c}\u{2067}-\u{2068}6634", // every other control
            "+1 551\r\n344\u{2028}6634",                    // over two lines
        ] {
            assert_eq!(phone_number(text), Ok("+15513446634".to_owned()), "{text:?}");
        }
    }

    #[test]
    fn a_trunk_zero_in_parentheses_is_refused_with_its_own_sentence() {
        for text in [
            "+44 (0)20 7946 0958",
            "+44(0)2079460958",
            "+44 ( 0 ) 20 7946 0958",
            "+49\u{a0}(\u{202f}0)\u{a0}89",
            "\u{202d}+44 (\u{200e}0)20\u{202c}",
            "(0)20 7946 0958",
        ] {
            assert_eq!(phone_number(text), Err(Rule::TrunkZero), "{text:?}");
        }
        // In Italy the zero is part of the number.
        assert_eq!(phone_number("+39 (06) 6988 1234"), Ok("+390669881234".to_owned()));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "+",
            "+1",
            "()",
            "15513446634",
            "0015513446634",
            "+0155134466",
            "+1234567890123456",
            "+1551a",
            "++15",
            "+1/55",
            "+1 555 1234 x5",
            "tel:+15551234567",
            "+1\u{0}555",
            "+1\u{200d}555",
            "+\u{661}1",
            "\u{ff0b}15551234567",
            "+\u{ff11}5551234567",
        ] {
            assert_eq!(phone_number(text), Err(Rule::PhoneNumber), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_punctuation_gives_the_same_number(
            digits in "[1-9][0-9]{1,14}",
            gaps in r"[ (.\-\p{Pd}\s\x{2212}\x{202a}-\x{202e}\x{2066}-\x{2069}]{0,4}",
        ) {
            let spread = format!("+{digits}").split("").collect::<Vec<_>>().join(&gaps);
            prop_assert_eq!(phone_number(&spread), Ok(format!("+{digits}")), "{:?}", spread);
        }
    }
}
