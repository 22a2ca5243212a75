//! The feed: the changes of each organization in an order.
//!
//! The statement that saves changes also puts a row into `feed_pending`, which names them. A sequencer, one at a time, gives
//! them their positions. A position that the writing transaction took itself would not be in the order of commits: whoever
//! reads in between would skip the change that commits later.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sea_orm::{DbBackend, DbErr, FromQueryResult, QueryResult, Value};
use uuid::Uuid;

use super::{
    PinnedConnection, Store,
    rows::{Sql, pieces},
};
use crate::{
    entity::{feed, feed_pending, profile},
    error::{Error, Result},
};

/// Of how many statements one step of the sequencer takes the changes at the most, and with how many changes it takes no
/// more statements: SQLite's other writes wait for it.
const MOST_STATEMENTS: usize = 500;
const ENOUGH_CHANGES: usize = 2000;

/// A place in the feed, and the change that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Place {
    pub position: i64,
    pub profile_id: Uuid,
    pub revision: i64,
    pub changed_at: DateTime<Utc>,
}

/// A change in the feed.
pub struct Entry {
    pub place: Place,
    /// The RPC that made the change.
    pub rpc: String,
    /// The changed columns, separated by a space.
    pub fields: String,
    /// The profile as it is now, if there is one.
    pub profile: Option<profile::Model>,
}

impl Entry {
    /// A profile as it is now, which has no place.
    pub const fn present(profile: profile::Model) -> Self {
        let place =
            Place { position: 0, profile_id: profile.id, revision: profile.revision, changed_at: profile.updated_at };
        Self { place, rpc: String::new(), fields: String::new(), profile: Some(profile) }
    }
}

/// The columns of a place begin so, since a profile has columns of the same names.
const PLACE: &str = "feed_";

impl FromQueryResult for Entry {
    fn from_query_result(row: &QueryResult, prefix: &str) -> Result<Self, DbErr> {
        let there = row.try_get::<Option<Uuid>>(prefix, "id")?.is_some();
        Ok(Self {
            place: Place::from_query_result(row, PLACE)?,
            rpc: row.try_get(PLACE, "rpc")?,
            fields: row.try_get(PLACE, "fields")?,
            profile: there.then(|| profile::Model::from_query_result(row, prefix)).transpose()?,
        })
    }
}

/// At most `limit` changes of an organization from a position on, in their order.
pub async fn from(store: &Store, organization: Uuid, position: i64, limit: u64) -> Result<Vec<Entry>> {
    let mut sql = places(store.backend());
    sql.push(", c.rpc AS feed_rpc, c.fields AS feed_fields, ")
        .columns::<profile::Entity>("p.")
        .push(FEED)
        .bind(organization.into());
    // Limited before it is joined, and by a literal, or PostgreSQL might plan for many rows and read whole tables.
    sql.push(" AND position >= ").bind(position.into()).push(&format!(" ORDER BY position LIMIT {limit}"));
    sql.push(HISTORY).push(" LEFT JOIN profile p ON p.id = f.profile_id ORDER BY f.position");
    store.all(sql.build()).await
}

/// The place at a position of an organization, if there is a change.
pub async fn place(store: &Store, organization: Uuid, position: i64) -> Result<Option<Place>> {
    let mut sql = places(store.backend());
    sql.push(FEED).bind(organization.into()).push(" AND position = ").bind(position.into()).push(HISTORY);
    Ok(store.all::<Prefixed>(sql.build()).await?.pop().map(|Prefixed(place)| place))
}

/// The last place of an organization, if it has any.
pub async fn last(store: &Store, organization: Uuid) -> Result<Option<Place>> {
    let mut sql = places(store.backend());
    sql.push(FEED).bind(organization.into()).push(" ORDER BY position DESC LIMIT 1").push(HISTORY);
    Ok(store.all::<Prefixed>(sql.build()).await?.pop().map(|Prefixed(place)| place))
}

struct Prefixed(Place);

impl FromQueryResult for Prefixed {
    fn from_query_result(row: &QueryResult, _prefix: &str) -> Result<Self, DbErr> {
        Place::from_query_result(row, PLACE).map(Self)
    }
}

/// The beginning of a query for places.
fn places(backend: DbBackend) -> Sql {
    let mut sql = Sql::new(backend);
    sql.push("SELECT f.position AS feed_position, f.profile_id AS feed_profile_id, f.revision AS feed_revision, ");
    sql.push("c.changed_at AS feed_changed_at");
    sql
}

/// An organization's feed, whose condition goes on.
const FEED: &str = " FROM (SELECT * FROM feed WHERE organization_id = ";

/// The feed's end, joined with the history.
const HISTORY: &str = ") f JOIN profile_change c ON c.profile_id = f.profile_id AND c.revision = f.revision";

/// The last position of an organization; 0 where it has none.
#[derive(FromQueryResult)]
pub struct Head {
    pub organization_id: Uuid,
    pub position: i64,
}

/// The heads of these organizations.
pub async fn heads(store: &Store, organizations: &[Uuid]) -> Result<Vec<Head>> {
    store.all(heads_of(store.backend(), organizations).build()).await
}

fn heads_of(backend: DbBackend, organizations: &[Uuid]) -> Sql {
    let mut sql = Sql::new(backend);
    sql.push("SELECT o.id AS organization_id, COALESCE((SELECT f.position FROM feed f WHERE f.organization_id = o.id ");
    sql.push("ORDER BY f.position DESC LIMIT 1), 0) AS position FROM organization o WHERE ");
    sql.is_in("o.id", organizations);
    sql
}

/// Whether changes wait for their positions.
pub async fn is_pending(store: &Store) -> Result<bool> {
    let mut sql = Sql::new(store.backend());
    // By the index, which leaves out what has been deleted.
    sql.push("SELECT ").columns::<feed_pending::Entity>("").push(" FROM feed_pending ORDER BY id LIMIT 1");
    Ok(!store.all::<feed_pending::Model>(sql.build()).await?.is_empty())
}

/// How many changes wait for their positions, of so many statements at the most.
pub async fn pending(store: &Store) -> Result<i64> {
    let mut sql = Sql::new(store.backend());
    sql.push("SELECT CAST(COALESCE(SUM((LENGTH(changes) - LENGTH(REPLACE(changes, ' ', '')) + 1) / 3), 0) AS BIGINT) ");
    sql.push("AS number FROM (SELECT changes FROM feed_pending ORDER BY id LIMIT 10000) p");
    let counted = store.all::<Number>(sql.build()).await?.pop();
    Ok(counted.map_or(0, |Number { number }| number))
}

#[derive(FromQueryResult)]
struct Number {
    number: i64,
}

/// What a step of the sequencer did.
pub enum Step {
    /// Another sequencer is at work, or SQLite's writer is.
    Busy,
    /// These are the heads of the organizations whose changes it has moved. There may be more to move where it is `full`.
    Moved { heads: Vec<Head>, full: bool },
}

/// Gives changes that wait for them their positions, in one transaction.
pub async fn sequence(store: &Store) -> Result<Step> {
    let mut connection = store.write_connection().await?;
    if !connection.try_begin().await? {
        return Ok(Step::Busy);
    }
    let moved = move_pending(&mut connection).await;
    match &moved {
        Ok(Step::Moved { heads, full: _ }) if !heads.is_empty() => {
            store.check_file()?;
            connection.commit().await?;
        }
        Ok(_) | Err(_) => connection.rollback().await,
    }
    moved
}

async fn move_pending(connection: &mut PinnedConnection) -> Result<Step> {
    let backend = connection.backend();
    if backend == DbBackend::Postgres {
        let mut sql = Sql::new(backend);
        sql.push("SELECT id FROM feed_sequencer FOR UPDATE SKIP LOCKED");
        if connection.fetch(sql.build()).await?.is_empty() {
            return Ok(Step::Busy);
        }
    }
    let mut sql = Sql::new(backend);
    sql.push("SELECT ").columns::<feed_pending::Entity>("").push(" FROM feed_pending ORDER BY id LIMIT ");
    sql.bind(Value::from(MOST_STATEMENTS as u64));
    let mut pending = connection.all::<feed_pending::Model>(sql.build()).await?;
    let read = pending.len();
    let changes = changes(&mut pending)?;
    let mut organizations: Vec<_> = changes.iter().map(|change| change.organization).collect();
    organizations.sort_unstable();
    organizations.dedup();
    if organizations.is_empty() {
        return Ok(Step::Moved { heads: Vec::new(), full: false });
    }
    let mut heads = connection.all::<Head>(heads_of(backend, &organizations).build()).await?;
    insert(connection, &number(changes, &mut heads)?).await?;
    let ids: Vec<_> = pending.iter().map(|statement| statement.id).collect();
    let mut sql = Sql::new(backend);
    sql.push("DELETE FROM feed_pending WHERE ").is_in("id", &ids);
    connection.fetch(sql.build()).await?;
    Ok(Step::Moved { heads, full: pending.len() < read || read == MOST_STATEMENTS })
}

/// A change that has no place yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Unplaced {
    profile: Uuid,
    revision: i64,
    organization: Uuid,
}

/// The changes of the first of these statements, as many as are enough: those behind are taken out. A profile's are in the
/// order of its revisions: a later one was saved by a later statement, or by the same.
fn changes(pending: &mut Vec<feed_pending::Model>) -> Result<Vec<Unplaced>> {
    let (mut changes, mut taken) = (Vec::new(), 0);
    for feed_pending::Model { id: _, changes: text } in pending.iter() {
        if changes.len() >= ENOUGH_CHANGES {
            break;
        }
        taken += 1;
        let words: Vec<_> = text.split(' ').collect();
        let of_statement: Option<Vec<_>> = words.chunks(3).map(unplaced).collect();
        let unreadable = || Error::Internal("a row of feed_pending that is not readable".to_owned());
        let mut of_statement = of_statement.ok_or_else(unreadable)?;
        of_statement.sort_unstable();
        changes.append(&mut of_statement);
    }
    pending.truncate(taken);
    Ok(changes)
}

fn unplaced(words: &[&str]) -> Option<Unplaced> {
    let &[organization, profile, revision] = words else { return None };
    Some(Unplaced {
        organization: organization.parse().ok()?,
        profile: profile.parse().ok()?,
        revision: revision.parse().ok()?,
    })
}

/// The rows of the feed, which continue each organization's numbers.
fn number(changes: Vec<Unplaced>, heads: &mut [Head]) -> Result<Vec<feed::Model>> {
    let mut heads: HashMap<_, _> = heads.iter_mut().map(|head| (head.organization_id, &mut head.position)).collect();
    let place = |Unplaced { organization, profile, revision }| {
        let head = heads.get_mut(&organization);
        let head = head.ok_or_else(|| Error::Internal("a change of an unknown organization".to_owned()))?;
        **head += 1;
        Ok(feed::Model { organization_id: organization, position: **head, profile_id: profile, revision })
    };
    changes.into_iter().map(place).collect()
}

async fn insert(connection: &mut PinnedConnection, places: &[feed::Model]) -> Result<()> {
    let backend = connection.backend();
    let places: Vec<_> = places.iter().collect();
    // SQLite's statements take few rows, PostgreSQL's any number.
    let (whole, parts) =
        if backend == DbBackend::Postgres { (Some(&places[..]), &[][..]) } else { (None, &places[..]) };
    for piece in whole.into_iter().chain(pieces(parts)) {
        let mut sql = Sql::new(backend);
        sql.push("INSERT INTO feed (").columns::<feed::Entity>("").push(") ").rows::<feed::Entity>(piece, &[]);
        connection.fetch(sql.build()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(id: i64, changes: &[(u128, i64)]) -> feed_pending::Model {
        let words = changes.iter().map(|(profile, revision)| {
            format!("{} {} {revision}", Uuid::from_u128(1), Uuid::from_u128(*profile).simple())
        });
        feed_pending::Model { id, changes: words.collect::<Vec<_>>().join(" ") }
    }

    #[test]
    fn statements_keep_their_order_and_within_them_a_profiles_revisions_theirs() {
        let pending = vec![statement(1, &[(8, 3), (7, 5), (8, 2)]), statement(2, &[(7, 6)])];
        let order = changes(&mut pending.clone()).expect("changes");
        let order: Vec<_> = order.iter().map(|change| (change.profile.as_u128(), change.revision)).collect();
        assert_eq!(order, [(7, 5), (8, 2), (8, 3), (7, 6)]);
        let mut heads = [Head { organization_id: Uuid::from_u128(1), position: 41 }];
        let places = number(changes(&mut pending.clone()).expect("changes"), &mut heads).expect("places");
        assert_eq!(places.iter().map(|place| place.position).collect::<Vec<_>>(), [42, 43, 44, 45]);
    }

    #[test]
    fn a_step_takes_no_more_statements_once_it_has_enough() {
        let large: Vec<_> = (0..1500).map(|profile| (profile, 1)).collect();
        let mut pending = vec![statement(1, &large), statement(2, &large), statement(3, &large)];
        assert_eq!((changes(&mut pending).expect("changes").len(), pending.len()), (3000, 2));
    }

    #[test]
    fn what_is_no_change_is_not_left_out() {
        for text in ["", "1 2", "x y 3"] {
            assert!(changes(&mut vec![feed_pending::Model { id: 1, changes: text.to_owned() }]).is_err(), "{text}");
        }
    }
}
