//! By what a line of an import finds the person whom it is about.

use std::{collections::HashMap, fmt, str::FromStr};

use sea_orm::{IdenStatic as _, Value};
use uuid::Uuid;

use super::errors::Violation;
use crate::{
    entity::profile::{Column, Model},
    error::{Error, Result},
    profile::{change::Edit, identifiers},
    store::{self, PinnedConnection},
    value,
};

/// What is unique to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpsertBy {
    Email,
    PhoneNumber,
    /// The identifier of this system.
    Identifier(String),
}

impl FromStr for UpsertBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("identifier:")) {
            ("email", _) => Ok(Self::Email),
            ("phone_number", _) => Ok(Self::PhoneNumber),
            (_, Some(system)) => {
                let system = value::system(system).map_err(|rule| format!("the system {rule}"))?;
                Ok(Self::Identifier(system))
            }
            _ => Err("it is `email`, `phone_number` or `identifier:SYSTEM`".to_owned()),
        }
    }
}

impl fmt::Display for UpsertBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Email => f.write_str("email"),
            Self::PhoneNumber => f.write_str("phone_number"),
            Self::Identifier(system) => write!(f, "identifier:{system}"),
        }
    }
}

impl UpsertBy {
    /// What a line has of it, in its stored form: exactly one.
    pub fn key(&self, edit: &Edit) -> Result<String, Violation> {
        let column = match self {
            Self::Email => Column::Email,
            Self::PhoneNumber => Column::PhoneNumber,
            Self::Identifier(system) => {
                let mut of_system = edit.added().iter().filter(|identifier| identifier.system == *system);
                return match (of_system.next(), of_system.next()) {
                    (Some(identifier), None) => Ok(identifier.value.clone()),
                    (Some(_), Some(_)) => Err(self.broken("identifiers", "TOO_MANY", "must not be more than one of")),
                    (None, _) => Err(self.broken("identifiers", "REQUIRED", "must have one of")),
                };
            }
        };
        let columns = match edit {
            Edit::Set { columns, identifiers: _ } => columns.as_slice(),
            Edit::Remove(_) | Edit::Case(_) | Edit::Erase(_) => &[],
        };
        let text = columns.iter().find_map(|(set, value)| match value {
            Value::String(Some(text)) if set.as_str() == column.as_str() => Some(text.clone()),
            _ => None,
        });
        text.ok_or_else(|| self.broken(column.as_str(), "REQUIRED", "is required by"))
    }

    fn broken(&self, field: &str, reason: &str, rule: &str) -> Violation {
        let description = format!("{rule} --upsert-by {self}");
        Violation { field: field.to_owned(), reason: reason.to_owned(), description }
    }

    /// Whom these keys find in the organization, with their rows locked: the id and the revision of each.
    pub async fn find(
        &self,
        connection: &mut PinnedConnection,
        organization: Uuid,
        keys: &[String],
    ) -> Result<HashMap<String, (Uuid, i64)>> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let owners: Vec<(String, Uuid)> = match self {
            Self::Email | Self::PhoneNumber => {
                let (emails, numbers) = if *self == Self::Email { (keys, &[][..]) } else { (&[][..], keys) };
                let owners = store::profile::owners(connection, emails, numbers).await?;
                let ours = owners.into_iter().filter(|owner| owner.organization_id == organization);
                ours.filter_map(|owner| {
                    Some((if *self == Self::Email { owner.email? } else { owner.phone_number? }, owner.id))
                })
                .collect()
            }
            Self::Identifier(system) => {
                let keys: Vec<_> = keys.iter().map(|key| (organization, system.clone(), key.clone())).collect();
                let rows = store::identifier::load(connection, &keys).await?;
                rows.into_iter().map(|row| (row.value, row.profile_id)).collect()
            }
        };
        let ids: Vec<_> = owners.iter().map(|(_, id)| *id).collect();
        let locked = store::profile::lock(connection, &[organization], &ids, &[]).await?;
        let found: HashMap<_, _> = locked
            .iter()
            .flat_map(|profile| self.keys(profile).into_iter().map(|key| (key, (profile.id, profile.revision))))
            .collect();
        if owners.iter().all(|(key, id)| found.get(key).is_some_and(|(found, _)| found == id)) {
            return Ok(found);
        }
        Err(Error::TransactionConflict { cause: "a key has just changed hands".to_owned(), retryable: true })
    }

    /// What finds this profile.
    fn keys(&self, profile: &Model) -> Vec<String> {
        match self {
            Self::Email => profile.email.clone().into_iter().collect(),
            Self::PhoneNumber => profile.phone_number.clone().into_iter().collect(),
            Self::Identifier(system) => {
                let of_system = identifiers::of(profile).into_iter().filter(|identifier| identifier.system == *system);
                of_system.map(|identifier| identifier.value).collect()
            }
        }
    }
}
