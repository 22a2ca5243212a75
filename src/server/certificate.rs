//! What is read from an X.509 certificate: until when it is valid, and whose it is.

use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{FromDer as _, X509Error},
};

/// The longest name that is logged, in bytes.
const LONGEST_NAME: usize = 256;

/// Until when a certificate in DER is valid.
///
/// # Errors
///
/// Says why it cannot be read.
pub fn expiry(certificate: &[u8]) -> Result<DateTime<Utc>, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let end = DateTime::from_timestamp(parsed.validity().not_after.timestamp(), 0);
    end.ok_or_else(|| X509Error::InvalidDate.to_string())
}

/// The name that a certificate in DER stands for: its first URI, else its first DNS name, else its common name. One that
/// may be a person's, such as an e-mail address or words, stays out of the log: then it is the certificate's
/// fingerprint.
pub fn name(certificate: &[u8]) -> String {
    let found = X509Certificate::from_der(certificate)
        .ok()
        .and_then(|(_, parsed)| names(&parsed).into_iter().find(|name| is_of_a_service(name)).map(str::to_owned));
    found.unwrap_or_else(|| format!("sha256:{}", hex::encode(Sha256::digest(certificate))))
}

fn names<'a>(certificate: &'a X509Certificate<'_>) -> Vec<&'a str> {
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let alternatives = || alternatives.iter().flat_map(|extension| &extension.value.general_names);
    let uris = alternatives().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
    let hosts =
        alternatives().filter_map(|name| if let GeneralName::DNSName(host) = name { Some(*host) } else { None });
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    uris.chain(hosts).chain(common).collect()
}

/// Short, and without the characters of an e-mail address or a sentence.
fn is_of_a_service(name: &str) -> bool {
    let tame = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/');
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(tame)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common_name: &str, names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = names;
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn a_service_is_named_by_its_uri_its_host_or_its_common_name_and_nobody_by_an_address_or_words() {
        let uri = || SanType::URI("spiffe://north/ns/shop/sa/billing".try_into().expect("ASCII"));
        let host = || SanType::DnsName("billing.north".try_into().expect("ASCII"));
        let email = || SanType::Rfc822Name("ada@example.com".try_into().expect("ASCII"));
        for (common_name, names, expected) in [
            ("billing", vec![email(), host(), uri()], "spiffe://north/ns/shop/sa/billing"),
            ("billing", vec![host()], "billing.north"),
            ("billing", vec![email()], "billing"),
            ("Ada Byron", vec![], "sha256:"),
            ("ada@example.com", vec![email()], "sha256:"),
            ("", vec![], "sha256:"),
        ] {
            let named = name(&certificate(common_name, names));
            assert!(named == expected || expected == "sha256:" && named.starts_with(expected), "{named}");
        }
        assert!(name(b"no certificate").starts_with("sha256:"));
    }

    #[test]
    fn its_end_is_read_to_the_second_and_what_is_none_is_refused() {
        let end = expiry(&certificate("billing", vec![])).expect("a certificate");
        assert_eq!(end.to_rfc3339(), "2031-02-03T00:00:00+00:00");
        expiry(b"no certificate").expect_err("no certificate");
    }
}
