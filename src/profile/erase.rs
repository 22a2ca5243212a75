//! What becomes of a person who is erased.

use chrono::{DateTime, Utc};
use sea_orm::IdenStatic as _;
use uuid::Uuid;

use super::{
    change::{Author, Change, Erasing},
    history, policy,
};
use crate::{
    entity::{erasure, profile::Model, profile_change},
    error::{Error, Result},
};

/// What is stored where a person is erased: with it all else about the person goes, or is emptied.
#[derive(Clone)]
pub struct Erased {
    pub erasure: erasure::Model,
    /// The last row of the profile's history; none where there is no such profile.
    pub history: Option<profile_change::Model>,
}

/// Erases a profile. A lock must be passed on purpose.
pub fn erase(
    before: &Model,
    author: &Author,
    change: &Change,
    erasing: &Erasing,
    now: DateTime<Utc>,
) -> Result<Erased> {
    if before.locked && !erasing.even_if_locked {
        return Err(Error::DemographicsLocked(policy::lockable().map(|column| column.as_str().to_owned()).collect()));
    }
    let updated_at = now.max(before.updated_at);
    let last = Model { revision: before.revision + 1, updated_at, ..before.clone() };
    let history = history::record(author, change, &last, &[], before.locked);
    Ok(Erased { history: Some(history), ..erased_before(author, before.id, erasing, updated_at) })
}

/// Remembers the erasure of a profile that is not there: after a restore nobody may know it.
pub fn erased_before(author: &Author, id: Uuid, erasing: &Erasing, now: DateTime<Utc>) -> Erased {
    let Erasing { reason_code, even_if_locked: _, erase_time } = erasing;
    let erasure = erasure::Model {
        profile_id: id,
        organization_id: author.organization_id,
        erase_time: erase_time.unwrap_or(now),
        reason_code: *reason_code,
    };
    Erased { erasure, history: None }
}
