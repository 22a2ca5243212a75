//! The text of an API key.

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

/// An API key in its text form, `ps_<lookup>_<secret>`: 16 and 64 hexadecimal digits. It is shown once, when it is made.
#[derive(Debug)]
pub struct KeyText {
    pub lookup: String,
    secret: SecretString,
}

impl KeyText {
    /// A new key with 256 random bits.
    pub fn generate() -> Self {
        let lookup: [u8; 8] = rand::random();
        let secret: [u8; 32] = rand::random();
        Self { lookup: hex::encode(lookup), secret: hex::encode(secret).into() }
    }

    /// The key in this text, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let (lookup, secret) = text.strip_prefix("ps_")?.split_once('_')?;
        let hexadecimal = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let fits = lookup.len() == 16 && secret.len() == 64 && hexadecimal(lookup) && hexadecimal(secret);
        fits.then(|| Self { lookup: lookup.to_owned(), secret: secret.into() })
    }

    /// The whole key, to be shown once.
    pub fn expose(&self) -> String {
        format!("ps_{}_{}", self.lookup, self.secret.expose_secret())
    }

    /// What the database keeps of the secret.
    pub fn secret_sha256(&self) -> Vec<u8> {
        Sha256::digest(self.secret.expose_secret()).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_its_debug_shows_no_secret() {
        let key = KeyText::generate();
        let read = KeyText::parse(&key.expose()).expect("a key");
        assert_eq!((&read.lookup, read.secret_sha256()), (&key.lookup, key.secret_sha256()));
        assert!(!format!("{key:?}").contains(key.secret.expose_secret()));
    }

    /// What is stored of keys that were made is found by exactly this.
    #[test]
    fn the_database_keeps_the_sha_256_of_the_secret_as_it_is_shown() {
        let key = KeyText::parse(&format!("ps_0123456789abcdef_{}", "0".repeat(64))).expect("a key");
        let sha256 = "60e05bd1b195af2f94112fa7197a5c88289058840ce7c6df9693756bc6250f55";
        assert_eq!((key.lookup.as_str(), hex::encode(key.secret_sha256()).as_str()), ("0123456789abcdef", sha256));
    }

    #[test]
    fn anything_else_is_no_key() {
        let key = KeyText::generate().expose();
        for text in ["", "ps_", "ps__", &key[1..], &key[..key.len() - 1], &key.to_uppercase(), &format!("{key}0")] {
            assert!(KeyText::parse(text).is_none(), "{text:?}");
        }
    }
}
