//! A connection of the pool that is kept for statements which follow each other.

use std::{future::ready, time::Duration};

use futures_util::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use sea_orm::{
    DbBackend, DbErr, FromQueryResult, QueryResult, Statement, Value,
    sea_query::ArrayType,
    sqlx::{
        self, AssertSqlSafe, Encode, Postgres, Sqlite, Type,
        pool::PoolConnection,
        postgres::{PgArguments, PgHasArrayType},
        sqlite::SqliteArguments,
    },
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};

use super::{
    ACQUIRE_TIMEOUT,
    failure::{failure, spoils_the_session},
    unanswered::Unanswered,
};
use crate::error::{Error, Result};

/// How long a rollback may take, before the connection is closed instead.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a connection is kept at the most, while there is work for it.
const RETURN_AFTER: Duration = Duration::from_mins(1);

/// A connection that belongs to one worker until it is dropped, which gives it back to the pool: unless a statement or a
/// transaction has not ended, since nobody knows what is still on its way then. It is closed, or kept for its answer.
pub struct PinnedConnection {
    connection: Option<Connection>,
    statement: StatementState,
    in_transaction: bool,
    taken: Instant,
    /// What a connection to write with has besides.
    write: Option<WriteConnection>,
}

/// What a connection to write with has besides.
pub(super) struct WriteConnection {
    /// Keeps writers from taking the connections that readers need.
    pub permit: OwnedSemaphorePermit,
    /// Who waits for the answer where its worker does not any more.
    pub unanswered: Option<Unanswered>,
}

/// What has become of the last statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatementState {
    Answered,
    /// Nobody knows whether the database is still at it.
    Sent,
    /// The session is of no use any more.
    Broken,
}

pub(super) enum Connection {
    Postgres(PoolConnection<Postgres>),
    Sqlite(PoolConnection<Sqlite>),
}

impl PinnedConnection {
    pub(super) fn new(connection: Connection, write: Option<WriteConnection>) -> Self {
        Self {
            connection: Some(connection),
            statement: StatementState::Answered,
            in_transaction: false,
            taken: Instant::now(),
            write,
        }
    }

    /// What the database speaks.
    pub const fn backend(&self) -> DbBackend {
        match self.connection {
            Some(Connection::Sqlite(_)) => DbBackend::Sqlite,
            Some(Connection::Postgres(_)) | None => DbBackend::Postgres,
        }
    }

    /// Whether the pool should see it again, which ends connections at their age.
    pub fn is_due(&self) -> bool {
        self.taken.elapsed() > RETURN_AFTER
    }

    /// Whether it is of no use any more: it broke, or a statement was left before its end.
    pub const fn is_broken(&self) -> bool {
        !matches!(self.statement, StatementState::Answered)
    }

    /// The rows that a statement answers.
    pub async fn fetch(&mut self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let Statement { sql, values, db_backend: _ } = statement;
        let values = values.map(|values| values.0).unwrap_or_default();
        let sql = AssertSqlSafe(sql);
        self.statement = StatementState::Sent;
        let rows = match self.connection.as_mut() {
            Some(Connection::Postgres(connection)) => {
                let query = sqlx::query_with(sql, postgres_arguments(values)?);
                let rows = query.fetch_all(&mut **connection).await;
                rows.map(|rows| rows.into_iter().map(QueryResult::from).collect())
            }
            Some(Connection::Sqlite(connection)) => {
                let query = sqlx::query_with(sql, sqlite_arguments(values)?);
                let rows = query.fetch_all(&mut **connection).await;
                rows.map(|rows| rows.into_iter().map(QueryResult::from).collect())
            }
            None => Err(sqlx::Error::PoolClosed),
        };
        self.finished(&rows);
        rows.map_err(failure)
    }

    /// The rows that a query answers.
    pub async fn all<M: FromQueryResult>(&mut self, query: Statement) -> Result<Vec<M>> {
        let rows = self.fetch(query).await?;
        rows.iter().map(|row| M::from_query_result(row, "").map_err(Error::from)).collect()
    }

    /// The rows that a query answers, as they come. No other call gets the connection after that: rows may be left.
    pub fn stream(&mut self, sql: String) -> BoxStream<'_, Result<QueryResult, DbErr>> {
        self.statement = StatementState::Sent;
        let sql = AssertSqlSafe(sql);
        match self.connection.as_mut() {
            Some(Connection::Postgres(connection)) => {
                sqlx::query(sql).fetch(&mut **connection).map_ok(QueryResult::from).map_err(failure).boxed()
            }
            Some(Connection::Sqlite(connection)) => {
                sqlx::query(sql).fetch(&mut **connection).map_ok(QueryResult::from).map_err(failure).boxed()
            }
            None => stream::once(ready(Err(failure(sqlx::Error::PoolClosed)))).boxed(),
        }
    }

    /// Begins a transaction that reads the state of its first query, and ends with the connection.
    pub async fn begin_snapshot(&mut self) -> Result<(), DbErr> {
        self.in_transaction = true;
        self.control("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "BEGIN").await
    }

    /// Statements of this transaction may take as long as they need.
    pub async fn without_limits(&mut self) -> Result<(), DbErr> {
        if self.backend() == DbBackend::Postgres {
            for limit in ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"] {
                self.fetch(Statement::from_string(DbBackend::Postgres, format!("SET LOCAL {limit} = 0"))).await?;
            }
        }
        Ok(())
    }

    /// Begins a transaction, which takes SQLite's one writer at once.
    pub async fn begin(&mut self) -> Result<(), DbErr> {
        self.in_transaction = true;
        self.control("BEGIN", "BEGIN IMMEDIATE").await.inspect_err(|_| self.in_transaction = false)
    }

    /// Begins a transaction, unless somebody else has SQLite's one writer: whether it has begun. Who waits for the writer
    /// keeps this connection from others, who would be told that the database is away.
    pub async fn try_begin(&mut self) -> Result<bool, Error> {
        self.wait_for_the_writer(Duration::ZERO).await?;
        let begun = self.begin().await.map_err(Error::from);
        self.wait_for_the_writer(ACQUIRE_TIMEOUT).await?;
        match begun {
            Err(Error::TransactionConflict { .. }) => Ok(false),
            begun => begun.map(|()| true),
        }
    }

    /// How long SQLite waits for its writer.
    async fn wait_for_the_writer(&mut self, timeout: Duration) -> Result<(), Error> {
        if self.backend() == DbBackend::Sqlite {
            let wait = format!("PRAGMA busy_timeout = {}", timeout.as_millis());
            self.fetch(Statement::from_string(DbBackend::Sqlite, wait)).await?;
        }
        Ok(())
    }

    /// Commits. Where it fails, the transaction has to be rolled back.
    pub async fn commit(&mut self) -> Result<(), DbErr> {
        self.control("COMMIT", "COMMIT").await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Rolls back what has begun, unless the connection is broken: it will be closed then, and the transaction with it.
    pub async fn rollback(&mut self) {
        if self.is_broken() || !self.in_transaction {
            return;
        }
        let rolled_back = timeout(ROLLBACK_TIMEOUT, self.control("ROLLBACK", "ROLLBACK")).await;
        match rolled_back {
            Ok(Ok(())) => self.in_transaction = false,
            Ok(Err(_)) => self.statement = StatementState::Broken,
            Err(_late) => {}
        }
    }

    async fn control(&mut self, postgres: &'static str, sqlite: &'static str) -> Result<(), DbErr> {
        self.statement = StatementState::Sent;
        let done = match self.connection.as_mut() {
            Some(Connection::Postgres(connection)) => {
                sqlx::raw_sql(postgres).execute(&mut **connection).await.map(drop)
            }
            Some(Connection::Sqlite(connection)) => sqlx::raw_sql(sqlite).execute(&mut **connection).await.map(drop),
            None => Err(sqlx::Error::PoolClosed),
        };
        self.finished(&done);
        done.map_err(failure)
    }

    /// A refusal of the database ends a statement as an answer does, unless the session is of no use any more.
    fn finished<T>(&mut self, answer: &Result<T, sqlx::Error>) {
        self.statement = match answer {
            Err(sqlx::Error::Database(refusal)) if spoils_the_session(&refusal.code().unwrap_or_default()) => {
                StatementState::Broken
            }
            Ok(_) | Err(sqlx::Error::Database(_)) => StatementState::Answered,
            Err(_) => StatementState::Broken,
        };
    }
}

impl Drop for PinnedConnection {
    fn drop(&mut self) {
        if !self.is_broken() && !self.in_transaction {
            return;
        }
        match (self.connection.take(), self.write.take()) {
            (
                Some(Connection::Postgres(connection)),
                Some(WriteConnection { permit, unanswered: Some(unanswered) }),
            ) if self.statement == StatementState::Sent => {
                unanswered.keep(connection, permit);
            }
            (Some(Connection::Postgres(connection)), _) => drop(connection.detach()),
            (Some(Connection::Sqlite(connection)), _) => drop(connection.detach()),
            (None, _) => {}
        }
    }
}

/// Adds a scalar of any type that the tables have.
macro_rules! add_scalar {
    ($arguments:expr, $value:expr) => {
        match $value {
            Value::Bool(value) => add($arguments.add(value)),
            Value::BigInt(value) => add($arguments.add(value)),
            Value::BigUnsigned(value) => add($arguments.add(value.and_then(|value| i64::try_from(value).ok()))),
            Value::String(value) => add($arguments.add(value)),
            Value::Bytes(value) => add($arguments.add(value)),
            Value::Uuid(value) => add($arguments.add(value)),
            Value::ChronoDate(value) => add($arguments.add(value)),
            Value::ChronoDateTimeUtc(value) => add($arguments.add(value)),
            other => Err(unsupported(&other)),
        }
    };
}

fn sqlite_arguments(values: Vec<Value>) -> Result<SqliteArguments, DbErr> {
    use sqlx::Arguments as _;
    let mut arguments = SqliteArguments::default();
    for value in values {
        add_scalar!(arguments, value)?;
    }
    Ok(arguments)
}

fn postgres_arguments(values: Vec<Value>) -> Result<PgArguments, DbErr> {
    use sqlx::Arguments as _;
    let mut arguments = PgArguments::default();
    for value in values {
        match value {
            Value::Array(kind, Some(values)) => add_array(&mut arguments, &kind, *values)?,
            value => add_scalar!(arguments, value)?,
        }
    }
    Ok(arguments)
}

/// Adds an array, whose elements may be NULL: sea-query's own binding panics there.
fn add_array(arguments: &mut PgArguments, kind: &ArrayType, values: Vec<Value>) -> Result<(), DbErr> {
    match kind {
        ArrayType::Bool => elements::<bool>(arguments, values),
        ArrayType::BigInt => elements::<i64>(arguments, values),
        ArrayType::String => elements::<String>(arguments, values),
        ArrayType::Bytes => elements::<Vec<u8>>(arguments, values),
        ArrayType::Uuid => elements::<uuid::Uuid>(arguments, values),
        ArrayType::ChronoDate => elements::<chrono::NaiveDate>(arguments, values),
        ArrayType::ChronoDateTimeUtc => elements::<chrono::DateTime<chrono::Utc>>(arguments, values),
        _ => Err(DbErr::Type("an array of a type that no column has".to_owned())),
    }
}

fn elements<T>(arguments: &mut PgArguments, values: Vec<Value>) -> Result<(), DbErr>
where
    Option<T>: sea_orm::sea_query::ValueType,
    T: for<'q> Encode<'q, Postgres> + Type<Postgres> + PgHasArrayType + Send + 'static,
{
    use sqlx::Arguments as _;
    let elements = values.into_iter().map(<Option<T> as sea_orm::sea_query::ValueType>::try_from);
    let elements = elements.collect::<Result<Vec<_>, _>>().map_err(|error| DbErr::Type(error.to_string()))?;
    add(arguments.add(elements))
}

fn add(added: Result<(), sqlx::error::BoxDynError>) -> Result<(), DbErr> {
    added.map_err(|error| failure(sqlx::Error::Encode(error)))
}

fn unsupported(value: &Value) -> DbErr {
    DbErr::Type(format!("a value of a type that no column has: {:?}", std::mem::discriminant(value)))
}
