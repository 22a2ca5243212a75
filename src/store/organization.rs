//! Organizations.

use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, IntoActiveModel as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, QueryTrait as _, TryInsertResult,
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
