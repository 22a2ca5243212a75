//! E-mail addresses.

use email_address::EmailAddress;

use super::Rule;

/// The longest address that SMTP can carry (RFC 5321 section 4.5.3.1.3, less the angle brackets).
const LONGEST: usize = 254;

/// The longest label of a host name (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// A plain ASCII address, in lower case: `Ada@Example.com` and `ada@example.com` reach the same person.
pub fn email(text: &str) -> Result<String, Rule> {
    let (local, domain) = text.rsplit_once('@').ok_or(Rule::Email)?;
    let plain = local.is_ascii() && !local.contains('"') && EmailAddress::is_valid_local_part(local);
    if !plain || text.len() > LONGEST {
        Err(Rule::Email)
    } else if is_host_name(domain) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(Rule::EmailDomain)
    }
}

/// Two labels or more of letters, digits and inner hyphens (RFC 1123 section 2.1). The last is not all digits: that is
/// an IP address, or a slip of the pen.
fn is_host_name(domain: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LONGEST_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    domain.split('.').all(is_label) && domain.rsplit_once('.').is_some_and(|(_, last)| !is_number(last))
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
    fn what_is_no_plain_address_is_refused() {
        let long_local = format!("{}@example.com", "a".repeat(65));
        for text in [
            "",
            "john",
            "@",
            "@example.com",
            "a@b@example.com",
            "john..doe@example.com",
            ".john@example.com",
            "John <john@example.com>",
            "mailto:john@example.com",
            "\"john\"@example.com",
            "jo hn@example.com",
            "zo\u{eb}@example.com",
            "john\0@example.com",
            &long_local,
        ] {
            assert_eq!(email(text), Err(Rule::Email), "{text:?}");
        }
    }

    #[test]
    fn a_domain_is_a_host_name_of_two_labels_or_more() {
        for domain in ["a.b", "example.com", "mail-2.example.co.uk", "1.2.3a", "xn--mnchen-3ya.de", "3com.com"] {
            assert_eq!(email(&format!("john@{domain}")), Ok(format!("john@{domain}")));
        }
        for domain in [
            "",
            "localhost",
            ".example.com",
            "example.com.",
            "example..com",
            "-example.com",
            "example-.com",
            "example.-com",
            "example.com?subject=x",
            "example.com/x",
            "example.com:25",
            "example.com>",
            "example.com,jane",
            "example.com;",
            "exa mple.com",
            "exa_mple.com",
            "example.com\0",
            "1.1",
            "example.123",
            "127.0.0.1",
            "[127.0.0.1]",
            "[IPv6:::1]",
            "ex\u{e4}mple.com",
            "example\u{3002}com",
        ] {
            assert_eq!(email(&format!("john@{domain}")), Err(Rule::EmailDomain), "{domain:?}");
        }
    }

    #[test]
    fn a_label_has_at_most_63_characters_and_an_address_254() {
        let label = |length| format!("john@{}.com", "a".repeat(length));
        assert_eq!((email(&label(63)).is_ok(), email(&label(64))), (true, Err(Rule::EmailDomain)));
        let address = |length: usize| {
            let labels = format!("{0}.{0}.{0}", "b".repeat(60));
            format!("{}@{labels}.{}", "a".repeat(64), "c".repeat(length - 64 - 1 - labels.len() - 1))
        };
        assert_eq!((address(254).len(), address(255).len()), (254, 255));
        assert_eq!((email(&address(254)).is_ok(), email(&address(255))), (true, Err(Rule::Email)));
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
