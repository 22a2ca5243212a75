//! `key create`, `key rotate`, `key rate`, `key list` and `key revoke`.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Subcommand, ValueEnum, builder::PossibleValue};
use sea_orm::ConnectionTrait;
use serde::Serialize;
use uuid::Uuid;

use super::{
    Failure,
    database::DatabaseArgs,
    duration,
    organization::{checked_name, enabled, unknown},
    output::{Output, Row, shown},
    print_and_commit,
};
use crate::{
    clock,
    entity::api_key,
    scope::Scope,
    store,
    value::{KeyText, NoRate, Rate},
};

impl ValueEnum for Scope {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.description()))
    }
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key and print it: it is shown only now.
    Create {
        /// The organization's name.
        #[arg(long)]
        organization: String,
        /// What the key is for, as the history will show it: 1 to 100 characters. No other key that works has it.
        #[arg(long)]
        name: String,
        /// What the key allows; for more, repeat it or separate them by commas.
        #[arg(long = "scope", required = true, value_name = "SCOPE", value_delimiter = ',')]
        scopes: Vec<Scope>,
        /// How long the key works, such as 90d or 12h; for ever without it.
        #[arg(long, value_parser = duration::lifetime)]
        expires: Option<Duration>,
        /// Calls a second that the key may make, such as 100/s; without it no bound. Each replica counts for itself.
        #[arg(long)]
        rate: Option<Rate>,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Make a key of the same name, scopes, lifetime and rate and print it. The old one works until it is revoked.
    Rotate {
        /// The old key's lookup id, or the whole key.
        lookup: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Set how many calls a second a key may make, effective within 5 seconds. Each replica counts for itself: so many
    /// replicas serve so many times as much.
    Rate {
        /// The key's lookup id, or the whole key.
        lookup: String,
        /// Such as 50/s, or `none` for no bound.
        #[arg(value_parser = rate_or_none)]
        rate: RateOrNone,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Print an organization's keys: lookup id, name, scopes, creation, expiry, revocation, last use, rate.
    List {
        /// The organization's name.
        #[arg(long)]
        organization: String,
        /// For people or for programs.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Revoke a key, effective within 5 seconds.
    Revoke {
        /// The key's lookup id, which stands between `ps_` and the next `_`, or the whole key.
        lookup: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
}

pub async fn run(command: KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Create { organization, name, scopes, expires, rate, database } => {
            let (organization, name) = (checked_name(&organization)?, checked_name(&name)?);
            let store = database.open().await?;
            let (tx, now) = (store.begin().await?, clock::now());
            let found = store::organization::lock(&tx, &organization).await?;
            let organization_id = enabled(found.ok_or_else(|| unknown(&organization))?)?.id;
            if let Some(live) = store::key::find_live(&tx, organization_id, &name, now).await? {
                return Err(Failure::failed(format!(
                    "there is a key {name:?} that works; for a new one in its place: profile-service key rotate {}",
                    live.id
                )));
            }
            let lifetime = expires.map(TimeDelta::from_std).transpose();
            let lifetime = lifetime.map_err(|error| Failure::usage(error.to_string()))?;
            let allowed = Allowed { scopes: joined(&scopes), lifetime, calls_per_second: rate.map(i32::from) };
            let key = create(&tx, organization_id, name, allowed, now).await?;
            print_and_commit(tx, key).await?;
            store.close().await;
        }
        KeyCommand::Rotate { lookup, database } => {
            let lookup = lookup_of(&lookup)?;
            let store = database.open().await?;
            let (tx, now) = (store.begin().await?, clock::now());
            let old = store::key::find(&tx, &lookup).await?.ok_or_else(|| no_key(&lookup))?;
            if old.revoked_at.is_some() || old.expires_at.is_some_and(|end| end <= now) {
                return Err(Failure::failed(format!(
                    "the key {lookup:?} is revoked or expired: make one by key create"
                )));
            }
            let organization = store::organization::find_by_id(&tx, old.organization_id).await?;
            organization.map(enabled).transpose()?;
            let lifetime = old.expires_at.map(|end| end - old.created_at);
            let allowed = Allowed { scopes: old.scopes, lifetime, calls_per_second: old.calls_per_second };
            let key = create(&tx, old.organization_id, old.name, allowed, now).await?;
            print_and_commit(tx, key).await?;
            store.close().await;
        }
        KeyCommand::Rate { lookup, rate: RateOrNone(rate), database } => {
            let lookup = lookup_of(&lookup)?;
            let store = database.open().await?;
            if !store::key::set_rate(store.writer(), &lookup, rate.map(i32::from)).await? {
                return Err(no_key(&lookup));
            }
            store.close().await;
        }
        KeyCommand::List { organization, output, database } => {
            let store = database.open().await?;
            let organization = checked_name(&organization)?;
            let found = store::organization::find(store.reader(), &organization).await?;
            let organization_id = found.ok_or_else(|| unknown(&organization))?.id;
            let keys = store::key::list(store.reader(), organization_id).await?;
            store.close().await;
            output.print(keys.into_iter().map(ListedKey::from).collect())?;
        }
        KeyCommand::Revoke { lookup, database } => {
            let lookup = lookup_of(&lookup)?;
            let store = database.open().await?;
            if !store::key::revoke(store.writer(), &lookup, clock::now()).await? {
                return Err(no_key(&lookup));
            }
            store.close().await;
        }
    }
    Ok(())
}

/// What a key allows.
#[derive(Default)]
pub struct Allowed {
    /// As the database has them.
    pub scopes: String,
    /// For ever where there is none.
    pub lifetime: Option<TimeDelta>,
    /// No bound where there is none.
    pub calls_per_second: Option<i32>,
}

/// Makes a key and answers its text, which is nowhere else.
pub async fn create(
    db: &impl ConnectionTrait,
    organization_id: Uuid,
    name: String,
    Allowed { scopes, lifetime, calls_per_second }: Allowed,
    now: DateTime<Utc>,
) -> Result<String, Failure> {
    let text = KeyText::generate();
    let end = |lifetime| now.checked_add_signed(lifetime).ok_or_else(|| Failure::failed("the key would never end"));
    let key = api_key::Model {
        id: text.lookup.clone(),
        organization_id,
        name,
        secret_sha256: text.secret_sha256(),
        scopes,
        created_at: now,
        expires_at: lifetime.map(end).transpose()?,
        revoked_at: None,
        last_used_at: None,
        calls_per_second,
    };
    store::key::create(db, key).await?;
    Ok(text.expose())
}

/// Scopes as a key has them in the database: by name, each once.
pub fn joined(scopes: &[Scope]) -> String {
    let mut names: Vec<_> = scopes.iter().map(|scope| scope.name()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(" ")
}

/// The lookup id of a key, from itself or from the whole key. What is neither is not shown: it may be a secret.
fn lookup_of(text: &str) -> Result<String, Failure> {
    let lookup = text.trim().strip_prefix("ps_").map_or(text.trim(), |key| key.split('_').next().unwrap_or_default());
    let valid = lookup.len() == 16 && lookup.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let form = "a lookup id is the 16 hexadecimal digits that stand between ps_ and the next _ of the key";
    valid.then(|| lookup.to_owned()).ok_or_else(|| Failure::usage(form))
}

/// A rate, or none.
#[derive(Clone, Copy, Debug)]
pub struct RateOrNone(Option<Rate>);

fn rate_or_none(text: &str) -> Result<RateOrNone, String> {
    match text {
        "none" => Ok(RateOrNone(None)),
        rate => rate.parse().map(|rate| RateOrNone(Some(rate))).map_err(|error: NoRate| format!("{error}, or none")),
    }
}

fn no_key(lookup: &str) -> Failure {
    Failure::failed(format!("there is no key {lookup:?}"))
}

/// A key in the list, in the names of the contract: nothing of its secret.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedKey {
    key_id: String,
    key_name: String,
    scopes: Vec<String>,
    create_time: DateTime<Utc>,
    expire_time: Option<DateTime<Utc>>,
    revoke_time: Option<DateTime<Utc>>,
    last_use_time: Option<DateTime<Utc>>,
    rate: Option<String>,
}

impl From<api_key::Model> for ListedKey {
    fn from(key: api_key::Model) -> Self {
        Self {
            key_id: key.id,
            key_name: key.name,
            scopes: key.scopes.split(' ').map(str::to_owned).collect(),
            create_time: key.created_at,
            expire_time: key.expires_at,
            revoke_time: key.revoked_at,
            last_use_time: key.last_used_at,
            rate: key.calls_per_second.map(|calls| Rate::stored(calls).to_string()),
        }
    }
}

impl Row for ListedKey {
    const COLUMNS: &'static [&'static str] =
        &["LOOKUP", "NAME", "SCOPES", "CREATED", "EXPIRES", "REVOKED", "LAST USED", "RATE"];

    fn columns(self) -> Vec<String> {
        let [expires, revoked, used] = [self.expire_time, self.revoke_time, self.last_use_time]
            .map(|time| shown(time, |time| format!("{time:?}")));
        let (created, rate) = (format!("{:?}", self.create_time), shown(self.rate, |rate| rate));
        vec![self.key_id, self.key_name, self.scopes.join(" "), created, expires, revoked, used, rate]
    }
}
