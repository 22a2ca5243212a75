//! Text: one form for what looks the same, what no text may hold, and limits in characters.

use std::borrow::Cow;

use icu_properties::props::{
    BidiControl, BinaryProperty as _, DefaultIgnorableCodePoint, EnumeratedProperty as _, GeneralCategory,
    GeneralCategoryGroup, NoncharacterCodePoint, VariationSelector,
};
use unicode_normalization::{UnicodeNormalization as _, is_nfc};

use super::Rule;

/// The longest name, in characters.
const NAME: usize = 100;

/// The form in which every string of a request is judged: without what copying brings along, in Unicode NFC, without
/// white space at both ends. Text that has nothing to see is empty.
pub fn clean(text: &str) -> Cow<'_, str> {
    // Most text is in the form already, and seeing that is much cheaper than making it.
    if text.is_ascii() {
        return Cow::Borrowed(text.trim());
    }
    let cleaned = if !text.contains(is_removed) && is_nfc(text) {
        Cow::Borrowed(text.trim())
    } else {
        let kept = text.chars().filter(|c| !is_removed(*c));
        // NFC alone would change registered names: U+FA19 would become U+795E.
        Cow::Owned(kept.cjk_compat_variants().nfc().collect::<String>().trim().to_owned())
    };
    if cleaned.contains(is_visible) { cleaned } else { Cow::Borrowed("") }
}

/// What copying brings along and nobody sees: soft hyphens, zero width spaces, directional marks, byte order marks.
const fn is_removed(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2060}' | '\u{feff}')
}

/// What no text has any more and nobody sees in names of before 0.2.0: what is removed, and what is refused because it
/// orders what stands around it.
pub(super) fn is_left_out(c: char) -> bool {
    is_removed(c) || BidiControl::for_char(c)
}

/// Whether the character alone can be seen. A combining mark cannot, nor can the blank of Braille, U+2800.
fn is_visible(c: char) -> bool {
    c.is_ascii_graphic()
        || !(c.is_whitespace()
            || c == '\u{2800}'
            || DefaultIgnorableCodePoint::for_char(c)
            || GeneralCategoryGroup::Mark.contains(GeneralCategory::for_char(c)))
}

/// Why no text may hold this character, if none may.
fn refusal(c: char) -> Option<Rule> {
    if c.is_ascii() {
        return c.is_ascii_control().then_some(Rule::Control);
    }
    match GeneralCategory::for_char(c) {
        GeneralCategory::Control => Some(Rule::Control),
        GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator => Some(Rule::Separator),
        GeneralCategory::Format if BidiControl::for_char(c) => Some(Rule::BidiControl),
        GeneralCategory::Unassigned if NoncharacterCodePoint::for_char(c) => Some(Rule::Noncharacter),
        _ => None,
    }
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
    limited::<MAX>(text, refusal)
}

/// Text of at most `MAX` characters that may have line breaks.
pub fn lines<const MAX: usize>(text: &str) -> Result<String, Rule> {
    limited::<MAX>(text, |c| if matches!(c, '\n' | '\r') { None } else { refusal(c) })
}

/// 1 to 12 digits, kept as text: leading zeros count.
pub fn postal_code(text: &str) -> Result<String, Rule> {
    let fits = (1..=12).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { Ok(text.to_owned()) } else { Err(Rule::PostalCode) }
}

/// An entity-tag by its form (RFC 7232 section 2.3), which may be weak. Whether it is current is another question.
pub fn etag(text: &str) -> Result<String, Rule> {
    let opaque = text.strip_prefix("W/").unwrap_or(text);
    let inner = opaque.strip_prefix('"').and_then(|opaque| opaque.strip_suffix('"'));
    // The grammar's bytes from 0x80 on are any character that is not ASCII.
    let is_etagc = |c: char| matches!(c, '!' | '#'..='~') || !c.is_ascii() && refusal(c).is_none();
    if inner.is_some_and(|inner| inner.chars().all(is_etagc)) { Ok(text.to_owned()) } else { Err(Rule::Etag) }
}

fn limited<const MAX: usize>(text: &str, refusal: impl Fn(char) -> Option<Rule>) -> Result<String, Rule> {
    if let Some(rule) = text.chars().find_map(refusal) {
        return Err(rule);
    }
    let selectors = if text.is_ascii() { 0 } else { text.chars().filter(|c| VariationSelector::for_char(*c)).count() };
    let characters = text.chars().count() - selectors;
    if characters > MAX {
        Err(Rule::Length(MAX))
    } else if selectors > characters {
        Err(Rule::Selectors)
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
        for (text, cleaned) in [
            ("\u{2003} Zoe\u{308}\t\n", "Zo\u{eb}"),
            ("\u{2003} Zo\u{eb}\t\n", "Zo\u{eb}"),
            (" Ada\r\n", "Ada"),
            ("\u{feff}Ada", "Ada"),
            ("A\u{ad}da\u{200b}", "Ada"),
            ("\u{200f}\u{61c}\u{200e}Ada\u{2060} ", "Ada"),
            ("e\u{200b}\u{301}", "\u{e9}"), // composed over what was removed
            ("\u{212b}ngstr\u{f6}m", "\u{c5}ngstr\u{f6}m"), // the sign is the letter
            ("\u{fa19}", "\u{795e}\u{fe00}"), // a registered name keeps its form
            ("\u{2f81a}\u{5c71}", "\u{51ac}\u{fe00}\u{5c71}"), // beyond the first plane, too
            ("\u{fa0e}", "\u{fa0e}"),       // unified, in spite of its block
            ("\u{915}\u{94d}\u{200d}\u{937}", "\u{915}\u{94d}\u{200d}\u{937}"), // joiners stay
            ("\u{6cc}\u{200c}\u{627}", "\u{6cc}\u{200c}\u{627}"), // and non-joiners
            ("\u{9089}\u{e0101}", "\u{9089}\u{e0101}"), // and variation selectors
        ] {
            assert_eq!(clean(text), cleaned, "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_seen_is_empty() {
        let kinds = [
            ("white space", &['\t', '\n', ' ', '\u{85}', '\u{a0}', '\u{2003}', '\u{2028}', '\u{3000}'][..]),
            ("what is removed", &['\u{ad}', '\u{61c}', '\u{200b}', '\u{200e}', '\u{200f}', '\u{2060}', '\u{feff}']),
            ("fillers of Hangul", &['\u{115f}', '\u{1160}', '\u{3164}', '\u{ffa0}']),
            ("joiners and their like", &['\u{34f}', '\u{17b4}', '\u{180e}', '\u{200c}', '\u{200d}']),
            ("variation selectors and tags", &['\u{180b}', '\u{fe0f}', '\u{e0041}', '\u{e0100}']),
            ("bidirectional controls", &['\u{202a}', '\u{202c}', '\u{202e}', '\u{2066}', '\u{2069}', '\u{206a}']),
            ("marks with nothing below", &['\u{301}', '\u{308}', '\u{903}', '\u{20dd}']),
            ("reserved, musical, Braille", &['\u{fff0}', '\u{1d173}', '\u{2800}']),
        ];
        for blank in kinds.iter().flat_map(|(_, blanks)| *blanks) {
            assert_eq!(clean(&blank.to_string()), "", "{blank:?}");
        }
        for (kind, blanks) in kinds {
            let all: String = blanks.iter().collect();
            assert_eq!(clean(&all), "", "{kind}");
            assert_ne!(clean(&format!("{all}.{all}")), "", "{kind}");
        }
        for seen in ['a', '\0', '\u{b4}', '\u{640}', '\u{2801}', '\u{e000}', '\u{ffff}', '\u{1f600}'] {
            assert_ne!(clean(&seen.to_string()), "", "{seen:?}");
        }
    }

    #[test]
    fn text_in_the_form_already_is_not_copied() {
        for text in ["Ada", " Ada Byron ", "\0", "Zo\u{eb}", "\u{674e}\u{5c0f}\u{9f8d}", "", "\u{3164}"] {
            assert!(matches!(clean(text), Cow::Borrowed(_)), "{text:?}");
        }
    }

    #[test]
    fn length_counts_characters_and_not_bytes_nor_variation_selectors() {
        assert_eq!(name(&"\u{1f600}".repeat(100)), Ok("\u{1f600}".repeat(100)));
        assert_eq!(name(&"\u{1f600}".repeat(101)), Err(Rule::Length(100)));
        let selected = "\u{8fbb}\u{e0100}".repeat(100);
        assert_eq!(name(&selected), Ok(selected.clone()));
        assert_eq!(name(&format!("{selected}a")), Err(Rule::Length(100)));
        assert_eq!(name(&clean(&"\u{fa19}".repeat(100))).map(|stored| stored.chars().count()), Ok(200));
    }

    #[test]
    fn an_id_that_another_system_made_has_at_most_100_characters() {
        assert_eq!(identifier(&"\u{e9}".repeat(100)), Ok("\u{e9}".repeat(100)));
        assert_eq!(identifier(&"\u{e9}".repeat(101)), Err(Rule::Length(100)));
    }

    #[test]
    fn more_variation_selectors_than_characters_are_refused() {
        for text in ["a\u{fe0f}\u{fe0f}", "ab\u{fe00}\u{e0100}\u{e01ef}", "a\u{180b}\u{180f}"] {
            assert_eq!(line::<9>(text), Err(Rule::Selectors), "{text:?}");
        }
        assert_eq!(line::<9>("ab\u{fe0f}\u{fe0f}"), Ok("ab\u{fe0f}\u{fe0f}".to_owned()));
    }

    #[test]
    fn what_no_text_may_hold_is_refused_and_line_breaks_only_where_there_are_lines() {
        for (characters, rule) in [
            (&['\0', '\t', '\u{b}', '\u{c}', '\u{1b}', '\u{7f}', '\u{80}', '\u{85}', '\u{9f}'][..], Rule::Control),
            (&['\u{2028}', '\u{2029}'], Rule::Separator),
            (&['\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}'], Rule::BidiControl),
            (&['\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}'], Rule::BidiControl),
            (&['\u{fdd0}', '\u{fdef}', '\u{fffe}', '\u{ffff}', '\u{1fffe}', '\u{10ffff}'], Rule::Noncharacter),
        ] {
            for character in characters {
                let text = format!("a{character}b");
                assert_eq!((line::<9>(&text), lines::<9>(&text)), (Err(rule), Err(rule)), "{text:?}");
            }
        }
        assert_eq!((line::<9>("a\r\nb"), lines::<9>("a\r\nb")), (Err(Rule::Control), Ok("a\r\nb".to_owned())));
        // Joiners, private use, and what a later Unicode may assign.
        for text in ["a\u{200c}b\u{200d}c", "\u{e000}", "\u{378}"] {
            assert_eq!(line::<9>(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn an_etag_is_an_entity_tag_by_its_form() {
        for text in ["\"7\"", "\"\"", "W/\"7\"", "\"a!#~\\\"", "\"W/\"", "\"zo\u{eb}\""] {
            assert_eq!(etag(text), Ok(text.to_owned()), "{text:?}");
        }
        for text in [
            "7",
            "*",
            "\"",
            "\"7",
            "7\"",
            "'7'",
            "w/\"7\"",
            "W/7",
            "W/",
            "\"7\", \"8\"",
            "\"7 \"",
            "\"a\"b\"",
            "\"7\0\"",
            "\"\u{202e}7\"",
            "\u{201c}7\u{201d}",
            "\\\"7\\\"",
        ] {
            assert_eq!(etag(text), Err(Rule::Etag), "{text:?}");
        }
    }

    /// Over every scalar value: cleaning again changes nothing, and text in NFC needs no other look than for what is
    /// removed.
    #[test]
    fn every_scalar_value_has_one_form() {
        for c in '\0'..=char::MAX {
            let text = c.to_string();
            let once = clean(&text);
            assert_eq!(clean(&once), once, "{text:?}");
            assert!(!is_nfc(&text) || text.cjk_compat_variants().eq([c]), "{text:?}");
        }
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
        fn cleaning_twice_is_cleaning_once(
            text in r"[ aA\x{301}\x{30a}\x{200b}\x{feff}\x{fe00}\x{fa19}\x{1100}\x{1161}\x{11a8}\x{3164}\x{202e}\n]{0,8}|\PC*",
        ) {
            let once = clean(&text);
            prop_assert_eq!(clean(&once), once.clone());
        }

        #[test]
        fn an_accepted_line_is_stored_as_it_was_judged(text in any::<String>()) {
            let text = clean(&text);
            if let Ok(stored) = line::<20>(&text) {
                prop_assert!(stored.chars().count() <= 40);
                prop_assert!(!stored.contains(char::is_control));
                prop_assert_eq!(stored, text);
            }
        }
    }
}
