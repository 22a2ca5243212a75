//! Between the messages and the rows. A field is spelled once a side; both destructure fully.

use chrono::{DateTime, Datelike as _, SubsecRound as _, Utc};
use prost_types::{FieldMask, Timestamp};

use super::{
    mask::Mask,
    pb::{
        self,
        case::Status as PbStatus,
        erase_profile_request::ReasonCode as PbReasonCode,
        profile::{Gender as PbGender, Role as PbRole},
    },
};
use crate::{
    entity::{
        erasure::ReasonCode,
        profile::{Column, Gender, Model, Role},
        profile_case::{self, Status},
        profile_change,
        profile_identifier::Identifier,
    },
    error::{Error, Result},
    profile::{
        change::etag,
        history::{self, FieldChange},
        identifiers, policy,
    },
    value::Rule,
};

/// The columns that the message sets under this mask, as the text that was sent: a named column that is absent is empty.
pub fn columns(message: pb::Profile, mask: &Mask) -> Vec<(Column, String)> {
    let pb::Profile {
        id: _,
        created_date: _,
        updated_date: _,
        etag: _,
        first_name,
        last_name,
        email,
        dob,
        gender,
        phone_number,
        address,
        address2,
        city,
        state,
        country,
        postal_code,
        role: _,
        locked_fields: _,
        identifiers: _, // added and removed by themselves
    } = message;
    let mut columns = Vec::new();
    let mut set = |column: Column, sent: Option<String>| {
        if mask.names(column, sent.is_some()) {
            columns.push((column, sent.unwrap_or_default()));
        }
    };
    set(Column::FirstName, first_name);
    set(Column::LastName, last_name);
    set(Column::Email, email);
    set(Column::Dob, dob);
    set(
        Column::Gender,
        gender.map(|number| name(number, PbGender::try_from(number).map(|gender| gender.as_str_name()))),
    );
    set(Column::PhoneNumber, phone_number);
    set(Column::Address, address);
    set(Column::Address2, address2);
    set(Column::City, city);
    set(Column::State, state);
    set(Column::Country, country);
    set(Column::PostalCode, postal_code);
    columns
}

impl From<Identifier> for pb::Identifier {
    fn from(identifier: Identifier) -> Self {
        let Identifier { system, value } = identifier;
        Self { system, value }
    }
}

/// An identifier as it was sent: its system and its value.
pub fn pair(identifier: pb::Identifier) -> (String, String) {
    let pb::Identifier { system, value } = identifier;
    (system, value)
}

/// The role that a request sets.
pub fn role(number: i32) -> (Column, String) {
    (Column::Role, name(number, PbRole::try_from(number).map(|role| role.as_str_name())))
}

/// The name of an enum's value, or a number that has none.
fn name<E>(number: i32, name: Result<&str, E>) -> String {
    name.map_or_else(|_| number.to_string(), str::to_owned)
}

const fn gender_out(gender: Gender) -> PbGender {
    match gender {
        Gender::Male => PbGender::Male,
        Gender::Female => PbGender::Female,
        Gender::Other => PbGender::Other,
    }
}

const fn role_out(role: Role) -> PbRole {
    match role {
        Role::User => PbRole::User,
        Role::Provider => PbRole::Provider,
        Role::Support => PbRole::Support,
        Role::Admin => PbRole::Admin,
    }
}

/// The status of a case in a request.
pub fn status_in(number: i32) -> Result<Status, Rule> {
    match PbStatus::try_from(number) {
        Ok(PbStatus::Open) => Ok(Status::Open),
        Ok(PbStatus::Assigned) => Ok(Status::Assigned),
        Ok(PbStatus::InProgress) => Ok(Status::InProgress),
        Ok(PbStatus::Approved) => Ok(Status::Approved),
        Ok(PbStatus::Rejected) => Ok(Status::Rejected),
        Ok(PbStatus::NoDecision) => Ok(Status::NoDecision),
        Ok(PbStatus::Cancelled) => Ok(Status::Cancelled),
        Ok(PbStatus::Unspecified) | Err(_) => Err(Rule::CaseStatus),
    }
}

/// The reason of an erasure in a request.
pub fn reason_code_in(number: i32) -> Result<ReasonCode, Rule> {
    match PbReasonCode::try_from(number) {
        Ok(PbReasonCode::RequestOfPerson) => Ok(ReasonCode::RequestOfPerson),
        Ok(PbReasonCode::Retention) => Ok(ReasonCode::Retention),
        Ok(PbReasonCode::CreatedByMistake) => Ok(ReasonCode::CreatedByMistake),
        Ok(PbReasonCode::LegalOrder) => Ok(ReasonCode::LegalOrder),
        Ok(PbReasonCode::Unspecified) | Err(_) => Err(Rule::ReasonCode),
    }
}

const fn status_out(status: Status) -> PbStatus {
    match status {
        Status::Open => PbStatus::Open,
        Status::Assigned => PbStatus::Assigned,
        Status::InProgress => PbStatus::InProgress,
        Status::Approved => PbStatus::Approved,
        Status::Rejected => PbStatus::Rejected,
        Status::NoDecision => PbStatus::NoDecision,
        Status::Cancelled => PbStatus::Cancelled,
    }
}

/// The answer of every RPC that answers a profile.
impl From<Model> for pb::Profile {
    fn from(row: Model) -> Self {
        let (etag, identifiers) = (etag(&row), identifiers::of(&row));
        let Model {
            id,
            organization_id: _,
            revision,
            locked,
            role,
            first_name,
            last_name,
            email,
            dob,
            gender,
            phone_number,
            address,
            address2,
            city,
            state,
            country,
            postal_code,
            identifiers: _, // as pairs, above
            created_at,
            updated_at,
        } = row;
        let stored = revision > 0; // a create that was only validated has no id, version or dates
        Self {
            id: if stored { id.to_string() } else { String::new() },
            created_date: stored.then(|| timestamp(created_at)),
            updated_date: stored.then(|| timestamp(updated_at)),
            etag: if stored { etag } else { String::new() },
            first_name: Some(first_name),
            last_name: Some(last_name),
            email,
            dob: dob.map(|date| date.to_string()),
            gender: gender.map(|gender| gender_out(gender).into()),
            phone_number,
            address,
            address2,
            city,
            state,
            country,
            postal_code,
            role: role_out(role).into(),
            locked_fields: locked.then(locked_fields),
            identifiers: identifiers.into_iter().map(pb::Identifier::from).collect(),
        }
    }
}

impl From<profile_case::Model> for pb::Case {
    fn from(row: profile_case::Model) -> Self {
        let profile_case::Model { organization_id: _, case_id, profile_id, status, status_time } = row;
        Self {
            case_id,
            profile_id: profile_id.to_string(),
            status: status_out(status).into(),
            status_time: Some(timestamp(status_time)),
        }
    }
}

impl From<profile_case::Model> for pb::ProfileCase {
    fn from(row: profile_case::Model) -> Self {
        Self { locks: policy::locks(row.status), case: Some(row.into()) }
    }
}

impl TryFrom<profile_change::Model> for pb::ProfileChange {
    type Error = Error;

    fn try_from(row: profile_change::Model) -> Result<Self> {
        let profile_change::Model {
            profile_id: _,
            revision,
            organization_id: _,
            changed_at,
            rpc,
            key_id,
            key_name,
            actor,
            request_id,
            reason,
            ticket,
            case_id,
            lock_overridden,
            fields,
            old_values,
            new_values,
        } = row;
        let fields = history::field_changes(&fields, old_values.as_deref(), new_values.as_deref())?;
        Ok(Self {
            revision,
            change_time: Some(timestamp(changed_at)),
            key_id,
            key_name,
            rpc,
            request_id: request_id.unwrap_or_default(),
            reason: reason.unwrap_or_default(),
            ticket: ticket.unwrap_or_default(),
            case_id: case_id.unwrap_or_default(),
            lock_overridden,
            fields: fields.into_iter().map(pb::FieldChange::from).collect(),
            actor: actor.unwrap_or_default(),
        })
    }
}

impl From<FieldChange> for pb::FieldChange {
    fn from(change: FieldChange) -> Self {
        let FieldChange { field, old_value, new_value } = change;
        Self { field, old_value, new_value }
    }
}

fn locked_fields() -> FieldMask {
    FieldMask { paths: history::locked_fields().into_iter().map(str::to_owned).collect() }
}

/// The time as a message.
pub fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp { seconds: time.timestamp(), nanos: time.timestamp_subsec_nanos().cast_signed() }
}

/// The time in a message, cut to microseconds, as the database keeps it.
pub fn time(message: Timestamp) -> Result<DateTime<Utc>, Rule> {
    let nanos = u32::try_from(message.nanos).ok().filter(|nanos| *nanos < 1_000_000_000).ok_or(Rule::Time)?;
    let time = DateTime::from_timestamp(message.seconds, nanos).ok_or(Rule::Time)?;
    if (1..=9999).contains(&time.year()) { Ok(time.trunc_subsecs(6)) } else { Err(Rule::Time) }
}
