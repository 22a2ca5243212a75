//! All rows of all tables, from one database into another: by the schema that both have, so that no table and no column
//! is forgotten.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher as _},
};

use chrono::{DateTime, NaiveDate, Utc};
use futures_util::{TryStreamExt as _, stream::TryChunksError};
use sea_orm::{DbBackend, QueryResult, Statement, TryGetable, Value};
use uuid::Uuid;

use super::{
    PinnedConnection, Store,
    failure::uncommitted,
    rows::Sql,
    schema::{self, Kind, Standing, Table},
};
use crate::error::{Error, Result};

/// Tables whose rows a migration makes: the source's take their place.
const SEEDED: [&str; 2] = ["feed_sequencer", "secret"];

/// Tables in which a source shows that it has gained something.
const TELLING: [&str; 5] = ["api_key", "erasure", "organization", "profile_case", "profile_change"];

/// A column that is in no sum: it moves while a key is used, and nothing depends on it.
const MOVING: (&str, &str) = ("api_key", "last_used_at");

/// How many rows one statement stores: SQLite's have a parameter for each value.
const fn batch(backend: DbBackend) -> usize {
    if matches!(backend, DbBackend::Postgres) { 500 } else { 32 }
}

/// What a table has: how many rows, and the sum of their hashes, in whatever order they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub rows: u64,
    sum: u64,
}

/// The tallies of tables by their names.
pub type Tallies = BTreeMap<String, Tally>;

/// One state of a database, whatever is written to it meanwhile.
pub struct Snapshot {
    connection: PinnedConnection,
    tables: Vec<Table>,
}

impl Snapshot {
    /// The state of now.
    pub async fn begin(store: &Store) -> Result<Self> {
        let mut connection = store.snapshot().await?;
        let tables = schema::tables(&mut connection).await?;
        Ok(Self { connection, tables })
    }

    /// How many rows there are in all.
    pub async fn rows(&mut self) -> Result<u64> {
        let counts: Vec<_> =
            self.tables.iter().map(|table| format!("(SELECT COUNT(*) FROM {})", quoted(&table.name))).collect();
        let query = Statement::from_string(self.connection.backend(), format!("SELECT {}", counts.join(" + ")));
        let rows = self.connection.fetch(query).await?;
        let count = rows.first().map(|row| row.try_get_by_index::<i64>(0)).transpose()?.unwrap_or_default();
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// What all tables have.
    pub async fn tallies(&mut self, mut progress: impl FnMut(u64)) -> Result<Tallies> {
        let mut tallies = Tallies::new();
        for table in &self.tables {
            tallies.insert(table.name.clone(), tally(&mut self.connection, table, &mut progress).await?);
        }
        Ok(tallies)
    }

    /// The tables that have gained something since these tallies were made.
    pub async fn gained(&mut self, since: &Tallies) -> Result<Vec<String>> {
        let mut gained = Vec::new();
        for table in self.tables.iter().filter(|table| TELLING.contains(&table.name.as_str())) {
            if since.get(&table.name) != Some(&tally(&mut self.connection, table, |_| {}).await?) {
                gained.push(table.name.clone());
            }
        }
        Ok(gained)
    }
}

/// A table because of which a database is not empty, if there is one. What a migration makes does not count.
pub async fn occupied(connection: &mut PinnedConnection) -> Result<Option<String>> {
    if schema::standing(connection).await? == Standing::Foreign {
        return Ok(schema::names(connection).await?.into_iter().next());
    }
    for Table { name, columns: _ } in schema::tables(connection).await? {
        let query = Statement::from_string(connection.backend(), format!("SELECT 1 FROM {} LIMIT 1", quoted(&name)));
        if !SEEDED.contains(&name.as_str()) && !connection.fetch(query).await?.is_empty() {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Puts all that a snapshot has into a database, in one transaction: all of it or nothing. Answers what it was. The
/// database must have the same schema and be empty.
pub async fn copy(from: &mut Snapshot, to: &Store, mut progress: impl FnMut(u64)) -> Result<Tallies> {
    let mut connection = to.write_connection().await?;
    connection.begin().await?;
    let copied = copy_all(from, &mut connection, &mut progress).await;
    match &copied {
        Ok(_) => connection.commit().await.map_err(uncommitted)?,
        Err(_) => connection.rollback().await,
    }
    copied
}

async fn copy_all(from: &mut Snapshot, to: &mut PinnedConnection, progress: &mut impl FnMut(u64)) -> Result<Tallies> {
    to.without_limits().await?;
    let mut tables = schema::tables(to).await?;
    let differing =
        tables.iter().chain(&from.tables).find(|table| !(tables.contains(table) && from.tables.contains(table)));
    if let Some(table) = differing {
        return Err(Error::Internal(format!("the table {} is not the same in both", table.name)));
    }
    let names = tables.iter().map(|table| quoted(&table.name)).collect::<Vec<_>>().join(", ");
    if to.backend() == DbBackend::Postgres {
        // Another copy waits, and then finds that it is not empty.
        run(to, format!("LOCK TABLE {names} IN EXCLUSIVE MODE")).await?;
    }
    if let Some(table) = occupied(to).await? {
        return Err(Error::Internal(format!("the table {table} is not empty")));
    }
    for table in SEEDED {
        run(to, format!("DELETE FROM {table}")).await?;
    }
    tables.sort_by_key(|table| table.name != "organization"); // which keys refer to
    let mut tallies = Tallies::new();
    for table in &tables {
        tallies.insert(table.name.clone(), copy_table(&mut from.connection, to, table, progress).await?);
    }
    if to.backend() == DbBackend::Postgres {
        go_on_with_sequences(to).await?;
        run(to, format!("ANALYZE {names}")).await?; // or its first plans would be guesses
    }
    Ok(tallies)
}

async fn copy_table(
    from: &mut PinnedConnection,
    to: &mut PinnedConnection,
    table: &Table,
    progress: &mut impl FnMut(u64),
) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut batches = from.stream(select(table)).try_chunks(batch(to.backend()));
    while let Some(rows) = batches.try_next().await.map_err(|TryChunksError(_, error)| error)? {
        let rows = rows.iter().map(|row| read(row, table, &mut tally)).collect::<Result<Vec<_>>>()?;
        progress(rows.len() as u64);
        insert(to, table, rows).await?;
    }
    Ok(tally)
}

async fn tally(connection: &mut PinnedConnection, table: &Table, mut progress: impl FnMut(u64)) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut rows = connection.stream(select(table));
    while let Some(row) = rows.try_next().await? {
        read(&row, table, &mut tally)?;
        progress(1);
    }
    Ok(tally)
}

/// The values of a row, which come into the tally.
fn read(row: &QueryResult, table: &Table, tally: &mut Tally) -> Result<Vec<Value>> {
    let mut hasher = DefaultHasher::new();
    let mut values = Vec::with_capacity(table.columns.len());
    for (n, column) in table.columns.iter().enumerate() {
        let mut aside = DefaultHasher::new();
        let is_moving = (table.name.as_str(), column.name.as_str()) == MOVING;
        let hasher = if is_moving { &mut aside } else { &mut hasher };
        values.push(match column.kind {
            Kind::Bool => value::<bool>(row, n, hasher)?,
            Kind::Integer => value::<i64>(row, n, hasher)?,
            Kind::Text => value::<String>(row, n, hasher)?,
            Kind::Bytes => value::<Vec<u8>>(row, n, hasher)?,
            Kind::Uuid => value::<Uuid>(row, n, hasher)?,
            Kind::Date => value::<NaiveDate>(row, n, hasher)?,
            Kind::Time => value::<DateTime<Utc>>(row, n, hasher)?,
        });
    }
    tally.rows += 1;
    tally.sum = tally.sum.wrapping_add(hasher.finish());
    Ok(values)
}

fn value<T>(row: &QueryResult, n: usize, hasher: &mut DefaultHasher) -> Result<Value>
where
    T: Hash + TryGetable,
    Option<T>: Into<Value>,
{
    let value = row.try_get_by_index::<Option<T>>(n)?;
    value.hash(hasher);
    Ok(value.into())
}

fn select(table: &Table) -> String {
    let columns = table.columns.iter().map(|column| match column.kind {
        Kind::Integer => format!("CAST({} AS BIGINT)", quoted(&column.name)), // of whatever size it is
        _ => quoted(&column.name),
    });
    format!("SELECT {} FROM {}", columns.collect::<Vec<_>>().join(", "), quoted(&table.name))
}

async fn insert(to: &mut PinnedConnection, table: &Table, rows: Vec<Vec<Value>>) -> Result<()> {
    let mut sql = Sql::new(to.backend());
    let names = table.columns.iter().map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ");
    sql.push("INSERT INTO ").push(&quoted(&table.name)).push(" (").push(&names).push(") ");
    if to.backend() == DbBackend::Postgres {
        let mut columns = vec![Vec::with_capacity(rows.len()); table.columns.len()];
        for row in rows {
            columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        }
        // A column that is numbered by the database keeps its numbers.
        sql.push("OVERRIDING SYSTEM VALUE SELECT * FROM unnest(");
        for (n, (column, values)) in table.columns.iter().zip(columns).enumerate() {
            let array = Value::Array(column.kind.array_type(), Some(Box::new(values)));
            sql.push(if n == 0 { "" } else { ", " }).bind(array);
        }
        sql.push(")");
    } else {
        for (n, row) in rows.into_iter().enumerate() {
            sql.push(if n == 0 { "VALUES (" } else { "), (" });
            for (n, value) in row.into_iter().enumerate() {
                sql.push(if n == 0 { "" } else { ", " }).bind(value);
            }
        }
        sql.push(")");
    }
    to.fetch(sql.build()).await?;
    Ok(())
}

/// New rows of PostgreSQL get numbers behind those that were copied; SQLite sees to that by itself.
async fn go_on_with_sequences(connection: &mut PinnedConnection) -> Result<()> {
    let numbered = "SELECT quote_ident(table_name) AS t, quote_ident(column_name) AS c, \
                    pg_get_serial_sequence(quote_ident(table_name), column_name) AS s FROM information_schema.columns \
                    WHERE table_schema = current_schema() \
                    AND pg_get_serial_sequence(quote_ident(table_name), column_name) IS NOT NULL";
    for row in connection.fetch(Statement::from_string(DbBackend::Postgres, numbered)).await? {
        let [table, column, sequence] = ["t", "c", "s"].map(|name| row.try_get::<String>("", name));
        let (table, column, sequence) = (table?, column?, sequence?);
        run(
            connection,
            format!("SELECT setval('{sequence}', COALESCE(MAX({column}), 1), MAX({column}) IS NOT NULL) FROM {table}"),
        )
        .await?;
    }
    Ok(())
}

async fn run(connection: &mut PinnedConnection, sql: String) -> Result<()> {
    connection.fetch(Statement::from_string(connection.backend(), sql)).await?;
    Ok(())
}

/// A name as it stands in a statement.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
