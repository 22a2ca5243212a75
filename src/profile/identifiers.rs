//! What other systems call a person: pairs, and the column of a profile that has all of them.

use std::collections::{BTreeSet, HashMap, HashSet};

use uuid::Uuid;

use super::change::Edit;
use crate::entity::{
    profile::Model,
    profile_identifier::{self, Identifier, Key},
};

/// How many identifiers a profile has at the most.
pub const MOST: usize = 20;

/// What other systems call this person, in their order.
pub fn of(profile: &Model) -> BTreeSet<Identifier> {
    let lines = profile.identifiers.as_deref().unwrap_or_default().split('\n');
    let pairs = lines.filter_map(|line| line.split_once('|'));
    pairs.map(|(system, value)| Identifier { system: system.to_owned(), value: value.to_owned() }).collect()
}

/// The column of a profile that has these.
pub fn column(identifiers: &BTreeSet<Identifier>) -> Option<String> {
    let lines: Vec<_> = identifiers.iter().map(Identifier::text).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// What the profile has after a change and had not before: the other way round, what it has lost.
pub fn gained(before: Option<&Model>, after: Option<&Model>) -> Vec<Identifier> {
    let [old, new] = [before, after].map(|profile| profile.and_then(|profile| profile.identifiers.as_ref()));
    if old == new {
        return Vec::new();
    }
    let [before, after] = [before, after].map(|profile| profile.map(of).unwrap_or_default());
    after.difference(&before).cloned().collect()
}

/// Who has which identifiers while a group is decided.
pub struct Identifiers {
    /// The profile that has an identifier, as loaded.
    owners: HashMap<Key, Uuid>,
    /// What changes of the group have added or removed: one of both, since a statement that saves them does one.
    added: HashSet<Key>,
    removed: HashSet<Key>,
}

impl Identifiers {
    /// With the rows that were loaded.
    pub fn new(rows: &[profile_identifier::Model], profiles: &[Model]) -> Self {
        let mut owners: HashMap<_, _> = rows.iter().map(|row| (row.key(), row.profile_id)).collect();
        for profile in profiles {
            owners.extend(of(profile).iter().map(|identifier| (identifier.key(profile.organization_id), profile.id)));
        }
        Self { owners, added: HashSet::new(), removed: HashSet::new() }
    }

    /// Whether a change needs what an earlier change of the group adds or removes.
    pub fn belong_into_the_next_group(&self, edit: &Edit, organization: Uuid) -> bool {
        match edit {
            Edit::Remove(_) => !self.added.is_empty(),
            Edit::Set { columns: _, identifiers } => {
                let mut added = identifiers.iter().map(|identifier| identifier.key(organization)).peekable();
                added.peek().is_some() && !self.removed.is_empty() || added.any(|key| self.added.contains(&key))
            }
            Edit::Case(_) | Edit::Erase(_) => false,
        }
    }

    /// Whether another profile than this one has what a change adds.
    pub fn is_taken(&self, edit: &Edit, organization: Uuid, profile: Option<Uuid>) -> bool {
        let mut owners = edit.added().iter().filter_map(|identifier| self.owners.get(&identifier.key(organization)));
        owners.any(|owner| Some(*owner) != profile)
    }

    /// Notes and answers what a revision adds, and what it removes.
    pub fn follow(
        &mut self,
        before: Option<&Model>,
        after: &Model,
    ) -> (Vec<profile_identifier::Model>, Vec<profile_identifier::Model>) {
        let row = |Identifier { system, value }| profile_identifier::Model {
            organization_id: after.organization_id,
            system,
            value,
            profile_id: after.id,
        };
        let added: Vec<_> = gained(before, Some(after)).into_iter().map(row).collect();
        let removed: Vec<_> = gained(Some(after), before).into_iter().map(row).collect();
        self.added.extend(added.iter().map(profile_identifier::Model::key));
        self.removed.extend(removed.iter().map(profile_identifier::Model::key));
        (added, removed)
    }
}
