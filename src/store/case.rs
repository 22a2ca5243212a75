//! Cases about profiles.

use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, DatabaseTransaction, EntityTrait as _, IntoActiveModel as _,
    Iterable as _, QueryFilter as _, QuerySelect as _, TryInsertResult,
};
use uuid::Uuid;

use crate::{
    entity::profile_case::{Column, Entity, Model, Status},
    error::{Error, Result},
    profile::policy,
};

/// Stores a report unless a better one is there, and answers the case as it is stored. The profile must be locked: the
/// order of locks is profile, then case.
pub async fn report(tx: &DatabaseTransaction, report: Model) -> Result<Model> {
    let first = Entity::insert(report.clone().into_active_model());
    if let TryInsertResult::Inserted(1) = first.on_conflict_do_nothing().exec_without_returning(tx).await? {
        return Ok(report);
    }
    let key = (report.organization_id, report.case_id.clone());
    let stored = Entity::find_by_id(key).lock_exclusive().one(tx).await?;
    let stored = stored.ok_or_else(|| Error::Internal("a reported case has no row".to_owned()))?;
    if stored.profile_id != report.profile_id {
        Err(Error::CaseOfAnotherProfile)
    } else if policy::supersedes(&report, &stored) {
        Ok(report.into_active_model().reset_all().update(tx).await?)
    } else {
        Ok(stored)
    }
}

/// Whether any case of the profile locks it.
pub async fn any_locks(tx: &DatabaseTransaction, organization: Uuid, profile: Uuid) -> Result<bool> {
    let locking = Entity::find()
        .filter(Column::OrganizationId.eq(organization))
        .filter(Column::ProfileId.eq(profile))
        .filter(Column::Status.is_in(Status::iter().filter(|status| policy::locks(*status))));
    Ok(locking.one(tx).await?.is_some())
}
