//! The database that a command works on.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use backon::{ExponentialBuilder, Retryable as _};
use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;

use super::Failure;
use crate::{
    error::Error,
    store::{DatabaseUrl, Store},
};

/// The embedded database of a first start.
const EMBEDDED: &str = "sqlite://profiles.db?mode=rwc";

/// How long the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the database is.
#[derive(Debug, Args)]
pub struct DatabaseArgs {
    /// The database: `sqlite://PATH?mode=rwc` (a file) or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`.
    // Any text parses, so that no message about a bad one prints a password.
    #[arg(long, env = "PROFILE_DATABASE_URL", hide_env_values = true, default_value = EMBEDDED)]
    database_url: SecretString,

    /// Connections to PostgreSQL at the most; an embedded database has its own.
    #[arg(long, env = "PROFILE_DATABASE_CONNECTIONS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    database_connections: u32,
}

impl DatabaseArgs {
    /// Whether this is the embedded database that needs no setting.
    pub fn is_default(&self) -> bool {
        self.database_url.expose_secret() == EMBEDDED
    }

    /// Where it is.
    pub fn url(&self) -> Result<DatabaseUrl, Failure> {
        DatabaseUrl::parse(&self.database_url).map_err(|error| Failure::usage(error.to_string()))
    }

    /// Connections to PostgreSQL at the most.
    pub const fn connections(&self) -> u32 {
        self.database_connections
    }

    /// Opens the database and brings its schema up to date. A file that is not there is another's, or elsewhere.
    pub async fn open(&self) -> Result<Store, Failure> {
        exists(&self.url()?)?;
        self.open_or_create().await
    }

    /// Opens the database, or makes its file where the URL says so, and brings its schema up to date.
    pub async fn open_or_create(&self) -> Result<Store, Failure> {
        let url = self.url()?;
        let store = connect(&url, self.database_connections).await?;
        bring_up_to_date(&store, &url).await?;
        Ok(store)
    }
}

/// Fails where the database is a file that is not there.
pub fn exists(url: &DatabaseUrl) -> Result<(), Failure> {
    match url.file() {
        Some(file) if file.try_exists().is_ok_and(|exists| !exists) => Err(Failure::failed(format!(
            "there is no database {}: run this where the service runs, or name its database by --database-url",
            file.display()
        ))),
        _ => Ok(()),
    }
}

/// Opens a database whatever its schema is.
pub async fn connect(url: &DatabaseUrl, connections: u32) -> Result<Store, Failure> {
    let attempts = ExponentialBuilder::default().with_max_delay(Duration::from_millis(500)).without_max_times();
    let connect = || async {
        url.probe().await?;
        Store::connect(url, connections).await
    };
    let last = Mutex::new(None);
    // A PostgreSQL that starts at the same moment is waited for; a file is there or not.
    let connecting = connect
        .retry(attempts)
        .when(|error| matches!(error, Error::DatabaseUnavailable(_)) && url.file().is_none())
        .notify(|error, _| *last.lock().unwrap_or_else(PoisonError::into_inner) = error.cause().map(str::to_owned));
    let connected = timeout(PATIENCE, connecting).await;
    let connected = connected.map_err(|_| {
        let cause = last.into_inner().unwrap_or_else(PoisonError::into_inner);
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        Failure::failed(format!("{url} has not answered for {} s{cause}", PATIENCE.as_secs()))
    })?;
    connected.map_err(|error| Failure::failed(format!("cannot open {url}: {}", Failure::from(error).sentence)))
}

/// Brings the schema of a database up to date.
pub async fn bring_up_to_date(store: &Store, url: &DatabaseUrl) -> Result<(), Failure> {
    store.migrate().await.map_err(|error| {
        Failure::failed(format!("cannot bring the schema of {url} up to date: {}", Failure::from(error).sentence))
    })
}

/// `migrate`
pub async fn migrate(args: DatabaseArgs) -> Result<(), Failure> {
    args.open().await?.close().await;
    Ok(())
}
