//! The order of every write, within its transaction, with its history.

use chrono::{DateTime, Utc};
use sea_orm::{
    ActiveModelTrait as _, ActiveValue::Set, DatabaseTransaction, IdenStatic as _, IntoActiveModel as _, Iterable as _,
    TryIntoModel as _,
};
use secrecy::SecretString;
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use crate::{
    entity::{
        profile::{ActiveModel, Column, Model, Role},
        profile_case, profile_change, write_request,
    },
    error::{Error, Result},
    profile::{
        change::{Author, Change, Claim, Edit, Target, Written, etag},
        policy::{self, Editable, Rpc},
    },
    store, telemetry,
};

/// A column that changes, with its values as the history keeps them.
struct Difference {
    column: Column,
    old: Json,
    new: Json,
}

/// Makes the change within the transaction, or says why not.
pub async fn apply(tx: &DatabaseTransaction, author: &Author, change: &Change, now: DateTime<Utc>) -> Result<Written> {
    let claim = change.claim.as_ref().map(|claim| remembered(author, change, claim, now));
    if let Some(claim) = &claim
        && let Some(earlier) = store::request::claim(tx, claim.clone()).await?
    {
        return Ok(Written { profile: replay(tx, claim, &earlier).await?, case: None });
    }

    let (before, mut row) = start(tx, author, change, now).await?;
    if change.etag.is_some() && change.etag != before.as_ref().map(etag) {
        return Err(Error::EtagMismatch);
    }
    let case = edit(tx, &mut row, &change.edit).await?;
    let after = row.clone().try_into_model()?;
    if let Some(claim) = claim.filter(|claim| claim.profile_id.is_none()) {
        store::request::set_profile(tx, claim, after.id).await?;
    }

    let differences = differences(before.as_ref(), &after)?;
    if differences.is_empty() {
        return Ok(Written { profile: after, case });
    }
    let lock_overridden = before.as_ref().is_some_and(|profile| profile.locked) && overrides(change.rpc, &differences)?;
    let saved = Model { revision: after.revision + 1, updated_at: now.max(after.updated_at), ..after };
    row.revision = Set(saved.revision);
    row.updated_at = Set(saved.updated_at);
    match before {
        None => store::profile::insert(tx, row).await?,
        Some(_) => store::profile::update(tx, row).await?,
    }
    store::history::record(tx, history(author, change, &saved, &differences, lock_overridden)).await?;
    if change.validate_only {
        return Ok(Written { profile: unstored(before, saved), case });
    }
    telemetry::note_profile(saved.id);
    Ok(Written { profile: saved, case })
}

/// Puts the edit onto the row, as far as it changes anything, and answers the case that was reported.
async fn edit(tx: &DatabaseTransaction, row: &mut ActiveModel, edit: &Edit) -> Result<Option<profile_case::Model>> {
    match edit {
        Edit::Columns(columns) => {
            for (column, value) in columns {
                row.set_if_not_equals(*column, value.clone());
            }
            Ok(None)
        }
        Edit::Case(report) => {
            let case = store::case::report(tx, report.clone()).await?;
            let locked = store::case::any_locks(tx, case.organization_id, case.profile_id).await?;
            row.locked.set_if_not_equals(locked);
            Ok(Some(case))
        }
    }
}

/// What a repeat answers: the profile as it is now.
async fn replay(
    tx: &DatabaseTransaction,
    claim: &write_request::Model,
    earlier: &write_request::Model,
) -> Result<Model> {
    if claim.payload_sha256 != earlier.payload_sha256 {
        return Err(Error::RequestIdReused);
    }
    let id = earlier.profile_id.unwrap_or_default();
    telemetry::note_profile(id);
    store::profile::find(tx, claim.organization_id, id).await?.ok_or(Error::ProfileNotFound(Some(id)))
}

/// The profile before the write, locked, if there is one, and the row to be.
async fn start(
    tx: &DatabaseTransaction,
    author: &Author,
    change: &Change,
    now: DateTime<Utc>,
) -> Result<(Option<Model>, ActiveModel)> {
    let organization = author.organization_id;
    let profile = match &change.target {
        Target::New(id) => return Ok((None, blank(*id, organization, now))),
        Target::Id(id) => {
            store::profile::lock(tx, organization, *id).await?.ok_or(Error::ProfileNotFound(Some(*id)))?
        }
        Target::Email { email, sent } => match store::profile::lock_by_email(tx, organization, email).await? {
            Some(profile) => profile,
            None => return Err(nobody_here(store::profile::owner_of_email(tx, email).await?, organization, sent)),
        },
    };
    telemetry::note_profile(profile.id);
    if change.rpc.may_write_to(profile.role) {
        Ok((Some(profile.clone()), profile.into_active_model()))
    } else {
        Err(Error::UpdateNotAllowed)
    }
}

/// Why the organization has no profile with an e-mail whose owner is another one, or none.
fn nobody_here(owner: Option<Uuid>, organization: Uuid, sent: &SecretString) -> Error {
    match owner {
        None => Error::UserNotFound(sent.clone()),
        // It came here between the two looks at it: the next attempt finds it.
        Some(owner) if owner == organization => {
            Error::TransactionConflict { cause: "the e-mail has just changed hands".to_owned(), retryable: true }
        }
        Some(_) => Error::UserNotInOrganization(sent.clone()),
    }
}

/// A profile before its first revision; the edit of a create sets every other column.
fn blank(id: Uuid, organization: Uuid, now: DateTime<Utc>) -> ActiveModel {
    ActiveModel {
        id: Set(id),
        organization_id: Set(organization),
        revision: Set(0),
        locked: Set(false),
        role: Set(Role::default()),
        created_at: Set(now),
        updated_at: Set(now),
        ..Default::default()
    }
}

/// What changes, by value: a column that is set to what it has is no change.
fn differences(before: Option<&Model>, after: &Model) -> Result<Vec<Difference>> {
    let (mut old, mut new) = (before.map_or_else(|| Ok(Map::new()), recorded)?, recorded(after)?);
    let compare = |column: Column| Difference {
        column,
        old: old.remove(column.as_str()).unwrap_or_default(),
        new: new.remove(column.as_str()).unwrap_or_default(),
    };
    let tracked = Column::iter().filter(|column| policy::editable(*column) != Editable::Never);
    Ok(tracked.map(compare).filter(|difference| difference.old != difference.new).collect())
}

/// A row by column, as the history keeps it: what is empty or false is not there, as in an answer.
fn recorded(profile: &Model) -> Result<Map<String, Json>> {
    match serde_json::to_value(profile) {
        Ok(Json::Object(mut columns)) => {
            columns.retain(|_, value| !matches!(value, Json::Null | Json::Bool(false)));
            Ok(columns)
        }
        Ok(_) | Err(_) => Err(Error::Internal("a row does not serialize to an object".to_owned())),
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

/// The history's row of a change.
fn history(
    author: &Author,
    change: &Change,
    saved: &Model,
    differences: &[Difference],
    lock_overridden: bool,
) -> profile_change::Model {
    let values = |side: fn(&Difference) -> &Json| {
        let present = differences.iter().filter(|difference| !side(difference).is_null());
        let values: Map<_, _> =
            present.map(|difference| (difference.column.as_str().to_owned(), side(difference).clone())).collect();
        (!values.is_empty()).then(|| Json::Object(values).to_string())
    };
    profile_change::Model {
        profile_id: saved.id,
        revision: saved.revision,
        organization_id: saved.organization_id,
        changed_at: saved.updated_at,
        rpc: change.rpc.name().to_owned(),
        key_id: author.key_id.clone(),
        key_name: author.key_name.clone(),
        request_id: change.claim.as_ref().map(|claim| claim.request_id.clone()),
        reason: change.audit.reason.clone(),
        ticket: change.audit.ticket.clone(),
        case_id: match &change.edit {
            Edit::Columns(_) => None,
            Edit::Case(report) => Some(report.case_id.clone()),
        },
        lock_overridden,
        fields: differences.iter().map(|difference| difference.column.as_str()).collect::<Vec<_>>().join(" "),
        old_values: values(|difference| &difference.old),
        new_values: values(|difference| &difference.new),
    }
}

/// The row that remembers a request id.
fn remembered(author: &Author, change: &Change, claim: &Claim, now: DateTime<Utc>) -> write_request::Model {
    write_request::Model {
        organization_id: author.organization_id,
        rpc: change.rpc.name().to_owned(),
        request_id: claim.request_id.clone(),
        payload_sha256: claim.payload_sha256.clone(),
        profile_id: match change.target {
            Target::New(id) | Target::Id(id) => Some(id),
            Target::Email { .. } => None,
        },
        created_at: now,
    }
}

/// The profile as a write would leave it, with the version and dates it has without the write: revision 0 if it is not
/// stored at all.
fn unstored(before: Option<Model>, after: Model) -> Model {
    let (revision, updated_at) = before.map_or((0, after.updated_at), |before| (before.revision, before.updated_at));
    Model { revision, updated_at, ..after }
}
