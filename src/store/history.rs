//! The history of profiles: one row for each revision.

use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, QueryTrait as _,
};
use uuid::Uuid;

use super::Store;
use crate::{
    entity::profile_change::{Column, Entity, Model},
    error::Result,
};

/// At most `limit` changes of a profile below a revision, the newest first.
pub async fn list(store: &Store, organization: Uuid, profile: Uuid, below: i64, limit: u64) -> Result<Vec<Model>> {
    let changes = Entity::find()
        .filter(Column::OrganizationId.eq(organization))
        .filter(Column::ProfileId.eq(profile))
        .filter(Column::Revision.lt(below));
    store.all(changes.order_by_desc(Column::Revision).limit(limit).build(store.backend())).await
}
