//! Profiles by name. Each query is a range of one index, in its order: none sorts, and none reads what it does not answer,
//! but for a name's words among people of one date of birth.

use chrono::NaiveDate;
use sea_orm::{DbBackend, FromQueryResult};
use uuid::Uuid;

use super::{
    Store,
    profile::select,
    rows::{Sql, padded},
};
use crate::{entity::profile::Model, error::Result};

/// How many rows a query asks for: few numbers, since they are part of its text, so that PostgreSQL plans for them.
const LIMITS: [u64; 5] = [11, 26, 51, 101, 201];

/// Greater than every character of a name: no text may hold it.
const GREATEST: char = '\u{10ffff}';

/// Whom a list has.
#[derive(Clone, PartialEq, Eq)]
pub struct Filter {
    /// The beginning of the folded name; with a date of birth words, each the beginning of a word of it.
    pub name: String,
    pub dob: Option<NaiveDate>,
}

/// A place in the order of a list: that of a folded name and an id.
pub struct Position {
    pub sort_name: String,
    pub id: Uuid,
}

/// The profiles of the list after a position, in order: `limit` at least, if there are so many.
pub async fn list(
    store: &Store,
    organization: Uuid,
    filter: &Filter,
    after: Option<Position>,
    limit: u64,
) -> Result<Vec<Model>> {
    let mut sql = select(store.backend());
    matching(&mut sql, organization, filter, after);
    let limit = LIMITS.into_iter().find(|step| *step >= limit).unwrap_or(limit);
    sql.push(&format!(" ORDER BY sort_name, id LIMIT {limit}"));
    store.all(sql.build()).await
}

/// How many profiles the list has, up to `most`.
pub async fn count(store: &Store, organization: Uuid, filter: &Filter, most: u32) -> Result<i64> {
    let mut sql = Sql::new(store.backend());
    sql.push("SELECT COUNT(*) AS number FROM (SELECT id FROM profile WHERE ");
    matching(&mut sql, organization, filter, None);
    // In the order of the index, or PostgreSQL might read the table instead.
    sql.push(&format!(" ORDER BY sort_name, id LIMIT {most}) AS found"));
    let counted = store.all::<Counted>(sql.build()).await?;
    Ok(counted.into_iter().map(|Counted { number }| number).sum())
}

#[derive(FromQueryResult)]
struct Counted {
    number: i64,
}

/// Adds the condition of a list. No id is nil: what is after it is all that begins so.
fn matching(sql: &mut Sql, organization: Uuid, filter: &Filter, after: Option<Position>) {
    let (prefix, words) = match filter.dob {
        None => (&*filter.name, Vec::new()),
        Some(_) => ("", filter.name.split(' ').filter(|word| !word.is_empty()).collect()),
    };
    let end = format!("{prefix}{GREATEST}");
    let Position { sort_name, id } =
        after.unwrap_or_else(|| Position { sort_name: prefix.to_owned(), id: Uuid::nil() });
    sql.push("organization_id = ").bind(organization.into());
    if let Some(dob) = filter.dob {
        sql.push(" AND dob = ").bind(dob.into());
    }
    sql.push(" AND (sort_name, id) > (").bind(sort_name.into()).push(", ").bind(id.into());
    sql.push(") AND sort_name < ").bind(end.into());
    let within = if sql.backend() == DbBackend::Postgres { "strpos" } else { "instr" };
    for word in padded(&words) {
        sql.push(" AND ").push(within).push("(' ' || sort_name, ").bind(format!(" {word}").into()).push(") > 0");
    }
}
