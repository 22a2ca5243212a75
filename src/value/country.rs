//! Countries and states.

use super::Rule;

/// An assigned ISO 3166-1 alpha-2 code, in upper case.
pub fn country(text: &str) -> Result<String, Rule> {
    let code = text.to_ascii_uppercase();
    if rust_iso3166::from_alpha2(&code).is_some() { Ok(code) } else { Err(Rule::Country) }
}

/// Two letters, in upper case.
pub fn state(text: &str) -> Result<String, Rule> {
    let fits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
    if fits { Ok(text.to_ascii_uppercase()) } else { Err(Rule::State) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stored_in_upper_case() {
        assert_eq!((country("us"), state("ny")), (Ok("US".to_owned()), Ok("NY".to_owned())));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", "U", "USA", "XX", "U1", "UK", "\u{17f}s", "\u{ff35}\u{ff33}"] {
            assert_eq!(country(text), Err(Rule::Country), "{text:?}");
        }
        for text in ["", "N", "NYC", "N1", "\u{e9}"] {
            assert_eq!(state(text), Err(Rule::State), "{text:?}");
        }
    }
}
