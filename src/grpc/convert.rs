//! Between the messages and the rows. A field is spelled once a side; both destructure fully.

use chrono::{DateTime, Datelike as _, SubsecRound as _, Utc};
use prost_types::{FieldMask, Timestamp};
use sea_orm::{IdenStatic as _, Value};
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use super::{
    mask::Mask,
    pb::{
        self,
        case::Status as PbStatus,
        profile::{Gender as PbGender, Role as PbRole},
    },
};
use crate::{
    entity::{
        profile::{Column, Gender, Model, Role},
        profile_case::{self, Status},
        profile_change,
    },
    error::{Error, Result, Violation},
    policy,
    value::{self, Rule},
    write,
};

/// Judges the values of a request and gathers every violation. A value that broke its rule is its type's default, and
/// goes nowhere: `finish` refuses the whole request.
#[derive(Default)]
pub struct Input {
    violations: Vec<Violation>,
}

impl Input {
    /// The value, or its violation.
    pub fn judge<T: Default>(&mut self, field: impl Into<String>, judged: Result<T, Rule>) -> T {
        judged.unwrap_or_else(|rule| {
            self.violations.push(Violation { field: field.into(), rule });
            T::default()
        })
    }

    /// The UUID in the field.
    pub fn id(&mut self, field: &str, text: &str) -> Uuid {
        let text = value::clean(text);
        let parsed = match text.len() {
            0 => Err(Rule::Required),
            36 => Uuid::try_parse(&text).map_err(|_| Rule::Uuid),
            _ => Err(Rule::Uuid),
        };
        self.judge(field, parsed)
    }

    /// The text in the field, or none where it is empty.
    pub fn optional<T>(&mut self, field: &str, text: &str, rule: impl Fn(&str) -> Result<T, Rule>) -> Option<T> {
        self.judge(field, optional(rule)(text.to_owned()))
    }

    /// The text in the field, which must not be empty.
    pub fn required<T: Default>(&mut self, field: &str, text: &str, rule: impl Fn(&str) -> Result<T, Rule>) -> T {
        self.judge(field, required(rule)(text.to_owned()))
    }

    /// What was made of the values, unless one of them broke its rule.
    pub fn finish<T>(self, made: T) -> Result<T> {
        if self.violations.is_empty() { Ok(made) } else { Err(Error::InvalidFields(self.violations)) }
    }

    /// The columns that the message sets under this mask. `prefix` is where the request has the message.
    pub fn columns(
        &mut self,
        prefix: &str,
        message: pb::Profile,
        mask: &Mask,
        now: DateTime<Utc>,
    ) -> Vec<(Column, Value)> {
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
        } = message;
        let mut edit = Edit { input: self, prefix, mask, columns: Vec::new() };
        edit.set(Column::FirstName, first_name, required(value::name));
        edit.set(Column::LastName, last_name, required(value::name));
        edit.set(Column::Email, email, optional(value::email));
        edit.set(Column::Dob, dob, optional(value::date_of_birth(now)));
        edit.set(Column::Gender, gender, gender_in);
        edit.set(Column::PhoneNumber, phone_number, optional(value::phone_number));
        edit.set(Column::Address, address, optional(value::line::<200>));
        edit.set(Column::Address2, address2, optional(value::line::<200>));
        edit.set(Column::City, city, optional(value::line::<100>));
        edit.set(Column::State, state, optional(value::state));
        edit.set(Column::Country, country, optional(value::country));
        edit.set(Column::PostalCode, postal_code, optional(value::postal_code));
        edit.columns
    }
}

/// The columns that one message sets.
struct Edit<'a> {
    input: &'a mut Input,
    prefix: &'a str,
    mask: &'a Mask,
    columns: Vec<(Column, Value)>,
}

impl Edit<'_> {
    /// Sets the column if the mask names it: absent is then as empty.
    fn set<I: Default, T: Into<Value> + Default>(
        &mut self,
        column: Column,
        given: Option<I>,
        rule: impl Fn(I) -> Result<T, Rule>,
    ) {
        if self.mask.names(column, given.is_some()) {
            let field = format!("{}.{}", self.prefix, column.as_str());
            let value = self.input.judge(field, rule(given.unwrap_or_default()));
            self.columns.push((column, value.into()));
        }
    }
}

/// Text that must not be empty.
fn required<T>(rule: impl Fn(&str) -> Result<T, Rule>) -> impl Fn(String) -> Result<T, Rule> {
    move |text| match value::clean(&text).as_str() {
        "" => Err(Rule::Required),
        text => rule(text),
    }
}

/// Text that may be empty, which is none.
fn optional<T>(rule: impl Fn(&str) -> Result<T, Rule>) -> impl Fn(String) -> Result<Option<T>, Rule> {
    move |text| match value::clean(&text).as_str() {
        "" => Ok(None),
        text => rule(text).map(Some),
    }
}

fn gender_in(number: i32) -> Result<Option<Gender>, Rule> {
    match PbGender::try_from(number) {
        Ok(PbGender::Unspecified) => Ok(None),
        Ok(PbGender::Male) => Ok(Some(Gender::Male)),
        Ok(PbGender::Female) => Ok(Some(Gender::Female)),
        Ok(PbGender::Other) => Ok(Some(Gender::Other)),
        Err(_) => Err(Rule::Gender),
    }
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

/// The role in a request.
pub fn role_in(number: i32) -> Result<Role, Rule> {
    match PbRole::try_from(number) {
        Ok(PbRole::User) => Ok(Role::User),
        Ok(PbRole::Provider) => Ok(Role::Provider),
        Ok(PbRole::Support) => Ok(Role::Support),
        Ok(PbRole::Admin) => Ok(Role::Admin),
        Ok(PbRole::Unspecified) | Err(_) => Err(Rule::Role),
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
        let etag = write::etag(&row);
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
            request_id,
            reason,
            ticket,
            case_id,
            lock_overridden,
            fields,
            old_values,
            new_values,
        } = row;
        let (old, new) = (recorded(old_values)?, recorded(new_values)?);
        let field = |column: &str| {
            let (old, new) = (old.get(column), new.get(column));
            match (old, new) {
                // The API says what is locked, not that it is.
                _ if column == Column::Locked.as_str() => pb::FieldChange {
                    field: "locked_fields".to_owned(),
                    old_value: old.map(|_| locked_fields().paths.join(",")),
                    new_value: new.map(|_| locked_fields().paths.join(",")),
                },
                _ => pb::FieldChange { field: column.to_owned(), old_value: old.map(shown), new_value: new.map(shown) },
            }
        };
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
            fields: fields.split_ascii_whitespace().map(field).collect(),
        })
    }
}

/// The recorded values by column; none where there were none.
fn recorded(values: Option<String>) -> Result<Map<String, Json>> {
    let parsed = values.map_or_else(|| Ok(Map::new()), |values| serde_json::from_str(&values));
    parsed.map_err(|error| Error::Internal(format!("history values are no JSON object: {:?}", error.classify())))
}

/// A recorded value as text.
fn shown(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn locked_fields() -> FieldMask {
    FieldMask { paths: policy::lockable().map(|column| column.as_str().to_owned()).collect() }
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
