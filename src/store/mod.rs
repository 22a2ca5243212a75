//! The database behind two doors: one to read, one to write. Every query starts at the organization, but for that of
//! many ids, whose rows are matched with the organizations that asked.

pub mod case;
mod connect;
pub mod failure;
pub mod history;
pub mod key;
mod line;
pub mod organization;
pub mod profile;
pub mod request;

use std::time::Duration;

use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait as _,
};
use sea_orm_migration::MigratorTraitSelf as _;
use tokio::time::timeout;

pub use self::{connect::DatabaseUrl, line::Line};

use crate::{
    error::{Error, Result},
    migration::Migrator,
};

/// How long a query may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection goes from query to query, or from write to write, before the pool has it back: shorter than
/// anyone notices who waits for it.
pub const KEPT: Duration = Duration::from_millis(50);

/// Makes migrating replicas wait for each other: any number will do, as long as it is always the same.
const MIGRATION_LOCK: i64 = 0x7072_6f66_696c_6573;

/// The database. Cheap to clone: clones share their connections.
#[derive(Clone, Debug)]
pub struct Store {
    reader: DatabaseConnection,
    writer: DatabaseConnection,
    writers: usize,
    patience: Duration,
}

impl Store {
    /// How many writes may be in the database at once.
    pub(crate) const fn writers(&self) -> usize {
        self.writers
    }

    /// How long a write may take, its turn included.
    pub(crate) const fn patience(&self) -> Duration {
        self.patience
    }

    /// The door to read.
    pub(crate) const fn reader(&self) -> &DatabaseConnection {
        &self.reader
    }

    /// The door to read, for queries that follow each other.
    pub(crate) fn line(&self) -> Line {
        Line::new(self.reader.clone())
    }

    /// The door to write a single statement.
    pub(crate) const fn writer(&self) -> &DatabaseConnection {
        &self.writer
    }

    /// The door to write in a transaction.
    pub(crate) async fn begin(&self) -> Result<DatabaseTransaction> {
        let immediate = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        Ok(self.writer.begin_with_options(immediate).await?)
    }

    /// Brings the schema up to date; several programs may do so at once.
    pub(crate) async fn migrate(&self) -> Result<()> {
        let tx = self.begin().await?;
        if tx.get_database_backend() == DbBackend::Postgres {
            tx.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
            tx.execute_unprepared("SET LOCAL lock_timeout = 0").await?;
            tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")).await?;
        }
        Migrator::for_database(&tx).await?.up(&tx, None).await?;
        commit(tx).await
    }

    /// Whether the database answers.
    pub(crate) async fn ping(&self) -> Result<()> {
        self.reader.execute_unprepared("SELECT 1").await?;
        Ok(())
    }

    /// Closes the connections, so that SQLite folds its log into the file.
    pub(crate) async fn close(self) {
        for door in [self.reader, self.writer] {
            if let Err(error) = door.close().await {
                tracing::warn!(%error, "closing the database failed");
            }
        }
    }
}

/// The answer of a query, if it comes in time: a frozen database does not refuse, it says nothing.
pub async fn in_time<T>(query: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Error::DatabaseUnavailable("a query was not answered in time".to_owned());
    timeout(QUERY_TIMEOUT, query).await.map_err(late)?
}

/// Commits. Where the answer is lost, nobody knows whether the database has committed.
pub async fn commit(tx: DatabaseTransaction) -> Result<()> {
    tx.commit().await.map_err(uncommitted)
}

/// Commits, and begins the next transaction in the same statement where the database has one for that. SQLite has none,
/// and a COMMIT whose BEGIN fails would look like a failure.
pub async fn commit_and_begin(tx: DatabaseTransaction) -> Result<Option<DatabaseTransaction>> {
    match tx.get_database_backend() {
        DbBackend::Postgres => {
            tx.execute_unprepared("COMMIT AND CHAIN").await.map_err(uncommitted)?;
            Ok(Some(tx))
        }
        _ => commit(tx).await.map(|()| None),
    }
}

fn uncommitted(error: DbErr) -> Error {
    match Error::from(error) {
        Error::DatabaseUnavailable(cause) => Error::OutcomeUnknown(cause),
        other => other,
    }
}
