//! Remembered request ids.

use chrono::{DateTime, Utc};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, EntityTrait as _, ExprTrait as _, QueryFilter as _,
    TryInsertResult,
    sea_query::{Expr, Query},
};
use uuid::Uuid;

use crate::{
    entity::write_request::{ActiveModel, Column, Entity, Model},
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
    let swept = || Error::TransactionConflict { cause: "a request id was just swept".to_owned(), retryable: true };
    earlier.map(Some).ok_or_else(swept)
}

/// How many ids one step of a sweep forgets: few, so that no write waits for it.
const SWEEP_STEP: u64 = 500;

/// Forgets ids that were claimed before this time, a few of them; true while there may be more.
pub async fn sweep(db: &impl ConnectionTrait, before: DateTime<Utc>) -> Result<bool> {
    let key = [Column::OrganizationId, Column::Rpc, Column::RequestId];
    let old =
        Query::select().columns(key).from(Entity).and_where(Column::CreatedAt.lt(before)).limit(SWEEP_STEP).take();
    let swept = Entity::delete_many().filter(Expr::tuple(key.map(Expr::col)).in_subquery(old)).exec(db).await?;
    Ok(swept.rows_affected == SWEEP_STEP)
}

/// Notes whose profile the claimed write is about, where the claim could not know.
pub async fn set_profile(tx: &DatabaseTransaction, claim: Model, profile: Uuid) -> Result<()> {
    let row = ActiveModel { profile_id: Set(Some(profile)), ..claim.into() };
    Entity::update(row).exec(tx).await?;
    Ok(())
}
