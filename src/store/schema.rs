//! The schema as a database has it: its tables with their columns, and whether it is this program's.

use sea_orm::{DbBackend, FromQueryResult, Statement, sea_query::ArrayType};

use super::PinnedConnection;
use crate::{
    error::{Error, Result},
    migration::Migrator,
};

/// Where the migrations are that were applied.
const MIGRATIONS: &str = "seaql_migrations";

/// A table, and its columns in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
}

/// What a column holds, whichever database it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Integer,
    Text,
    Bytes,
    Uuid,
    Date,
    Time,
}

impl Kind {
    /// By the name of a type of PostgreSQL, or of a column in an SQLite file.
    fn of(data_type: &str) -> Option<Self> {
        Some(match data_type.to_ascii_lowercase().as_str() {
            "boolean" => Self::Bool,
            "smallint" | "integer" | "bigint" => Self::Integer,
            "text" | "varchar" | "character varying" => Self::Text,
            "bytea" | "blob" => Self::Bytes,
            "uuid" | "uuid_text" => Self::Uuid,
            "date" | "date_text" => Self::Date,
            "timestamp with time zone" | "timestamp_with_timezone_text" => Self::Time,
            _ => return None,
        })
    }

    pub const fn array_type(self) -> ArrayType {
        match self {
            Self::Bool => ArrayType::Bool,
            Self::Integer => ArrayType::BigInt,
            Self::Text => ArrayType::String,
            Self::Bytes => ArrayType::Bytes,
            Self::Uuid => ArrayType::Uuid,
            Self::Date => ArrayType::ChronoDate,
            Self::Time => ArrayType::ChronoDateTimeUtc,
        }
    }
}

/// Whose schema it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No migration of this program was applied.
    Foreign,
    /// Migrations were not applied.
    Older,
    Current,
    /// Migrations were applied that this program does not know.
    Newer,
}

/// Whose schema it is, without a change to it.
pub async fn standing(connection: &mut PinnedConnection) -> Result<Standing> {
    if names(connection).await?.iter().all(|name| name != MIGRATIONS) {
        return Ok(Standing::Foreign);
    }
    let query = Statement::from_string(connection.backend(), format!("SELECT version FROM {MIGRATIONS}"));
    let rows = connection.fetch(query).await?;
    let applied = rows.iter().map(|row| row.try_get("", "version")).collect::<Result<Vec<String>, _>>()?;
    let known = Migrator::known();
    Ok(if known.iter().all(|name| !applied.contains(name)) {
        Standing::Foreign
    } else if applied.iter().any(|name| !known.contains(name)) {
        Standing::Newer
    } else if known.iter().any(|name| !applied.contains(name)) {
        Standing::Older
    } else {
        Standing::Current
    })
}

#[derive(FromQueryResult)]
struct Described {
    table_name: String,
    column_name: String,
    data_type: String,
}

const POSTGRES: &str = "SELECT t.table_name::text AS table_name, c.column_name::text AS column_name, \
    c.data_type::text AS data_type FROM information_schema.tables t JOIN information_schema.columns c \
    ON c.table_schema = t.table_schema AND c.table_name = t.table_name WHERE t.table_schema = current_schema() \
    AND t.table_type = 'BASE TABLE' ORDER BY 1, c.ordinal_position";

const SQLITE: &str = "SELECT t.name AS table_name, c.name AS column_name, c.type AS data_type FROM sqlite_master t \
    JOIN pragma_table_info(t.name) c WHERE t.type = 'table' AND substr(t.name, 1, 7) <> 'sqlite_' ORDER BY 1, c.cid";

async fn described(connection: &mut PinnedConnection) -> Result<Vec<Described>> {
    let backend = connection.backend();
    let query = if backend == DbBackend::Postgres { POSTGRES } else { SQLITE };
    connection.all(Statement::from_string(backend, query)).await
}

/// The names of all tables.
pub async fn names(connection: &mut PinnedConnection) -> Result<Vec<String>> {
    let mut names: Vec<_> = described(connection).await?.into_iter().map(|column| column.table_name).collect();
    names.dedup();
    Ok(names)
}

/// All tables but that of the migrations.
pub async fn tables(connection: &mut PinnedConnection) -> Result<Vec<Table>> {
    let mut tables: Vec<Table> = Vec::new();
    for Described { table_name, column_name, data_type } in described(connection).await? {
        if table_name == MIGRATIONS {
            continue;
        }
        let unknown = || Error::Internal(format!("{table_name}.{column_name} has an unknown type, {data_type}"));
        let column = Column { kind: Kind::of(&data_type).ok_or_else(unknown)?, name: column_name };
        match tables.last_mut() {
            Some(table) if table.name == table_name => table.columns.push(column),
            _ => tables.push(Table { name: table_name, columns: vec![column] }),
        }
    }
    Ok(tables)
}
