//! API keys: their text, their scopes, and who a presented key stands for.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use clap::ValueEnum;
use moka::future::Cache;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio_util::task::TaskTracker;

use crate::{
    entity::api_key,
    error::{Error, Result},
    store::{self, Store},
    telemetry,
};

/// How long a key's row is trusted. With the 2 seconds that a look-up may take, a revoked key stops within 5.
const TRUSTED: Duration = Duration::from_secs(3);

/// How many keys are remembered at most.
const REMEMBERED: u64 = 10_000;

/// What a key allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// Read profiles.
    #[value(name = "profiles.read")]
    ProfilesRead,
    /// Create and change profiles.
    #[value(name = "profiles.write")]
    ProfilesWrite,
    /// Report how cases stand.
    #[value(name = "cases.report")]
    CasesReport,
    /// Correct locked fields, set roles, find people and read their history.
    #[value(name = "support")]
    Support,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

/// A key in its text form, `ps_<lookup>_<secret>`: 16 and 64 hexadecimal digits. Shown once, at its making.
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

    /// The whole key, to be shown once.
    pub fn expose(&self) -> String {
        format!("ps_{}_{}", self.lookup, self.secret.expose_secret())
    }

    /// What the database keeps of the secret.
    pub fn secret_sha256(&self) -> Vec<u8> {
        Sha256::digest(self.secret.expose_secret()).to_vec()
    }
}

impl FromStr for KeyText {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (lookup, secret) =
            text.strip_prefix("ps_").and_then(|rest| rest.split_once('_')).ok_or(Error::ApiKeyInvalid)?;
        let hexadecimal = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if lookup.len() == 16 && secret.len() == 64 && hexadecimal(lookup) && hexadecimal(secret) {
            Ok(Self { lookup: lookup.to_owned(), secret: secret.into() })
        } else {
            Err(Error::ApiKeyInvalid)
        }
    }
}

/// A key's row, and whether its use has been noted since it was read.
struct Remembered {
    row: api_key::Model,
    touched: AtomicBool,
}

/// Finds out who a presented key stands for.
pub struct Keys {
    store: Store,
    tasks: TaskTracker,
    cache: Cache<String, Arc<Remembered>>,
}

impl Keys {
    pub fn new(store: Store, tasks: TaskTracker) -> Self {
        Self { store, tasks, cache: Cache::builder().max_capacity(REMEMBERED).time_to_live(TRUSTED).build() }
    }

    /// The row of the presented key, if it is known, current, and has the scope.
    pub async fn authenticate(&self, presented: &KeyText, scope: Scope, now: DateTime<Utc>) -> Result<api_key::Model> {
        let remembered = self
            .cache
            .try_get_with_by_ref(&presented.lookup, self.look_up(&presented.lookup))
            .await
            .map_err(|error| Error::clone(&error))?;
        let row = &remembered.row;
        let same_secret: bool = presented.secret_sha256().ct_eq(&row.secret_sha256).into();
        if !same_secret || row.revoked_at.is_some() || row.expires_at.is_some_and(|expiry| expiry <= now) {
            return Err(Error::ApiKeyInvalid);
        }
        telemetry::note_key(&row.id);
        self.note_use(&remembered, now);
        if row.scopes.split(' ').any(|held| held == scope.to_string()) {
            Ok(row.clone())
        } else {
            Err(Error::ScopeMissing(scope))
        }
    }

    async fn look_up(&self, lookup: &str) -> Result<Arc<Remembered>> {
        let row = store::in_time(store::key::find(self.store.reader(), lookup)).await?;
        let row = row.ok_or(Error::ApiKeyInvalid)?;
        Ok(Arc::new(Remembered { row, touched: AtomicBool::new(false) }))
    }

    /// Notes the use beside the call: nobody waits for it.
    fn note_use(&self, remembered: &Remembered, now: DateTime<Utc>) {
        let stale = remembered.row.last_used_at.is_none_or(|last| last < now - store::key::LAST_USE_STEP);
        if stale && !remembered.touched.swap(true, Ordering::Relaxed) {
            let (store, lookup) = (self.store.clone(), remembered.row.id.clone());
            self.tasks.spawn(async move {
                if let Err(error) = store::key::touch(store.writer(), &lookup, now).await {
                    tracing::warn!(key_id = lookup, ?error, "the key's last use could not be noted");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_its_debug_shows_no_secret() {
        let key = KeyText::generate();
        let read: KeyText = key.expose().parse().expect("a key");
        assert_eq!((&read.lookup, read.secret_sha256()), (&key.lookup, key.secret_sha256()));
        assert!(!format!("{key:?}").contains(key.secret.expose_secret()));
    }

    #[test]
    fn anything_else_is_no_key() {
        let key = KeyText::generate().expose();
        for text in ["", "ps_", "ps__", &key[1..], &key[..key.len() - 1], &key.to_uppercase(), &format!("{key}0")] {
            assert!(text.parse::<KeyText>().is_err(), "{text:?}");
        }
    }
}
