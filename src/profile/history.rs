//! The history of a profile: what a change is recorded as, and how a record is read.

use sea_orm::{IdenStatic as _, Iterable as _};
use serde_json::{Map, Value as Json};

use super::{
    change::{Author, Change, Edit},
    identifiers,
    policy::{self, Editable, Rpc},
};
use crate::{
    entity::{
        profile::{Column, Model},
        profile_change,
        profile_identifier::Identifier,
    },
    error::{Error, Result},
};

/// A column that changes, with its values as the history keeps them.
pub struct Difference {
    pub column: Column,
    old: Json,
    new: Json,
}

/// What changes, by value: a column that is set to what it has is no change.
pub fn differences(before: Option<&Model>, after: &Model) -> Result<Vec<Difference>> {
    let (mut old, mut new) = (before.map_or_else(|| Ok(Map::new()), columns)?, columns(after)?);
    let compare = |column: Column| match column {
        // What is kept of them is what was added and what was removed.
        Column::Identifiers => Difference {
            column,
            old: texts(&identifiers::gained(Some(after), before)),
            new: texts(&identifiers::gained(before, Some(after))),
        },
        _ => Difference {
            column,
            old: old.remove(column.as_str()).unwrap_or_default(),
            new: new.remove(column.as_str()).unwrap_or_default(),
        },
    };
    let tracked = Column::iter().filter(|column| policy::editable(*column) != Editable::Never);
    Ok(tracked.map(compare).filter(|difference| difference.old != difference.new).collect())
}

/// Identifiers, as the history keeps them: none is not there.
fn texts(identifiers: &[Identifier]) -> Json {
    if identifiers.is_empty() { Json::Null } else { identifiers.iter().map(Identifier::text).collect() }
}

/// A row by column, as the history keeps it: what is empty or false is not there, as in an answer.
fn columns(profile: &Model) -> Result<Map<String, Json>> {
    match serde_json::to_value(profile) {
        Ok(Json::Object(mut columns)) => {
            columns.retain(|_, value| !matches!(value, Json::Null | Json::Bool(false)));
            Ok(columns)
        }
        Ok(_) | Err(_) => Err(Error::Internal("a row does not serialize to an object".to_owned())),
    }
}

/// The history's row of a change that leaves this profile.
pub fn record(
    author: &Author,
    change: &Change,
    after: &Model,
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
        profile_id: after.id,
        revision: after.revision,
        organization_id: after.organization_id,
        changed_at: after.updated_at,
        rpc: change.rpc.name().to_owned(),
        key_id: author.key_id.clone(),
        key_name: author.key_name.clone(),
        actor: author.actor.clone(),
        request_id: change.claim.as_ref().map(|claim| claim.request_id.clone()),
        reason: change.audit.reason.clone(),
        ticket: change.audit.ticket.clone(),
        case_id: match &change.edit {
            Edit::Set { .. } | Edit::Remove(_) | Edit::Erase(_) => None,
            Edit::Case(report) => Some(report.case_id.clone()),
        },
        lock_overridden,
        fields: differences.iter().map(|difference| difference.column.as_str()).collect::<Vec<_>>().join(" "),
        old_values: values(|difference| &difference.old),
        new_values: values(|difference| &difference.new),
    }
}

/// The field of the contract that says what is locked.
const LOCKED_FIELDS: &str = "locked_fields";

/// A recorded change of one field, with its values as text: none where the field was or became empty.
#[derive(Debug, PartialEq, Eq)]
pub struct FieldChange {
    /// The name of the field in the contract.
    pub field: String,
    pub old_value: Option<String>,
    pub new_value: Option<String>,
}

/// The names of the fields in the contract that a row of the history says have changed.
pub fn field_names(fields: &str) -> impl Iterator<Item = &str> {
    let locked = Column::Locked.as_str();
    fields.split_ascii_whitespace().map(move |column| if column == locked { LOCKED_FIELDS } else { column })
}

/// Whether a row of the history by this RPC says that its profile was erased.
pub fn is_erasure(rpc: &str) -> bool {
    Rpc::iter().any(|erasing| erasing.erases() && erasing.name() == rpc)
}

/// The field changes in a row of the history.
pub fn field_changes(fields: &str, old_values: Option<&str>, new_values: Option<&str>) -> Result<Vec<FieldChange>> {
    let (old, new) = (values(old_values)?, values(new_values)?);
    let (mut changes, locked) = (Vec::new(), Column::Locked.as_str());
    for column in fields.split_ascii_whitespace() {
        let field = if column == locked { LOCKED_FIELDS } else { column };
        // The API says what is locked, not that it is.
        let shown = |value: &Json| match value.as_str() {
            _ if column == locked => locked_fields().join(","),
            Some(text) => text.to_owned(),
            None => value.to_string(),
        };
        let mut add = |old_value: Option<&Json>, new_value: Option<&Json>| {
            let (old_value, new_value) = (old_value.map(shown), new_value.map(shown));
            changes.push(FieldChange { field: field.to_owned(), old_value, new_value });
        };
        let (old, new) = (old.get(column), new.get(column));
        match (old.and_then(Json::as_array), new.and_then(Json::as_array)) {
            (None, None) => add(old, new),
            // Each pair is a change of its own.
            (lost, gained) => {
                lost.into_iter().flatten().for_each(|pair| add(Some(pair), None));
                gained.into_iter().flatten().for_each(|pair| add(None, Some(pair)));
            }
        }
    }
    Ok(changes)
}

/// The recorded values by column; none where there were none.
fn values(recorded: Option<&str>) -> Result<Map<String, Json>> {
    let parsed = recorded.map_or_else(|| Ok(Map::new()), serde_json::from_str);
    parsed.map_err(|error| Error::Internal(format!("history values are no JSON object: {:?}", error.classify())))
}

/// The names of the fields that a case locks.
pub fn locked_fields() -> Vec<&'static str> {
    policy::lockable().map(|column| column.as_str()).collect()
}
