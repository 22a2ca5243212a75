//! The rule of each field, and all violations of a request at once.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sea_orm::{ActiveEnum as _, IdenStatic as _, Value};
use uuid::Uuid;

use super::identifiers::MOST;
use crate::{
    entity::{
        profile::{Column, Gender, Role},
        profile_identifier::Identifier,
    },
    error::{Error, Result, Violation},
    value::{self, Rule},
};

/// How many violations a request is told of at the most, and how many bytes of headers they fill: most clients take 8 KiB.
const NAMED_VIOLATIONS: usize = 20;
const LARGEST_VIOLATIONS: usize = 7500;

/// Judges the values of a request and gathers every violation. A value that broke its rule is its type's default, and
/// goes nowhere: `finish` refuses the whole request.
pub struct Input {
    violations: Vec<Violation>,
}

impl Input {
    /// Begins to judge what has no metadata, or whose metadata is judged elsewhere. A handler begins with `auth::input`.
    pub const fn without_metadata() -> Self {
        Self { violations: Vec::new() }
    }

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
        self.judge(field, optional(text, rule))
    }

    /// The text in the field, which must not be empty.
    pub fn required<T: Default>(&mut self, field: &str, text: &str, rule: impl Fn(&str) -> Result<T, Rule>) -> T {
        self.judge(field, required(text, rule))
    }

    /// The columns that a request sets, each by its rule. Violations name their fields after this prefix.
    pub fn columns(&mut self, prefix: &str, sent: Vec<(Column, String)>, now: DateTime<Utc>) -> Vec<(Column, Value)> {
        let mut columns = Vec::with_capacity(sent.len());
        for (column, text) in sent {
            match stored(column, &text, now) {
                Ok(value) => columns.push((column, value)),
                Err(rule) => {
                    self.violations.push(Violation { field: format!("{prefix}{}", column.as_str()), rule });
                }
            }
        }
        columns
    }

    /// What a system calls a person. Violations name their fields after this prefix.
    pub fn identifier(&mut self, prefix: &str, system: &str, value: &str) -> Identifier {
        Identifier {
            system: self.required(&format!("{prefix}system"), system, value::system),
            value: self.required(&format!("{prefix}value"), value, value::name_there),
        }
    }

    /// What systems call a person, by system and value: the same pair twice counts once.
    pub fn identifiers(&mut self, field: &str, sent: &[(String, String)]) -> Vec<Identifier> {
        let distinct: BTreeSet<_> =
            sent.iter().map(|(system, value)| [system, value].map(|text| value::clean(text))).collect();
        if distinct.len() > MOST {
            self.judge::<()>(field, Err(Rule::TooMany(MOST)));
        }
        let judged = sent.iter().enumerate();
        judged.map(|(n, (system, value))| self.identifier(&format!("{field}[{n}]."), system, value)).collect()
    }

    /// What was made of the values, unless one of them broke its rule.
    pub fn finish<T>(self, made: T) -> Result<T> {
        self.and(Ok(made))
    }

    /// What was made of the rest of the request, unless a value broke its rule here or there.
    pub fn and<T>(mut self, rest: Result<T>) -> Result<T> {
        let made = match rest {
            Ok(made) => Some(made),
            Err(Error::InvalidFields(violations)) => {
                self.violations.extend(violations);
                None
            }
            Err(error) => return Err(error),
        };
        let mut room = LARGEST_VIOLATIONS;
        let fits = |violation: &&Violation| {
            room = room.saturating_sub(size_in_headers(violation));
            room > 0
        };
        let named = self.violations.iter().take(NAMED_VIOLATIONS).take_while(fits).count().max(1);
        self.violations.truncate(named);
        made.filter(|_| self.violations.is_empty()).ok_or(Error::InvalidFields(self.violations))
    }
}

/// About how many bytes of headers a violation fills: it is in the message, where a space is three bytes, and twice in the
/// details, which are base64.
fn size_in_headers(Violation { field, rule }: &Violation) -> usize {
    4 * (field.len() + rule.to_string().len()) + 50
}

/// The form in which a column stores this text. Exhaustive: a new column does not compile until someone has decided.
fn stored(column: Column, text: &str, now: DateTime<Utc>) -> Result<Value, Rule> {
    Ok(match column {
        Column::FirstName | Column::LastName => required(text, value::name)?.into(),
        Column::Email => optional(text, value::email)?.into(),
        Column::Dob => optional(text, value::date_of_birth(now))?.into(),
        Column::Gender => gender(text)?.into(),
        Column::PhoneNumber => optional(text, value::phone_number)?.into(),
        Column::Address | Column::Address2 => optional(text, value::line::<200>)?.into(),
        Column::City => optional(text, value::line::<100>)?.into(),
        Column::State => optional(text, value::state)?.into(),
        Column::Country => optional(text, value::country)?.into(),
        Column::PostalCode => optional(text, value::postal_code)?.into(),
        Column::Role => role(text)?.into(),
        Column::Id
        | Column::OrganizationId
        | Column::Revision
        | Column::Locked
        | Column::Identifiers
        | Column::CreatedAt
        | Column::UpdatedAt => return Err(Rule::OutputOnly),
    })
}

/// Text that must not be empty.
fn required<T>(text: &str, rule: impl Fn(&str) -> Result<T, Rule>) -> Result<T, Rule> {
    optional(text, rule)?.ok_or(Rule::Required)
}

/// Text that may be empty, which is none.
fn optional<T>(text: &str, rule: impl Fn(&str) -> Result<T, Rule>) -> Result<Option<T>, Rule> {
    match &*value::clean(text) {
        "" => Ok(None),
        text => rule(text).map(Some),
    }
}

/// A gender by its name in the contract, which is its stored form too.
fn gender(name: &str) -> Result<Option<Gender>, Rule> {
    match name {
        "" | "GENDER_UNSPECIFIED" => Ok(None),
        name => Gender::try_from_value(&name.to_owned()).map(Some).map_err(|_| Rule::Gender),
    }
}

/// A role by its name in the contract, which is its stored form too.
fn role(name: &str) -> Result<Role, Rule> {
    Role::try_from_value(&name.to_owned()).map_err(|_| Rule::Role)
}
