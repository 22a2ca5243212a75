//! How far imports have come.

use super::{PinnedConnection, rows::Sql};
use crate::{
    entity::import_progress::{Entity, Model},
    error::Result,
};

/// How many lines of the file of this row are done; 0 where its import begins.
pub async fn lines(connection: &mut PinnedConnection, import: &Model) -> Result<i64> {
    let mut sql = Sql::new(connection.backend());
    sql.push("SELECT ").columns::<Entity>("").push(" FROM import_progress WHERE ");
    key(&mut sql, import);
    Ok(connection.all::<Model>(sql.build()).await?.first().map_or(0, |found| found.lines))
}

/// Moves the progress from the lines of this row on, by so many; false where another import has moved it meanwhile.
pub async fn advance(connection: &mut PinnedConnection, import: &Model, by: i64) -> Result<bool> {
    let mut sql = Sql::new(connection.backend());
    if import.lines == 0 {
        let moved = Model { lines: by, ..import.clone() };
        sql.push("INSERT INTO import_progress (").columns::<Entity>("").push(") ").rows::<Entity>(&[&moved], &[]);
        sql.push(" ON CONFLICT DO NOTHING");
    } else {
        sql.push("UPDATE import_progress SET lines = ").bind((import.lines + by).into()).push(" WHERE ");
        key(&mut sql, import);
        sql.push(" AND lines = ").bind(import.lines.into());
    }
    sql.push(" RETURNING lines");
    Ok(!connection.fetch(sql.build()).await?.is_empty())
}

fn key(sql: &mut Sql, import: &Model) {
    sql.push("organization_id = ").bind(import.organization_id.into());
    sql.push(" AND file_sha256 = ").bind(import.file_sha256.clone().into());
    sql.push(" AND upsert_by = ").bind(import.upsert_by.clone().into());
}
