//! Saves what was decided about profiles: rows with their history and the claims of their request ids.
//!
//! On PostgreSQL that is one statement, which saves a row only where nobody has changed it since it was loaded, and leaves
//! out what somebody else has locked. SQLite has no data-modifying common table expressions, and one writer.

use std::collections::HashSet;

use sea_orm::{DbBackend, EntityTrait, IdenStatic as _, Iterable as _, ModelTrait, Value};
use uuid::Uuid;

use super::{
    PinnedConnection,
    failure::unsaved,
    identifier,
    rows::{Sql, pieces},
};
use crate::{
    entity::{
        profile::{self, Column},
        profile_change, profile_identifier, write_request,
    },
    error::{Error, Result},
};

/// The column beside those of a row that has its name as it is compared.
const SORT_NAME: &str = "sort_name";

/// Rows of profiles with all that is stored with them.
pub struct Rows<'a> {
    pub profiles: Vec<&'a profile::Model>,
    /// The revision that each of them had when it was loaded.
    pub expected: Vec<i64>,
    pub history: Vec<&'a profile_change::Model>,
    pub claims: Vec<&'a write_request::Model>,
    pub added: Vec<&'a profile_identifier::Model>,
    pub removed: Vec<&'a profile_identifier::Model>,
}

/// Stores new profiles: all of them or none.
pub async fn create(connection: &mut PinnedConnection, rows: &Rows<'_>) -> Result<()> {
    let Rows { profiles, expected: _, history, claims, added, removed: _ } = rows;
    if connection.backend() == DbBackend::Sqlite {
        for piece in pieces(profiles) {
            let mut sql = Sql::new(DbBackend::Sqlite);
            sql.push("INSERT INTO profile (");
            named(&mut sql).push(") ").rows::<profile::Entity>(piece, &[sort_names(piece)]);
            connection.fetch(sql.build()).await.map_err(unsaved)?;
        }
        insert_history(connection, history).await?;
        insert::<profile_identifier::Entity>(connection, added).await?;
        return insert::<write_request::Entity>(connection, claims).await;
    }
    let mut sql = Sql::new(DbBackend::Postgres);
    sql.push("WITH n (");
    named(&mut sql).push(") AS (").rows::<profile::Entity>(profiles, &[sort_names(profiles)]);
    sql.push("), s AS (INSERT INTO profile (");
    named(&mut sql).push(") SELECT ");
    named(&mut sql).push(" FROM n RETURNING id)");
    identifiers(&mut sql, added, &[]);
    beside(&mut sql, history, claims);
    connection.fetch(sql.build()).await.map_err(unsaved).map(drop)
}

/// Stores the new rows of profiles, and answers which of them it has stored: those whose revision was the expected one,
/// and which nobody else had locked.
pub async fn update(connection: &mut PinnedConnection, rows: &Rows<'_>) -> Result<Vec<Uuid>> {
    let Rows { profiles, expected, history, claims, added, removed } = rows;
    if connection.backend() == DbBackend::Sqlite {
        // Nobody can have changed them: the transaction has had the one writer since they were loaded. An indexed column
        // that does not change is not set: SQLite would write its index anew.
        let changed: HashSet<_> = history.iter().flat_map(|row| row.fields.split_ascii_whitespace()).collect();
        let is_set = |column: &str| is_rewritten(column, &changed);
        let mut updated = Vec::with_capacity(profiles.len());
        for piece in pieces(profiles) {
            let mut sql = Sql::new(DbBackend::Sqlite);
            sql.push("INSERT INTO profile (");
            named(&mut sql).push(") ").rows::<profile::Entity>(piece, &[sort_names(piece)]);
            sql.push(" ON CONFLICT (id) DO");
            set(&mut sql, "UPDATE SET ", "excluded.", is_set);
            sql.push(" RETURNING id");
            updated.extend(ids(connection, sql).await?);
        }
        insert_history(connection, history).await?;
        insert::<profile_identifier::Entity>(connection, added).await?;
        remove(connection, removed).await?;
        insert::<write_request::Entity>(connection, claims).await?;
        return Ok(updated);
    }
    let mut sql = Sql::new(DbBackend::Postgres);
    let expected = expected.iter().map(|revision| (*revision).into()).collect();
    sql.push("WITH n (");
    named(&mut sql).push(", expected) AS (").rows::<profile::Entity>(profiles, &[sort_names(profiles), expected]);
    // In the order of ids, or groups of two replicas would deadlock.
    sql.push("), l AS (SELECT p.id FROM profile p JOIN n ON p.id = n.id AND p.revision = n.expected ");
    sql.push("ORDER BY p.id FOR UPDATE OF p SKIP LOCKED), s AS (");
    set(&mut sql, "UPDATE profile SET ", "n.", |column| column != Column::Id.as_str());
    sql.push(" FROM n JOIN l ON l.id = n.id WHERE profile.id = l.id RETURNING profile.id)");
    identifiers(&mut sql, added, removed);
    beside(&mut sql, history, claims);
    ids(connection, sql).await
}

/// Remembers request ids of writes that store no row: all of them or none.
pub async fn claim(connection: &mut PinnedConnection, claims: &[&write_request::Model]) -> Result<()> {
    if connection.backend() == DbBackend::Sqlite {
        return insert::<write_request::Entity>(connection, claims).await;
    }
    let mut sql = Sql::new(DbBackend::Postgres);
    sql.push("INSERT INTO write_request (").columns::<write_request::Entity>("").push(") ");
    sql.rows::<write_request::Entity>(claims, &[]);
    connection.fetch(sql.build()).await.map_err(unsaved).map(drop)
}

/// Adds all columns of a profile's row.
fn named(sql: &mut Sql) -> &mut Sql {
    sql.columns::<profile::Entity>("").push(", ").push(SORT_NAME)
}

/// What the rows have in the last of them.
fn sort_names(profiles: &[&profile::Model]) -> Vec<Value> {
    profiles.iter().map(|profile| profile.sort_name().into()).collect()
}

/// Whether SQLite sets a column of a row whose fields of these names have changed.
fn is_rewritten(column: &str, changed: &HashSet<&str>) -> bool {
    let any_of = |columns: &[Column]| columns.iter().any(|column| changed.contains(column.as_str()));
    match column {
        SORT_NAME => any_of(&[Column::LastName, Column::FirstName]),
        "id" | "organization_id" => false,
        "email" | "phone_number" | "dob" => changed.contains(column),
        _ => true,
    }
}

/// Sets these columns from this source.
fn set(sql: &mut Sql, update: &str, source: &str, is_set: impl Fn(&str) -> bool) {
    sql.push(" ").push(update);
    let columns = Column::iter().map(|column| column.as_str()).chain([SORT_NAME]).filter(|column| is_set(column));
    for (n, column) in columns.enumerate() {
        sql.push(if n == 0 { "" } else { ", " }).push(column).push(" = ").push(source).push(column);
    }
}

/// The identifiers that are added and removed with the profiles `s` that were stored: added in the order of their keys, or
/// two statements that add the same ones would deadlock.
fn identifiers(sql: &mut Sql, added: &[&profile_identifier::Model], removed: &[&profile_identifier::Model]) {
    if !added.is_empty() {
        sql.push(", a (").columns::<profile_identifier::Entity>("").push(") AS (");
        sql.rows::<profile_identifier::Entity>(added, &[]).push("), j AS (INSERT INTO profile_identifier (");
        sql.columns::<profile_identifier::Entity>("").push(") SELECT ").columns::<profile_identifier::Entity>("a.");
        sql.push(" FROM a JOIN s ON s.id = a.profile_id ORDER BY a.organization_id, a.system, a.value)");
    }
    if !removed.is_empty() {
        sql.push(", g (").columns::<profile_identifier::Entity>("").push(") AS (");
        sql.rows::<profile_identifier::Entity>(removed, &[]).push("), k AS (DELETE FROM profile_identifier o USING g ");
        sql.push("JOIN s ON s.id = g.profile_id WHERE o.organization_id = g.organization_id ");
        sql.push("AND o.system = g.system AND o.value = g.value)");
    }
}

/// What is stored beside the profiles `s` that were: their history, which waits for its place in the feed, and their claims.
fn beside(sql: &mut Sql, history: &[&profile_change::Model], claims: &[&write_request::Model]) {
    sql.push(", h (").columns::<profile_change::Entity>("").push(") AS (");
    sql.rows::<profile_change::Entity>(history, &[]).push("), i AS (INSERT INTO profile_change (");
    sql.columns::<profile_change::Entity>("").push(") SELECT ").columns::<profile_change::Entity>("h.");
    sql.push(" FROM h JOIN s ON s.id = h.profile_id RETURNING organization_id, profile_id, revision), ");
    sql.push("p AS (INSERT INTO feed_pending (changes) ");
    sql.push(
        "SELECT string_agg(concat_ws(' ', organization_id, profile_id, revision), ' ') FROM i HAVING COUNT(*) > 0)",
    );
    if !claims.is_empty() {
        sql.push(", c (").columns::<write_request::Entity>("").push(") AS (");
        sql.rows::<write_request::Entity>(claims, &[]).push("), r AS (INSERT INTO write_request (");
        sql.columns::<write_request::Entity>("").push(") SELECT ").columns::<write_request::Entity>("c.");
        sql.push(" FROM c JOIN s ON s.id = c.profile_id)");
    }
    sql.push(" SELECT id FROM s");
}

/// The ids that a statement answers.
async fn ids(connection: &mut PinnedConnection, sql: Sql) -> Result<Vec<Uuid>> {
    let rows = connection.fetch(sql.build()).await.map_err(unsaved)?;
    rows.iter().map(|row| row.try_get("", "id").map_err(Error::from)).collect()
}

/// Inserts rows of the history, which wait for their places in the feed.
pub(super) async fn insert_history(
    connection: &mut PinnedConnection,
    history: &[&profile_change::Model],
) -> Result<()> {
    insert::<profile_change::Entity>(connection, history).await?;
    if history.is_empty() {
        return Ok(());
    }
    let change = |row: &&profile_change::Model| format!("{} {} {}", row.organization_id, row.profile_id, row.revision);
    let changes = history.iter().map(change).collect::<Vec<_>>().join(" ");
    let mut sql = Sql::new(connection.backend());
    sql.push("INSERT INTO feed_pending (changes) VALUES (").bind(changes.into()).push(")");
    connection.fetch(sql.build()).await.map_err(unsaved).map(drop)
}

/// Deletes identifiers.
async fn remove(connection: &mut PinnedConnection, identifiers: &[&profile_identifier::Model]) -> Result<()> {
    if identifiers.is_empty() {
        return Ok(());
    }
    let keys: Vec<_> = identifiers.iter().map(|row| row.key()).collect();
    let mut sql = Sql::new(DbBackend::Sqlite);
    sql.push("DELETE FROM profile_identifier WHERE ");
    sql.tuple_is_in("organization_id, system, value", identifier::KEY, &identifier::values(&keys));
    connection.fetch(sql.build()).await.map_err(unsaved).map(drop)
}

/// Inserts rows of any table.
pub(super) async fn insert<E: EntityTrait>(connection: &mut PinnedConnection, rows: &[&E::Model]) -> Result<()>
where
    E::Model: ModelTrait<Entity = E>,
{
    for piece in pieces(rows) {
        let mut sql = Sql::new(connection.backend());
        sql.push("INSERT INTO ").push(E::default().table_name()).push(" (").columns::<E>("").push(") ");
        sql.rows::<E>(piece, &[]);
        connection.fetch(sql.build()).await.map_err(unsaved)?;
    }
    Ok(())
}
