//! The history of profiles: one row for each revision, written in the change's own transaction.

use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, EntityTrait as _, IntoActiveModel as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
};
use uuid::Uuid;

use crate::{
    entity::profile_change::{Column, Entity, Model},
    error::Result,
};

/// Records a change.
pub async fn record(tx: &DatabaseTransaction, change: Model) -> Result<()> {
    Entity::insert(change.into_active_model()).exec_without_returning(tx).await?;
    Ok(())
}

/// At most `limit` changes of a profile below a revision, the newest first.
pub async fn list(
    db: &impl ConnectionTrait,
    organization: Uuid,
    profile: Uuid,
    below: i64,
    limit: u64,
) -> Result<Vec<Model>> {
    let changes = Entity::find()
        .filter(Column::OrganizationId.eq(organization))
        .filter(Column::ProfileId.eq(profile))
        .filter(Column::Revision.lt(below));
    Ok(changes.order_by_desc(Column::Revision).limit(limit).all(db).await?)
}
