//! The database behind two doors: one to read, one to write. Every query starts at the organization.

pub mod case;
pub mod failure;
pub mod history;
pub mod key;
pub mod organization;
pub mod profile;
pub mod request;

use std::{fmt, time::Duration};

use sea_orm::{
    ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, DatabaseTransaction, DbBackend,
    SqliteTransactionMode, TransactionOptions, TransactionTrait as _,
    sqlx::{
        self, Connection as _,
        postgres::PgConnectOptions,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
    },
};
use sea_orm_migration::MigratorTrait as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;

use crate::{
    error::{Error, Result},
    migration::Migrator,
};

/// How long a call waits for a connection, or a SQLite writer for another process.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a query may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a write may take on PostgreSQL, its turn included: longer than a lock is waited for, and then the database
/// is frozen or has more to do than it can.
const POSTGRES_WRITE: Duration = Duration::from_millis(2500);

/// How long a write may take on SQLite, which is a file and never away: its deadline comes before.
const SQLITE_WRITE: Duration = Duration::from_mins(1);

/// SQLite connections that read.
const SQLITE_READERS: u32 = 4;

/// A connection that was idle for longer is tried before it is used: after a restart of the database those that are not
/// tried cost a call each, and are soon used up.
const TEST_AFTER_IDLE: Duration = Duration::from_millis(500);

/// How a session with PostgreSQL is set, unless the URL's own `options` say otherwise.
const SESSION: [(&str, &str); 4] = [
    ("default_transaction_isolation", "read committed"),
    ("statement_timeout", "3s"),
    ("lock_timeout", "2s"),
    ("idle_in_transaction_session_timeout", "5s"),
];

/// Makes migrating replicas wait for each other: any number will do, as long as it is always the same.
const MIGRATION_LOCK: i64 = 0x7072_6f66_696c_6573;

/// Where the database is. Shows no password.
#[derive(Clone, Debug)]
pub struct DatabaseUrl {
    url: SecretString,
    place: String,
}

impl DatabaseUrl {
    /// Reads the URL of a SQLite file or of a PostgreSQL database.
    pub fn parse(url: &SecretString) -> Result<Self, &'static str> {
        let text = url.expose_secret();
        let place = if text.starts_with("sqlite:") {
            let file = text.parse::<SqliteConnectOptions>().ok().filter(|options| {
                // Without a file each pooled connection would have a database of its own.
                let file = options.get_filename().to_string_lossy().into_owned();
                !(file.is_empty()
                    || file.contains("memory") && (file.contains(":memory:") || file.starts_with("file:")))
            });
            file.filter(|_| !text.contains("mode=memory")).map(|_| text.to_owned())
        } else if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            text.parse::<PgConnectOptions>().ok().map(|options| {
                let database = options.get_database().unwrap_or_default();
                format!("postgres://{}:{}/{database}", options.get_host(), options.get_port())
            })
        } else {
            None
        };
        place.map(|place| Self { url: url.clone(), place }).ok_or(
            "the database URL must be sqlite://PATH?mode=rwc (a file) or postgres://USER:PASSWORD@HOST:PORT/DATABASE",
        )
    }

    /// Whether the database is a file of this machine.
    pub fn is_file(&self) -> bool {
        self.place.starts_with("sqlite:")
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

/// The database. Cheap to clone: clones share their connections.
#[derive(Clone, Debug)]
pub struct Store {
    reader: DatabaseConnection,
    writer: DatabaseConnection,
    writers: usize,
    patience: Duration,
}

impl Store {
    /// Opens the database with at most `connections` to PostgreSQL; SQLite has one writer and readers apart.
    pub async fn connect(url: &DatabaseUrl, connections: u32) -> Result<Self> {
        let file = url.is_file();
        let url = url.url.expose_secret();
        if file {
            let writer = Database::connect(sqlite(url, 1, "off")).await?;
            let reader = Database::connect(sqlite(url, SQLITE_READERS, "on")).await?;
            Ok(Self { reader, writer, writers: 1, patience: SQLITE_WRITE })
        } else {
            let pool = Database::connect(postgres(url, connections)).await?;
            // A quarter is left to reads, which would otherwise wait behind writes that wait for each other.
            let writers = (connections - connections / 4) as usize;
            Ok(Self { reader: pool.clone(), writer: pool, writers, patience: POSTGRES_WRITE })
        }
    }

    /// How many writes may be in the database at once.
    pub const fn writers(&self) -> usize {
        self.writers
    }

    /// How long a write may take, its turn included.
    pub const fn patience(&self) -> Duration {
        self.patience
    }

    /// The door to read.
    pub const fn reader(&self) -> &DatabaseConnection {
        &self.reader
    }

    /// The door to write a single statement.
    pub const fn writer(&self) -> &DatabaseConnection {
        &self.writer
    }

    /// The door to write in a transaction.
    pub async fn begin(&self) -> Result<DatabaseTransaction> {
        let immediate = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        Ok(self.writer.begin_with_options(immediate).await?)
    }

    /// Brings the schema up to date; several programs may do so at once.
    pub async fn migrate(&self) -> Result<()> {
        let tx = self.begin().await?;
        if tx.get_database_backend() == DbBackend::Postgres {
            tx.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
            tx.execute_unprepared("SET LOCAL lock_timeout = 0").await?;
            tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")).await?;
        }
        Migrator::up(&tx, None).await?;
        commit(tx).await
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        self.reader.execute_unprepared("SELECT 1").await?;
        Ok(())
    }

    /// Closes the connections, so that SQLite folds its log into the file.
    pub async fn close(self) {
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
    tx.commit().await.map_err(|error| match Error::from(error) {
        Error::DatabaseUnavailable(cause) => Error::OutcomeUnknown(cause),
        other => other,
    })
}

fn postgres(url: &str, connections: u32) -> ConnectOptions {
    let mut options = quiet(url, connections);
    options.map_sqlx_postgres_opts(|options| {
        let given = options.get_options().unwrap_or_default().to_owned();
        let ours = SESSION.into_iter().filter(|(name, _)| !names(&given, name));
        options.application_name("profile-service").options(ours)
    });
    // The pool itself would wait for ever for a dead connection that is given back, and never have its place again.
    options.map_sqlx_postgres_pool_opts(|pool| {
        pool.after_release(|connection, _| {
            Box::pin(async {
                let answer = timeout(ACQUIRE_TIMEOUT, connection.ping()).await;
                answer.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map(|()| true)
            })
        })
    });
    options
}

/// Whether the options of a session, such as `-c lock_timeout=1s`, set this one.
fn names(options: &str, name: &str) -> bool {
    let words = options.split([' ', '=']);
    words.map(|word| word.trim_start_matches("--").trim_start_matches("-c")).any(|word| word == name)
}

fn sqlite(url: &str, connections: u32, query_only: &'static str) -> ConnectOptions {
    let mut options = quiet(url, connections);
    options.map_sqlx_sqlite_opts(move |options| {
        options
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(ACQUIRE_TIMEOUT)
            .pragma("query_only", query_only)
    });
    options
}

/// No statement in the log: statements are about persons.
fn quiet(url: &str, connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire_if_idle_for(TEST_AFTER_IDLE)
        .sqlx_logging(false)
        .record_stmt_in_spans(false);
    options
}
