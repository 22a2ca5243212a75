//! Organizations.

use chrono::{DateTime, Utc};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, ExprTrait as _, IntoActiveModel as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, QueryTrait as _, SqlErr, TryInsertResult, sea_query::Expr,
};
use uuid::Uuid;

use super::Store;

use crate::{
    entity::organization::{Column, Entity, Model},
    error::Result,
};

/// Stores an organization; false where the name is taken.
pub async fn create(db: &impl ConnectionTrait, organization: Model) -> Result<bool> {
    let created = Entity::insert(organization.into_active_model())
        .on_conflict_do_nothing_on([Column::Name])
        .exec_without_returning(db)
        .await?;
    Ok(matches!(created, TryInsertResult::Inserted(1)))
}

/// The organization with this name.
pub async fn find(db: &impl ConnectionTrait, name: &str) -> Result<Option<Model>> {
    Ok(Entity::find().filter(Column::Name.eq(name)).one(db).await?)
}

/// The organization with this id.
pub async fn find_by_id(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<Model>> {
    Ok(Entity::find_by_id(id).one(db).await?)
}

/// Renames an organization; false where another one has the name.
pub async fn rename(db: &impl ConnectionTrait, id: Uuid, name: &str) -> Result<bool> {
    let rename = Entity::update_many().col_expr(Column::Name, Expr::value(name)).filter(Column::Id.eq(id));
    match rename.exec(db).await {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Disables an organization, or enables it. One that is disabled already keeps its date.
pub async fn set_disabled(db: &impl ConnectionTrait, id: Uuid, since: Option<DateTime<Utc>>) -> Result<()> {
    let disabled_at = match since {
        Some(now) => Expr::col(Column::DisabledAt).if_null(now),
        None => Expr::value(None::<DateTime<Utc>>),
    };
    let set = Entity::update_many().col_expr(Column::DisabledAt, disabled_at).filter(Column::Id.eq(id));
    set.exec(db).await?;
    Ok(())
}

/// The organization with this id, for a call: in time, and from whichever connection is free.
pub async fn look_up(store: &Store, id: Uuid) -> Result<Option<Model>> {
    Ok(store.all(Entity::find_by_id(id).build(store.backend())).await?.pop())
}

/// The organization with this name, which nobody else locks until the transaction ends: its keys are made one at a time.
pub async fn lock(db: &impl ConnectionTrait, name: &str) -> Result<Option<Model>> {
    Ok(Entity::find().filter(Column::Name.eq(name)).lock_exclusive().one(db).await?)
}

/// All organizations, by name.
pub async fn list(db: &impl ConnectionTrait) -> Result<Vec<Model>> {
    Ok(Entity::find().order_by_asc(Column::Name).all(db).await?)
}
