//! Remembered request ids.

use sea_orm::{ActiveValue::Set, DatabaseTransaction, EntityTrait as _, TryInsertResult};
use uuid::Uuid;

use crate::{
    entity::write_request::{ActiveModel, Entity, Model},
    error::{Error, Result},
};

/// Claims the request id, or answers the claim that was there before. Waits for one that is not yet decided.
pub async fn claim(tx: &DatabaseTransaction, claim: Model) -> Result<Option<Model>> {
    let key = (claim.organization_id, claim.rpc.clone(), claim.request_id.clone());
    let claimed = Entity::insert(ActiveModel::from(claim)).on_conflict_do_nothing().exec_without_returning(tx).await?;
    if let TryInsertResult::Inserted(1) = claimed {
        return Ok(None);
    }
    let earlier = Entity::find_by_id(key).one(tx).await?;
    earlier.map(Some).ok_or_else(|| Error::Internal("a claimed request id has no row".to_owned()))
}

/// Notes whose profile the claimed write is about, where the claim could not know.
pub async fn set_profile(tx: &DatabaseTransaction, claim: Model, profile: Uuid) -> Result<()> {
    let row = ActiveModel { profile_id: Set(Some(profile)), ..claim.into() };
    Entity::update(row).exec(tx).await?;
    Ok(())
}
