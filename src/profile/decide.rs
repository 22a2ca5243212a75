//! What becomes of a change: a pure function of the change and of what was loaded.

use chrono::{DateTime, Utc};
use sea_orm::{IdenStatic as _, ModelTrait as _};
use uuid::Uuid;

use super::{
    change::{Author, Change, Claim, Edit, Target, Written, etag},
    history::{self, Difference},
    policy::{self, Editable, Rpc},
};
use crate::{
    entity::{
        profile::{Column, Model, Role},
        profile_case, profile_change, write_request,
    },
    error::{Error, Result},
};

/// What was loaded for one change.
#[derive(Clone, Copy, Default)]
pub struct Loaded<'a> {
    /// The claim of the change's request id, if someone has it.
    pub claim: Option<&'a write_request::Model>,
    /// The profile that the change, or the write that it repeats, is about. None where the organization has none.
    pub profile: Option<&'a Model>,
    /// The organization that has a profile with the e-mail of the change's target.
    pub target_email_organization: Option<Uuid>,
    /// The profile that has the e-mail which the change sets.
    pub email_owner: Option<Uuid>,
    /// The profile that has the phone number which the change sets.
    pub phone_number_owner: Option<Uuid>,
    /// The reported case as it is stored.
    pub case: Option<&'a profile_case::Model>,
    /// Whether another case locks the profile.
    pub locked_by_another_case: bool,
}

/// What is stored, and what the caller is answered.
#[derive(Clone)]
pub struct Decision {
    pub answer: Written,
    /// The profile's new row with its history, where the change changes anything.
    pub revision: Option<Revision>,
    /// The reported case, where the report supersedes what is stored.
    pub case: Option<profile_case::Model>,
    /// The claim to remember.
    pub claim: Option<write_request::Model>,
}

/// A new revision of a profile.
#[derive(Clone)]
pub struct Revision {
    pub profile: Model,
    pub history: profile_change::Model,
}

/// Decides a change in the order of the contract: claim, profile, role, etag, locked fields, addresses.
///
/// # Errors
///
/// Says why nothing is stored.
pub fn decide(loaded: Loaded<'_>, author: &Author, change: &Change, now: DateTime<Utc>) -> Result<Decision> {
    if let (Some(claim), Some(earlier)) = (&change.claim, loaded.claim) {
        return replay(claim, earlier, loaded.profile);
    }
    let before = target(loaded, author, change)?;
    if change.etag.is_some() && change.etag != before.map(etag) {
        return Err(Error::EtagMismatch);
    }
    let (mut after, case) = edited(loaded, before, author, change, now)?;
    let claim = change.claim.as_ref().map(|claim| remembered(author, change.rpc, claim, after.id, now));
    let differences = history::differences(before, &after)?;
    let stored_case = case.clone().filter(|case| loaded.case != Some(case));
    if differences.is_empty() {
        return Ok(Decision { answer: Written { profile: after, case }, revision: None, case: stored_case, claim });
    }
    let lock_overridden = before.is_some_and(|profile| profile.locked) && overrides(change.rpc, &differences)?;
    addresses_are_free(loaded, &after, &differences)?;
    if change.validate_only {
        return Ok(Decision { answer: Written { profile: after, case }, revision: None, case: None, claim: None });
    }
    after.revision += 1;
    after.updated_at = now.max(after.updated_at);
    let history = history::record(author, change, &after, &differences, lock_overridden);
    let answer = Written { profile: after.clone(), case };
    Ok(Decision { answer, revision: Some(Revision { profile: after, history }), case: stored_case, claim })
}

/// What a repeat answers: the profile as it is now.
fn replay(claim: &Claim, earlier: &write_request::Model, profile: Option<&Model>) -> Result<Decision> {
    if claim.payload_sha256 != earlier.payload_sha256 {
        return Err(Error::RequestIdReused);
    }
    let profile = profile.cloned().ok_or(Error::ProfileNotFound(earlier.profile_id))?;
    Ok(Decision { answer: Written { profile, case: None }, revision: None, case: None, claim: None })
}

/// The profile before the change, which the caller may write to; none where the change creates one.
fn target<'a>(loaded: Loaded<'a>, author: &Author, change: &Change) -> Result<Option<&'a Model>> {
    let profile = match (&change.target, loaded.profile) {
        (Target::New(_), _) => return Ok(None),
        (Target::Id(_) | Target::Email { .. }, Some(profile)) => profile,
        (Target::Id(id), None) => return Err(Error::ProfileNotFound(Some(*id))),
        (Target::Email { sent, .. }, None) => {
            return Err(match loaded.target_email_organization {
                None => Error::UserNotFound(sent.clone()),
                // It came to the organization between the two looks: the next attempt finds it.
                Some(organization) if organization == author.organization_id => Error::TransactionConflict {
                    cause: "the e-mail has just changed hands".to_owned(),
                    retryable: true,
                },
                Some(_) => Error::UserNotInOrganization(sent.clone()),
            });
        }
    };
    if change.rpc.may_write_to(profile.role) { Ok(Some(profile)) } else { Err(Error::UpdateNotAllowed) }
}

/// The profile with the edit on it, and the case as it stands after a report.
fn edited(
    loaded: Loaded<'_>,
    before: Option<&Model>,
    author: &Author,
    change: &Change,
    now: DateTime<Utc>,
) -> Result<(Model, Option<profile_case::Model>)> {
    let mut after = match (before, &change.target) {
        (Some(before), _) => before.clone(),
        (None, Target::New(id)) => blank(*id, author.organization_id, now),
        (None, Target::Id(_) | Target::Email { .. }) => {
            return Err(Error::Internal("a change of a profile has none".to_owned()));
        }
    };
    match &change.edit {
        Edit::Columns(columns) => {
            for (column, value) in columns {
                after.try_set(*column, value.clone())?;
            }
            Ok((after, None))
        }
        Edit::Case(report) => {
            let case = match loaded.case {
                Some(stored) if stored.profile_id != report.profile_id => return Err(Error::CaseOfAnotherProfile),
                Some(stored) if !policy::supersedes(report, stored) => stored,
                Some(_) | None => report,
            };
            after.locked = loaded.locked_by_another_case || policy::locks(case.status);
            Ok((after, Some(case.clone())))
        }
    }
}

/// A profile before its first revision; the edit of a create sets every other column.
fn blank(id: Uuid, organization: Uuid, now: DateTime<Utc>) -> Model {
    Model {
        id,
        organization_id: organization,
        revision: 0,
        locked: false,
        role: Role::default(),
        first_name: String::new(),
        last_name: String::new(),
        email: None,
        dob: None,
        gender: None,
        phone_number: None,
        address: None,
        address2: None,
        city: None,
        state: None,
        country: None,
        postal_code: None,
        created_at: now,
        updated_at: now,
    }
}

/// Whether the write changes locked columns, which only some RPCs may.
fn overrides(rpc: Rpc, differences: &[Difference]) -> Result<bool> {
    let columns = differences.iter().map(|difference| difference.column);
    let locked: Vec<_> = columns.filter(|column| policy::editable(*column) == Editable::UntilCase).collect();
    if locked.is_empty() || rpc.may_override_lock() {
        Ok(!locked.is_empty())
    } else {
        Err(Error::DemographicsLocked(locked.iter().map(|column| column.as_str().to_owned()).collect()))
    }
}

/// Refuses an e-mail or phone number that someone else had when the rows were loaded. The unique indexes judge races.
fn addresses_are_free(loaded: Loaded<'_>, after: &Model, differences: &[Difference]) -> Result<()> {
    let changes = |column: Column| differences.iter().any(|difference| difference.column.as_str() == column.as_str());
    let taken = |owner: Option<Uuid>| owner.is_some_and(|owner| owner != after.id);
    if changes(Column::Email) && taken(loaded.email_owner) {
        Err(Error::EmailInUse)
    } else if changes(Column::PhoneNumber) && taken(loaded.phone_number_owner) {
        Err(Error::PhoneNumberInUse)
    } else {
        Ok(())
    }
}

/// The row that remembers a request id.
fn remembered(author: &Author, rpc: Rpc, claim: &Claim, profile: Uuid, now: DateTime<Utc>) -> write_request::Model {
    write_request::Model {
        organization_id: author.organization_id,
        rpc: rpc.name().to_owned(),
        request_id: claim.request_id.clone(),
        payload_sha256: claim.payload_sha256.clone(),
        profile_id: Some(profile),
        created_at: now,
    }
}
