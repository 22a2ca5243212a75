//! `key create`, `key list` and `key revoke`.

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Subcommand, ValueEnum, builder::PossibleValue};
use uuid::Uuid;

use super::{Failure, database::DatabaseArgs, organization::checked_name};
use crate::{
    clock,
    entity::api_key,
    scope::Scope,
    store::{self, Store},
    value::KeyText,
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
        /// What the key is for, as the history will show it: 1 to 100 characters.
        #[arg(long)]
        name: String,
        /// What the key allows; repeat it for more.
        #[arg(long = "scope", required = true, value_name = "SCOPE")]
        scopes: Vec<Scope>,
        /// How long the key works, such as 90d or 12h; for ever without it.
        #[arg(long)]
        expires: Option<humantime::Duration>,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Print an organization's keys: lookup id, name, scopes, creation, expiry, revocation, last use.
    List {
        /// The organization's name.
        #[arg(long)]
        organization: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Revoke a key, effective within 5 seconds.
    Revoke {
        /// The key's lookup id: what stands between `ps_` and the next `_`.
        lookup: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
}

pub async fn run(command: KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Create { organization, name, scopes, expires, database } => {
            let name = checked_name(&name)?;
            let now = clock::now();
            let expires_at = expires.map(|lifetime| expiry(now, *lifetime)).transpose()?;
            let store = database.open().await?;
            let organization = find(&store, &organization).await?;
            println!("{}", create(&store, organization, name, &scopes, expires_at).await?);
            store.close().await;
        }
        KeyCommand::List { organization, database } => {
            let store = database.open().await?;
            let organization = find(&store, &organization).await?;
            println!("LOOKUP\tNAME\tSCOPES\tCREATED\tEXPIRES\tREVOKED\tLAST USED");
            for key in store::key::list(store.reader(), organization).await? {
                let api_key::Model {
                    id,
                    organization_id: _,
                    name,
                    secret_sha256: _,
                    scopes,
                    created_at,
                    expires_at,
                    revoked_at,
                    last_used_at,
                } = key;
                let [expires, revoked, used] = [expires_at, revoked_at, last_used_at].map(shown);
                println!("{id}\t{name}\t{scopes}\t{created_at:?}\t{expires}\t{revoked}\t{used}");
            }
            store.close().await;
        }
        KeyCommand::Revoke { lookup, database } => {
            let store = database.open().await?;
            if !store::key::revoke(store.writer(), &lookup, clock::now()).await? {
                return Err(Failure::failed(format!("there is no key {lookup:?}")));
            }
            store.close().await;
        }
    }
    Ok(())
}

/// Makes a key and answers its text, which is nowhere else.
pub async fn create(
    store: &Store,
    organization: Uuid,
    name: String,
    scopes: &[Scope],
    expires_at: Option<DateTime<Utc>>,
) -> Result<String, Failure> {
    let text = KeyText::generate();
    let mut scopes: Vec<_> = scopes.iter().map(|scope| scope.name()).collect();
    scopes.sort_unstable();
    scopes.dedup();
    let key = api_key::Model {
        id: text.lookup.clone(),
        organization_id: organization,
        name,
        secret_sha256: text.secret_sha256(),
        scopes: scopes.join(" "),
        created_at: clock::now(),
        expires_at,
        revoked_at: None,
        last_used_at: None,
    };
    store::key::create(store.writer(), key).await?;
    Ok(text.expose())
}

async fn find(store: &Store, organization: &str) -> Result<Uuid, Failure> {
    let organization = &checked_name(organization)?;
    let found = store::organization::find(store.reader(), organization).await?;
    found.map(|found| found.id).ok_or_else(|| Failure::failed(format!("there is no organization {organization:?}")))
}

fn expiry(now: DateTime<Utc>, lifetime: std::time::Duration) -> Result<DateTime<Utc>, Failure> {
    let end = TimeDelta::from_std(lifetime).ok().and_then(|lifetime| now.checked_add_signed(lifetime));
    end.ok_or_else(|| Failure::usage("--expires is too far away"))
}

fn shown(time: Option<DateTime<Utc>>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{time:?}"))
}
