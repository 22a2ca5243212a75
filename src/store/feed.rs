//! The feed: the changes of each organization in an order.
//!
//! The statement that saves a change also puts a narrow row into `feed_pending`. A sequencer, one at a time, gives those
//! rows their positions. A position that the writing transaction took itself would not be in the order of commits: whoever
//! reads in between would skip the change that commits later.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sea_orm::{DbBackend, DbErr, FromQueryResult, QueryResult, Value, sea_query::ArrayType};
use uuid::Uuid;

use super::{
    PinnedConnection, Store,
    rows::{Sql, pieces},
};
use crate::{
    entity::{feed, feed_pending, profile},
    error::{Error, Result},
};

/// How many changes one step of the sequencer moves at the most: SQLite's other writes wait for it.
pub const LARGEST_STEP: usize = 1000;

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
    sql.push("SELECT ")
        .columns::<feed_pending::Entity>("")
        .push(" FROM feed_pending ORDER BY profile_id, revision LIMIT 1");
    Ok(!store.all::<feed_pending::Model>(sql.build()).await?.is_empty())
}

/// What a step of the sequencer did.
pub enum Step {
    /// Another sequencer is at work, or SQLite's writer is.
    Busy,
    /// It has moved this many changes, and these are the heads now.
    Moved(usize, Vec<Head>),
}

/// Gives changes that wait for them their positions, in one transaction.
pub async fn sequence(store: &Store) -> Result<Step> {
    let mut connection = store.write_connection().await?;
    if !connection.try_begin().await? {
        return Ok(Step::Busy);
    }
    let moved = move_pending(&mut connection).await;
    match &moved {
        Ok(Step::Moved(1.., _)) => {
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
    // A revision that is seen has been committed after those before it: a profile's are in their order.
    sql.push("SELECT ")
        .columns::<feed_pending::Entity>("")
        .push(" FROM feed_pending ORDER BY profile_id, revision LIMIT ");
    sql.bind(Value::from(LARGEST_STEP as u64));
    let pending = connection.all::<feed_pending::Model>(sql.build()).await?;
    if pending.is_empty() {
        return Ok(Step::Moved(0, Vec::new()));
    }
    let mut organizations: Vec<_> = pending.iter().map(|change| change.organization_id).collect();
    organizations.sort_unstable();
    organizations.dedup();
    let mut heads = connection.all::<Head>(heads_of(backend, &organizations).build()).await?;
    let places = number(&pending, &mut heads)?;
    insert(connection, &places).await?;
    let keys: Vec<_> = pending.iter().map(|change| [change.profile_id.into(), change.revision.into()]).collect();
    for piece in pieces_of(backend, &keys) {
        let mut sql = Sql::new(backend);
        sql.push("DELETE FROM feed_pending WHERE ");
        sql.tuple_is_in("profile_id, revision", [ArrayType::Uuid, ArrayType::BigInt], piece);
        connection.fetch(sql.build()).await?;
    }
    Ok(Step::Moved(pending.len(), heads))
}

/// The rows of the feed, which continue each organization's numbers.
fn number(pending: &[feed_pending::Model], heads: &mut [Head]) -> Result<Vec<feed::Model>> {
    let mut heads: HashMap<_, _> = heads.iter_mut().map(|head| (head.organization_id, &mut head.position)).collect();
    let place = |change: &feed_pending::Model| {
        let feed_pending::Model { organization_id, profile_id, revision } = *change;
        let head = heads.get_mut(&organization_id);
        let head = head.ok_or_else(|| Error::Internal("a change of an unknown organization".to_owned()))?;
        **head += 1;
        Ok(feed::Model { organization_id, position: **head, profile_id, revision })
    };
    pending.iter().map(place).collect()
}

async fn insert(connection: &mut PinnedConnection, places: &[feed::Model]) -> Result<()> {
    let backend = connection.backend();
    let places: Vec<_> = places.iter().collect();
    for piece in pieces_of(backend, &places) {
        let mut sql = Sql::new(backend);
        sql.push("INSERT INTO feed (").columns::<feed::Entity>("").push(") ").rows::<feed::Entity>(piece, &[]);
        connection.fetch(sql.build()).await?;
    }
    Ok(())
}

/// SQLite's statements take few rows, PostgreSQL's any number.
fn pieces_of<T>(backend: DbBackend, rows: &[T]) -> impl Iterator<Item = &[T]> {
    let whole = (backend == DbBackend::Postgres).then_some(rows);
    let parts = if backend == DbBackend::Postgres { &[] } else { rows };
    whole.into_iter().chain(pieces(parts))
}
