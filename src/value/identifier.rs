//! What other systems call a person, and what a caller calls those of its people who act.

use super::{Rule, text::line};

/// The longest name of a system, and of somebody who acts.
const LONGEST: usize = 100;

/// A system that has a name for a person, such as `https://hospital.example/mrn`.
pub fn system(text: &str) -> Result<String, Rule> {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b':' | b'/' | b'_' | b'-');
    named(text, fits).ok_or(Rule::System)
}

/// The name that a system has for a person. `|` stands between the two where they are one text.
pub fn name_there(text: &str) -> Result<String, Rule> {
    if text.contains('|') { Err(Rule::VerticalLine) } else { line::<200>(text) }
}

/// Who of a caller's people acts.
pub fn actor(text: &str) -> Result<String, Rule> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'/' | b'-');
    named(text, fits).ok_or(Rule::Actor)
}

fn named(text: &str, fits: impl Fn(u8) -> bool) -> Option<String> {
    ((1..=LONGEST).contains(&text.len()) && text.bytes().all(fits)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_lower_case() {
        for text in ["mrn", "https://hospital.example/mrn", "urn:oid:2.16.840", "a_b-c", &"9".repeat(100)] {
            assert_eq!(system(text).as_deref(), Ok(text));
        }
        for text in ["", "MRN", "m r n", "mrn|1", "\u{e9}", &"9".repeat(101)] {
            assert_eq!(system(text), Err(Rule::System), "{text:?}");
        }
    }

    #[test]
    fn a_name_there_is_any_line_without_the_mark_between_both() {
        for text in ["a", "A-1 / \u{c5}", "<&>\"'\\", &"\u{1f469}".repeat(200)] {
            assert_eq!(name_there(text).as_deref(), Ok(text));
        }
        assert_eq!(name_there("a|b"), Err(Rule::VerticalLine));
        assert_eq!(name_there("a\nb"), Err(Rule::Control));
        assert_eq!(name_there(&"a".repeat(201)), Err(Rule::Length(200)));
    }

    #[test]
    fn an_actor_is_no_sentence_and_no_address() {
        for text in ["ada", "Ada.L_1:sso/north-7", &"a".repeat(100)] {
            assert_eq!(actor(text).as_deref(), Ok(text));
        }
        for text in ["", "ada@example.com", "Ada L", "a|b", "a\u{e9}", &"a".repeat(101)] {
            assert_eq!(actor(text), Err(Rule::Actor), "{text:?}");
        }
    }
}
