//! API keys.

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, EntityTrait as _, ExprTrait as _, FromQueryResult,
    IntoActiveModel as _, QueryFilter as _, QueryOrder as _, QueryTrait as _, sea_query::Expr,
};
use uuid::Uuid;

use super::{Store, rows::Sql};
use crate::{
    entity::api_key::{Column, Entity, Model},
    error::Result,
};

/// A key's last use is written at most so often.
pub const LAST_USE_STEP: TimeDelta = TimeDelta::minutes(1);

/// Stores a key.
pub async fn create(db: &impl ConnectionTrait, key: Model) -> Result<()> {
    Entity::insert(key.into_active_model()).exec_without_returning(db).await?;
    Ok(())
}

/// The key with this lookup id.
pub async fn find(db: &impl ConnectionTrait, lookup: &str) -> Result<Option<Model>> {
    Ok(Entity::find_by_id(lookup).one(db).await?)
}

/// The key with this lookup id, for a call that presents it: in time, and from whichever connection is free.
pub async fn look_up(store: &Store, lookup: &str) -> Result<Option<Model>> {
    Ok(store.all(Entity::find_by_id(lookup).build(store.backend())).await?.pop())
}

/// A key, and since when its organization is disabled.
#[derive(Clone, Debug, FromQueryResult)]
pub struct OfOrganization {
    #[sea_orm(nested)]
    pub key: Model,
    pub disabled_at: Option<DateTime<Utc>>,
}

/// The keys with these lookup ids, for calls that present them and streams that are open: in time, and from whichever
/// connection is free.
pub async fn look_up_all(store: &Store, lookups: &[String]) -> Result<Vec<OfOrganization>> {
    let mut sql = Sql::new(store.backend());
    sql.push("SELECT ").columns::<Entity>("k.").push(", o.disabled_at FROM api_key k");
    sql.push(" JOIN organization o ON o.id = k.organization_id WHERE ").is_in("k.id", lookups);
    store.all(sql.build()).await
}

/// Sets how many calls a second a key may make, or that it has no bound; false where there is no such key.
pub async fn set_rate(db: &impl ConnectionTrait, lookup: &str, calls_per_second: Option<i32>) -> Result<bool> {
    let set = Entity::update_many()
        .col_expr(Column::CallsPerSecond, Expr::value(calls_per_second))
        .filter(Column::Id.eq(lookup))
        .exec(db)
        .await?;
    Ok(set.rows_affected == 1)
}

/// An organization's keys, the oldest first.
pub async fn list(db: &impl ConnectionTrait, organization: Uuid) -> Result<Vec<Model>> {
    let keys = Entity::find().filter(Column::OrganizationId.eq(organization));
    Ok(keys.order_by_asc(Column::CreatedAt).order_by_asc(Column::Id).all(db).await?)
}

/// An organization's key of this name that works, if there is one.
pub async fn find_live(
    db: &impl ConnectionTrait,
    organization: Uuid,
    name: &str,
    now: DateTime<Utc>,
) -> Result<Option<Model>> {
    let unexpired = Condition::any().add(Column::ExpiresAt.is_null()).add(Column::ExpiresAt.gt(now));
    let keys = Entity::find().filter(Column::OrganizationId.eq(organization)).filter(Column::Name.eq(name));
    let live = keys.filter(Column::RevokedAt.is_null()).filter(unexpired);
    Ok(live.order_by_desc(Column::CreatedAt).order_by_desc(Column::Id).one(db).await?)
}

/// Keys that work and end by then, whoever's they are: those that end first.
pub async fn ending(db: &impl ConnectionTrait, now: DateTime<Utc>, by: DateTime<Utc>) -> Result<Vec<Model>> {
    let keys = Entity::find().filter(Column::RevokedAt.is_null()).filter(Column::ExpiresAt.between(now, by));
    Ok(keys.order_by_asc(Column::ExpiresAt).order_by_asc(Column::Id).all(db).await?)
}

/// Revokes a key; false where there is none. A key that is revoked already keeps its date.
pub async fn revoke(db: &impl ConnectionTrait, lookup: &str, now: DateTime<Utc>) -> Result<bool> {
    let revoked = Entity::update_many()
        .col_expr(Column::RevokedAt, Expr::col(Column::RevokedAt).if_null(now))
        .filter(Column::Id.eq(lookup))
        .exec(db)
        .await?;
    Ok(revoked.rows_affected == 1)
}

/// Notes that a key was used, unless that has been noted within the last minute.
pub async fn touch(store: &Store, lookup: &str, now: DateTime<Utc>) -> Result<()> {
    let stale = Condition::any().add(Column::LastUsedAt.is_null()).add(Column::LastUsedAt.lt(now - LAST_USE_STEP));
    let touch = Entity::update_many()
        .col_expr(Column::LastUsedAt, Expr::value(now))
        .filter(Column::Id.eq(lookup))
        .filter(stale);
    store.write(touch.build(store.backend())).await.map(drop)
}
