//! The database: rows in, rows out, in slices. Every query starts at the organization, but for those of many ids, whose
//! rows are matched with the organizations that asked.

pub mod case;
pub mod compact;
mod connect;
mod connection;
pub mod copy;
pub mod erasure;
pub mod failure;
pub mod feed;
pub mod history;
pub mod identifier;
pub mod import;
pub mod key;
pub mod name;
pub mod organization;
mod pool;
pub mod profile;
pub mod request;
mod rows;
pub mod save;
pub mod schema;
pub mod secret;
mod session;
mod unanswered;

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbBackend, FromQueryResult, QueryResult,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait as _,
    sqlx::{Database, Pool, pool::PoolConnection},
};
use sea_orm_migration::MigratorTraitSelf as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};

pub use self::{connect::DatabaseUrl, connection::PinnedConnection};
use self::{
    connection::{Connection, WriteConnection},
    unanswered::Unanswered,
};

use crate::{
    error::{Error, Result},
    metrics::{METRICS, Wait},
    migration::Migrator,
};

/// What is said of a server that takes no writes.
const READ_ONLY: &str = "the database is read-only";

/// How long a query may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a call waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one try for a connection may take: one that turns out to be dead costs as much, and a new one must be made in
/// that time.
const ACQUIRE_TRY: Duration = Duration::from_secs(1);

/// How long a command waits for SQLite's one writer.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a call that waits for a new connection looks for one that has become idle.
const LOOK_FOR_IDLE: Duration = Duration::from_millis(5);

/// How long a worker keeps its connection when there is no more work for it.
pub const KEPT: Duration = Duration::from_millis(20);

/// How long a migration waits for a table: whoever wants it meanwhile waits behind it, and gives up after 2 s. A writer
/// who has another table that the migration wants ends after 1 s, PostgreSQL's `deadlock_timeout`, and tries again.
const MIGRATION_LOCK_TIMEOUT: Duration = Duration::from_millis(1500);

/// How long others have the table before the migration tries again.
const MIGRATE_AGAIN: Duration = Duration::from_secs(1);

/// Makes migrating replicas wait for each other: any number will do, as long as it is always the same.
const MIGRATION_LOCK: i64 = 0x7072_6f66_696c_6573;

/// The database. Cheap to clone: clones share their connections.
#[derive(Clone, Debug)]
pub struct Store {
    reader: DatabaseConnection,
    writer: DatabaseConnection,
    /// The connections that writes may take, so that reads always find one.
    write_permits: Arc<Semaphore>,
    /// The connections that single queries may take.
    read_permits: Arc<Semaphore>,
    /// Those of them that long queries may take, so that a key is always looked up in time.
    long_permits: Arc<Semaphore>,
    writers: Writers,
    write_timeout: Duration,
    /// What PostgreSQL has not answered.
    unanswered: Option<Unanswered>,
    /// Who waits for a connection.
    waiting: Arc<AtomicUsize>,
    /// The file of an embedded database.
    file: Option<Arc<DatabaseFile>>,
}

/// The file of an embedded database, by its path and by what it was when it was opened.
#[derive(Debug)]
struct DatabaseFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl DatabaseFile {
    fn at(path: &Path) -> Result<Self> {
        let inode = Self::inode(path).map_err(|error| Error::DatabaseUnavailable(error.to_string()))?;
        Ok(Self { path: path.to_owned(), inode })
    }

    /// Whether the file that is open is still the one at its path: in one that was deleted a write would be lost.
    fn is_in_place(&self) -> bool {
        Self::inode(&self.path).is_ok_and(|inode| inode == self.inode)
    }

    fn inode(path: &Path) -> io::Result<(u64, u64)> {
        let metadata = fs::metadata(path)?;
        Ok((metadata.dev(), metadata.ino()))
    }
}

/// How many workers write at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writers {
    /// Those that save groups of changes.
    pub groups: usize,
    /// Those that save changes one profile after the other, with its row locked. Without any, groups are saved so.
    pub locked: usize,
    /// The connections that they may take.
    pub connections: usize,
}

impl Store {
    /// How many workers write at once.
    pub(crate) const fn writers(&self) -> Writers {
        self.writers
    }

    /// How long a write may take, from its arrival on.
    pub(crate) const fn write_timeout(&self) -> Duration {
        self.write_timeout
    }

    /// What the database speaks.
    pub(crate) fn backend(&self) -> DbBackend {
        self.reader.get_database_backend()
    }

    /// The pool to read with, for single statements.
    pub(crate) const fn reader(&self) -> &DatabaseConnection {
        &self.reader
    }

    /// The pool to write with, for single statements.
    pub(crate) const fn writer(&self) -> &DatabaseConnection {
        &self.writer
    }

    /// A connection to read with.
    pub(crate) async fn read_connection(&self) -> Result<PinnedConnection> {
        let _wait = Wait::begin(&METRICS.database.read_wait);
        self.next_to_read().await
    }

    async fn next_to_read(&self) -> Result<PinnedConnection> {
        Ok(PinnedConnection::new(self.acquire(&self.reader).await?, None))
    }

    /// A connection to write with, which waits until writes have not more of them than they may.
    pub(crate) async fn write_connection(&self) -> Result<PinnedConnection> {
        let (_waiting, _wait) = (Waiting::begin(&self.waiting), Wait::begin(&METRICS.database.write_wait));
        let permit = timeout(ACQUIRE_TIMEOUT, Arc::clone(&self.write_permits).acquire_owned()).await;
        let permit = permit.ok().and_then(Result::ok);
        let permit = permit.ok_or_else(|| Error::DatabaseUnavailable("all connections are in use".to_owned()))?;
        let write = WriteConnection { permit, unanswered: self.unanswered.clone() };
        Ok(PinnedConnection::new(self.acquire(&self.writer).await?, Some(write)))
    }

    /// Whether a call waits for a connection: whoever keeps one gives it back.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// The rows that one query answers. It is made in a task of its own: a caller who goes away in its middle would cost
    /// its connection. Who waits for others' queries waits where a caller can still go away.
    pub(crate) async fn all<M: FromQueryResult + Send + 'static>(&self, query: Statement) -> Result<Vec<M>> {
        self.query(None, query).await
    }

    /// As `all`, for a query that reads many rows.
    pub(crate) async fn all_of_many<M: FromQueryResult + Send + 'static>(&self, query: Statement) -> Result<Vec<M>> {
        let permit = in_time(async { Ok(Arc::clone(&self.long_permits).acquire_owned().await.ok()) }).await?;
        self.query(permit, query).await
    }

    async fn query<M: FromQueryResult + Send + 'static>(
        &self,
        long: Option<OwnedSemaphorePermit>,
        query: Statement,
    ) -> Result<Vec<M>> {
        let mut wait = Some(Wait::begin(&METRICS.database.read_wait));
        let permit = in_time(async { Ok(Arc::clone(&self.read_permits).acquire_owned().await) }).await?;
        let store = self.clone();
        let queried = tokio::spawn(async move {
            let _permits = (permit, long);
            in_time(async {
                loop {
                    let mut connection = store.next_to_read().await?;
                    drop(wait.take());
                    match connection.all(query.clone()).await {
                        Err(_) if connection.is_broken() => METRICS.database.retry(),
                        answer => return answer,
                    }
                }
            })
            .await
        });
        queried.await.unwrap_or_else(|_| Err(Error::Internal("a query panicked".to_owned())))
    }

    /// Runs one statement that writes, and answers its rows.
    pub(crate) async fn write(&self, statement: Statement) -> Result<Vec<QueryResult>> {
        in_time(async { Ok(self.write_connection().await?.fetch(statement).await?) }).await
    }

    async fn acquire(&self, pool: &DatabaseConnection) -> Result<Connection> {
        let _waiting = Waiting::begin(&self.waiting);
        match pool.get_database_backend() {
            DbBackend::Sqlite => acquire(pool.get_sqlite_connection_pool()).await.map(Connection::Sqlite),
            _ => acquire(pool.get_postgres_connection_pool()).await.map(Connection::Postgres),
        }
    }

    /// The pool to write with, in a transaction of a command. SQLite's one writer may be busy with a service that has much
    /// to write: each try waits for it as long as a statement may take.
    pub(crate) async fn begin(&self) -> Result<DatabaseTransaction> {
        let immediate = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        let since = Instant::now();
        loop {
            match self.writer.begin_with_options(immediate).await.map_err(Error::from) {
                Err(Error::TransactionConflict { retryable: true, .. }) if since.elapsed() < COMMAND_TIMEOUT => {}
                begun => return begun,
            }
        }
    }

    /// A connection to one state of the database, that of its first query, which may take as long as it needs.
    pub(crate) async fn snapshot(&self) -> Result<PinnedConnection> {
        let mut connection = self.read_connection().await?;
        connection.begin_snapshot().await?;
        connection.without_limits().await?;
        Ok(connection)
    }

    /// Puts all that an SQLite database has into a file that is empty.
    pub(crate) async fn back_up(&self, file: &Path) -> Result<()> {
        let file = file.to_str().ok_or_else(|| Error::Internal("its name is no UTF-8".to_owned()))?;
        let vacuum = Statement::from_sql_and_values(self.backend(), "VACUUM INTO ?", [file.into()]);
        self.writer.execute_raw(vacuum).await?;
        Ok(())
    }

    /// Brings the schema up to date; several programs may do so at once. A table that is in use, as by a dump, is waited for,
    /// so that others who want it wait for `MIGRATION_LOCK_TIMEOUT` at the most.
    pub(crate) async fn migrate(&self) -> Result<()> {
        loop {
            match self.try_to_migrate().await {
                Err(Error::TransactionConflict { cause, .. }) if self.backend() == DbBackend::Postgres => {
                    tracing::warn!(cause, "the schema is not up to date yet: a table is in use");
                    sleep(MIGRATE_AGAIN).await;
                }
                done => return done,
            }
        }
    }

    async fn try_to_migrate(&self) -> Result<()> {
        let tx = self.begin().await?;
        if tx.get_database_backend() == DbBackend::Postgres {
            tx.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
            tx.execute_unprepared("SET LOCAL lock_timeout = 0").await?;
            tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")).await?;
            let limit = MIGRATION_LOCK_TIMEOUT.as_millis();
            tx.execute_unprepared(&format!("SET LOCAL lock_timeout = {limit}")).await?;
        }
        Migrator::for_database(&tx).await?.up(&tx, None).await?;
        commit(tx).await
    }

    /// Fails where the file of an embedded database was deleted or replaced, and what is written to it is lost.
    pub(crate) fn check_file(&self) -> Result<()> {
        match &self.file {
            Some(file) if !file.is_in_place() => {
                Err(Error::DatabaseUnavailable("the file of the database was deleted or replaced".to_owned()))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the database answers and can be written to.
    pub(crate) async fn ping(&self) -> Result<()> {
        self.check_file()?;
        let backend = self.backend();
        let query = if backend == DbBackend::Postgres { "SHOW transaction_read_only" } else { "SELECT 'off'" };
        let query = Statement::from_string(backend, query);
        let answer = in_time(async { Ok(self.read_connection().await?.fetch(query).await?) }).await?;
        match answer.first().map(|row| row.try_get_by_index::<String>(0)).transpose()?.as_deref() {
            Some("off") => Ok(()),
            _ => Err(Error::DatabaseUnavailable(READ_ONLY.to_owned())),
        }
    }

    /// Closes the connections, so that SQLite folds its log into the file.
    pub(crate) async fn close(self) {
        for pool in [self.reader, self.writer] {
            if let Err(error) = pool.close().await {
                tracing::warn!(%error, "closing the database failed");
            }
        }
    }
}

/// A call that waits for a connection.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A connection of the pool. While a server that gives no more of them is asked for a new one, one that becomes idle is
/// taken: the pool itself would go on asking. A try ends early enough for another one, since what it waits for may be dead.
async fn acquire<D: Database>(pool: &Pool<D>) -> Result<PoolConnection<D>> {
    let acquired = timeout(ACQUIRE_TIMEOUT, async {
        loop {
            let mut acquiring = Box::pin(timeout(ACQUIRE_TRY, pool.acquire())); // sqlx's way to a connection is large

            loop {
                tokio::select! {
                    biased;
                    acquired = &mut acquiring => match acquired {
                        // Whatever goes wrong while a connection is made, the database cannot be used.
                        Ok(acquired) => {
                            return acquired.map_err(|error| Error::DatabaseUnavailable(error.to_string()));
                        }
                        Err(_late) => break,
                    },
                    () = sleep(LOOK_FOR_IDLE) => {}
                }
                if let Some(idle) = pool.try_acquire() {
                    return Ok(idle);
                }
            }
        }
    });
    acquired.await.unwrap_or_else(|_| Err(Error::DatabaseUnavailable("no connection came in time".to_owned())))
}

/// Commits. Where the answer is lost, nobody knows whether the database has committed.
pub async fn commit(tx: DatabaseTransaction) -> Result<()> {
    tx.commit().await.map_err(failure::uncommitted)
}

/// The answer of a query, if it comes in time: a frozen database does not refuse, it says nothing.
pub async fn in_time<T>(query: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Error::DatabaseUnavailable("a query was not answered in time".to_owned());
    timeout(QUERY_TIMEOUT, query).await.map_err(late)?
}
