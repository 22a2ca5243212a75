//! E-mail addresses.

use std::net::Ipv4Addr;

use email_address::{EmailAddress, Options};

use super::Rule;

/// The longest address that SMTP can carry (RFC 5321 section 4.5.3.1.3, less the angle brackets).
const LONGEST: usize = 254;

/// A plain ASCII address, in lower case: `Ada@Example.com` and `ada@example.com` reach the same person.
pub fn email(text: &str) -> Result<String, Rule> {
    let options = Options::default().without_display_text().without_domain_literal();
    let plain = text.is_ascii()
        && text.len() <= LONGEST
        && !text.contains('"')
        && EmailAddress::parse_with_options(text, options)
            .is_ok_and(|address| address.domain().parse::<Ipv4Addr>().is_err());
    if plain { Ok(text.to_ascii_lowercase()) } else { Err(Rule::Email) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_plain_address_is_stored_in_lower_case() {
        assert_eq!(email("John.Doe+tag@Example.COM"), Ok("john.doe+tag@example.com".to_owned()));
    }

    #[test]
    fn everything_else_is_refused() {
        let long = format!("{}@{}.com", "a".repeat(64), "b".repeat(190));
        for text in [
            "",
            "john",
            "john@",
            "@example.com",
            "a@b@example.com",
            "John <john@example.com>",
            "\"john\"@example.com",
            "john@[127.0.0.1]",
            "john@127.0.0.1",
            "jo hn@example.com",
            "john@exa mple.com",
            "john@example..com",
            "john@-example.com",
            "zo\u{eb}@example.com",
            "john@ex\u{e4}mple.com",
            "john@example.com\0",
            &long,
        ] {
            assert_eq!(email(text), Err(Rule::Email), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_address_is_its_own_stored_form(text in "[ -~]{0,8}@[ -~]{0,12}") {
            if let Ok(stored) = email(&text) {
                prop_assert_eq!(email(&stored), Ok(stored));
            }
        }
    }
}
