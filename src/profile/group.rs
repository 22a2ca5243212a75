//! Changes that are decided together: in the order of their arrival, each on what those before it leave.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sea_orm::{IdenStatic as _, Value};
use uuid::Uuid;

use super::{
    change::{Author, Change, Edit, Target, Written},
    decide::{Decision, Loaded, decide},
    erase::Erased,
    identifiers::Identifiers,
    policy,
};
use crate::{
    entity::{
        erasure,
        profile::{Column, Model, Owner},
        profile_case, profile_change, profile_identifier, write_request,
    },
    error::Result,
};

/// The rows that were loaded for a group.
#[derive(Default)]
pub struct Rows {
    pub profiles: Vec<Model>,
    /// Who has the e-mails and phone numbers that the group names, as far as it is not in `profiles`.
    pub owners: Vec<Owner>,
    /// Who has the identifiers that the group adds, as far as it is not in `profiles`.
    pub identifiers: Vec<profile_identifier::Model>,
    pub claims: Vec<write_request::Model>,
    pub cases: Vec<profile_case::Model>,
    /// Profiles that a case locks which is not in `cases`.
    pub locked_elsewhere: Vec<Uuid>,
    /// Those of the profiles to erase that have been erased.
    pub erasures: Vec<erasure::Model>,
}

/// What becomes of one change of a group.
#[expect(clippy::large_enum_variant, reason = "it is moved once")]
pub enum Step {
    Decided {
        /// The profile that the change is about, where one was found.
        profile_id: Option<Uuid>,
        result: Result<Written>,
        depends_on: Dependency,
    },
    /// It needs what an earlier change of the group takes or gives up, or one of them erases: it belongs into the next
    /// group.
    Later,
}

/// What must be saved before the result of a change holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependency {
    Nothing,
    /// This profile's new row.
    Profile(Uuid),
    /// The claims of the changes that save no row.
    Claims,
    /// What is saved with its profile locked alone: reported cases, an erasure.
    Transaction,
}

/// What a group saves.
#[derive(Default)]
pub struct Saving {
    pub created: Vec<Revised>,
    pub updated: Vec<Revised>,
    /// Claims of changes that save no row.
    pub claims: Vec<write_request::Model>,
    pub cases: Vec<profile_case::Model>,
    /// An erasure, which nothing is saved with but its claim.
    pub erased: Option<Erased>,
}

impl Saving {
    /// Whether profiles are created, changed or erased.
    pub const fn changes_profiles(&self) -> bool {
        !(self.created.is_empty() && self.updated.is_empty()) || self.erased.is_some()
    }
}

/// A profile's new row, its history since the one that was loaded, and what else is saved with it.
pub struct Revised {
    pub profile: Model,
    /// The revision that was loaded; 0 where the profile is new.
    pub expected: i64,
    pub history: Vec<profile_change::Model>,
    pub claims: Vec<write_request::Model>,
    pub added: Vec<profile_identifier::Model>,
    pub removed: Vec<profile_identifier::Model>,
}

/// A group while it is decided.
pub struct Group {
    profiles: HashMap<Uuid, Model>,
    /// The profile and the organization that have an e-mail, as loaded.
    emails: HashMap<String, (Uuid, Uuid)>,
    /// The profile that has a phone number, as loaded.
    phone_numbers: HashMap<String, Uuid>,
    identifiers: Identifiers,
    claims: HashMap<write_request::Key, write_request::Model>,
    cases: HashMap<profile_case::Key, profile_case::Model>,
    locked_elsewhere: HashSet<Uuid>,
    erasures: HashMap<Uuid, erasure::Model>,
    /// E-mails and phone numbers that a change of the group has taken or given up.
    touched: HashSet<(&'static str, String)>,
    claimed: HashSet<write_request::Key>,
    reported: HashSet<profile_case::Key>,
    revised: HashMap<Uuid, Revised>,
    bare_claims: Vec<write_request::Model>,
    erased: Option<Erased>,
}

impl Group {
    pub fn new(rows: Rows) -> Self {
        let Rows { profiles, owners, identifiers, claims, cases, locked_elsewhere, erasures } = rows;
        let mut emails = HashMap::new();
        let mut phone_numbers = HashMap::new();
        for Owner { id, organization_id, email, phone_number } in owners {
            emails.extend(email.map(|email| (email, (id, organization_id))));
            phone_numbers.extend(phone_number.map(|number| (number, id)));
        }
        let identifiers = Identifiers::new(&identifiers, &profiles);
        for profile in &profiles {
            emails.extend(profile.email.clone().map(|email| (email, (profile.id, profile.organization_id))));
            phone_numbers.extend(profile.phone_number.clone().map(|number| (number, profile.id)));
        }
        Self {
            profiles: profiles.into_iter().map(|profile| (profile.id, profile)).collect(),
            emails,
            phone_numbers,
            identifiers,
            claims: claims.into_iter().map(|claim| (claim.key(), claim)).collect(),
            cases: cases.into_iter().map(|case| (case.key(), case)).collect(),
            locked_elsewhere: locked_elsewhere.into_iter().collect(),
            erasures: erasures.into_iter().map(|erasure| (erasure.profile_id, erasure)).collect(),
            touched: HashSet::new(),
            claimed: HashSet::new(),
            reported: HashSet::new(),
            revised: HashMap::new(),
            bare_claims: Vec::new(),
            erased: None,
        }
    }

    /// Decides the next change.
    pub fn decide(&mut self, author: &Author, change: &Change, now: DateTime<Utc>) -> Step {
        if self.belongs_into_the_next_group(author, change) {
            return Step::Later;
        }
        let loaded = self.loaded(author, change);
        let found = loaded.profile.map(|profile| profile.id);
        let decided = decide(loaded, author, change, now);
        let seen = self.seen(found, change);
        let (result, depends_on) = match decided {
            Ok(decision) => {
                let (answer, depends_on) = self.keep(decision, seen);
                (Ok(answer), depends_on)
            }
            Err(error) => (Err(error), seen),
        };
        let profile_id = found.or_else(|| result.as_ref().ok().and_then(Written::profile_id));
        Step::Decided { profile_id, result, depends_on }
    }

    /// What is to be saved.
    pub fn into_saving(self) -> Saving {
        let mut saving = Saving { claims: self.bare_claims, erased: self.erased, ..Saving::default() };
        let Self { revised, reported, mut cases, .. } = self;
        for revised in revised.into_values() {
            if revised.expected == 0 { saving.created.push(revised) } else { saving.updated.push(revised) }
        }
        saving.cases = reported.iter().filter_map(|key| cases.remove(key)).collect();
        saving
    }

    fn belongs_into_the_next_group(&self, author: &Author, change: &Change) -> bool {
        self.erased.is_some()
            || (matches!(change.edit, Edit::Erase(_)) && self.saves())
            || change.claim_key(author).is_some_and(|key| self.claimed.contains(&key))
            || target_address(change).into_iter().chain(wanted_addresses(change)).any(|address| {
                let (column, text) = address;
                !self.touched.is_empty() && self.touched.contains(&(column.as_str(), text.to_owned()))
            })
            || self.identifiers.belong_into_the_next_group(&change.edit, author.organization_id)
    }

    /// Whether a change of the group is saved.
    fn saves(&self) -> bool {
        !(self.revised.is_empty() && self.claimed.is_empty() && self.reported.is_empty())
    }

    /// What there is for this change, with what the changes before it leave.
    fn loaded(&self, author: &Author, change: &Change) -> Loaded<'_> {
        let organization = author.organization_id;
        let claim = change.claim_key(author).and_then(|key| self.claims.get(&key));
        let email = target_address(change).and_then(|(_, email)| self.emails.get(email)).copied();
        let id = match (&change.target, claim) {
            (_, Some(claim)) => claim.profile_id,
            (Target::New(_), None) => None,
            (Target::Id(id), None) => Some(*id),
            (Target::Email { .. }, None) => email.map(|(id, _)| id),
        };
        let profile = id.and_then(|id| self.profiles.get(&id)).filter(|found| found.organization_id == organization);
        let mut loaded = Loaded {
            claim,
            profile,
            target_email_organization: email.map(|(_, organization)| organization),
            ..Loaded::default()
        };
        for (column, text) in wanted_addresses(change) {
            match column {
                Column::Email => loaded.email_owner = self.emails.get(text).map(|(id, _)| *id),
                _ => loaded.phone_number_owner = self.phone_numbers.get(text).copied(),
            }
        }
        if let (Edit::Erase(_), Target::Id(id)) = (&change.edit, &change.target) {
            loaded.erasure = self.erasures.get(id).filter(|erasure| erasure.organization_id == organization);
        }
        loaded.identifier_is_taken =
            self.identifiers.is_taken(&change.edit, organization, profile.map(|profile| profile.id));
        if let Edit::Case(report) = &change.edit {
            let key = report.key();
            loaded.case = self.cases.get(&key);
            loaded.locked_by_another_case = self.locked_elsewhere.contains(&report.profile_id)
                || self.cases.iter().any(|(other, case)| {
                    *other != key && case.profile_id == report.profile_id && policy::locks(case.status)
                });
        }
        loaded
    }

    /// What an earlier change of the group left for this one to see.
    fn seen(&self, profile: Option<Uuid>, change: &Change) -> Dependency {
        let reported = match &change.edit {
            Edit::Case(report) => self.reported.contains(&report.key()),
            Edit::Set { .. } | Edit::Remove(_) | Edit::Erase(_) => false,
        };
        match profile.filter(|id| self.revised.contains_key(id)) {
            Some(id) => Dependency::Profile(id),
            None if reported => Dependency::Transaction,
            None => Dependency::Nothing,
        }
    }

    /// Keeps what a decision stores for the changes behind it, and answers what it has to be saved with.
    fn keep(&mut self, decision: Decision, seen: Dependency) -> (Written, Dependency) {
        let Decision { answer, revision, case, erased, claim } = decision;
        let mut depends_on = seen;
        if let Some(case) = case {
            depends_on = Dependency::Transaction;
            self.reported.insert(case.key());
            self.cases.insert(case.key(), case);
        }
        self.claimed.extend(claim.as_ref().map(write_request::Model::key));
        if let Some(revision) = revision {
            let id = revision.profile.id;
            let before = self.profiles.insert(id, revision.profile.clone());
            self.touch(before.as_ref(), &revision.profile);
            let (added, removed) = self.identifiers.follow(before.as_ref(), &revision.profile);
            let fresh = || Revised {
                profile: revision.profile.clone(),
                expected: before.map_or(0, |before| before.revision),
                history: Vec::new(),
                claims: Vec::new(),
                added: Vec::new(),
                removed: Vec::new(),
            };
            let revised = self.revised.entry(id).or_insert_with(fresh);
            revised.profile = revision.profile;
            revised.history.push(revision.history);
            revised.claims.extend(claim);
            revised.added.extend(added);
            revised.removed.extend(removed);
            depends_on = Dependency::Profile(id);
        } else if let Some(claim) = claim {
            if let Some(revised) = claim.profile_id.and_then(|id| self.revised.get_mut(&id)) {
                revised.claims.push(claim);
            } else {
                self.bare_claims.push(claim);
                depends_on = Dependency::Claims;
            }
        }
        if let Some(erased) = erased {
            self.erased = Some(erased);
            depends_on = Dependency::Transaction;
        }
        (answer, depends_on)
    }

    /// Notes the addresses that a revision takes and gives up.
    fn touch(&mut self, before: Option<&Model>, after: &Model) {
        let before = before.map_or((None, None), |before| (before.email.as_ref(), before.phone_number.as_ref()));
        for (column, old, new) in [
            (Column::Email, before.0, after.email.as_ref()),
            (Column::PhoneNumber, before.1, after.phone_number.as_ref()),
        ] {
            if old != new {
                self.touched.extend(old.into_iter().chain(new).map(|text| (column.as_str(), text.clone())));
            }
        }
    }
}

/// The profile that a change is about, as far as it says so itself.
pub const fn target_profile(change: &Change) -> Option<Uuid> {
    match &change.target {
        Target::Id(id) | Target::New(id) => Some(*id),
        Target::Email { .. } => None,
    }
}

/// The e-mail that says whose profile is changed.
pub fn target_address(change: &Change) -> Option<(Column, &str)> {
    match &change.target {
        Target::Email { email, sent: _ } => Some((Column::Email, email)),
        Target::New(_) | Target::Id(_) => None,
    }
}

/// The e-mail and the phone number that a change sets: each has one owner.
pub fn wanted_addresses(change: &Change) -> impl Iterator<Item = (Column, &str)> {
    let columns = match &change.edit {
        Edit::Set { columns, identifiers: _ } => columns.as_slice(),
        Edit::Remove(_) | Edit::Case(_) | Edit::Erase(_) => &[],
    };
    columns.iter().filter_map(|(column, value)| match (column, value) {
        (Column::Email | Column::PhoneNumber, Value::String(Some(text))) => Some((*column, text.as_str())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::decide::tests, *};
    use crate::{
        entity::{erasure::ReasonCode, profile_identifier::Identifier},
        error::Error,
        profile::{
            change::{Claim, Erasing},
            identifiers,
            policy::Rpc,
        },
    };

    /// The tables, as far as changes need them.
    #[derive(Clone, Default)]
    struct Tables {
        profiles: HashMap<Uuid, Model>,
        claims: Vec<write_request::Model>,
        history: Vec<(Uuid, i64, String)>,
        identifiers: HashMap<profile_identifier::Key, Uuid>,
        erasures: Vec<erasure::Model>,
    }

    impl Tables {
        /// Decides and saves the changes with these numbers together, and answers which of them belong into the next group.
        fn carry_out(&mut self, changes: &[Change], numbers: &[usize], told: &mut Vec<(usize, String)>) -> Vec<usize> {
            let rows = Rows {
                profiles: self.profiles.values().cloned().collect(),
                claims: self.claims.clone(),
                erasures: self.erasures.clone(),
                ..Rows::default()
            };
            let (mut group, mut later) = (Group::new(rows), Vec::new());
            for number in numbers {
                match group.decide(&tests::author(), &changes[*number], tests::at(1)) {
                    Step::Later => later.push(*number),
                    Step::Decided { result, .. } => told.push((*number, text(result))),
                }
            }
            let Saving { created, updated, claims, cases: _, erased } = group.into_saving();
            if let Some(Erased { erasure, history }) = erased {
                assert!(created.is_empty() && updated.is_empty() && claims.len() < 2, "an erasure is saved alone");
                self.profiles.remove(&erasure.profile_id);
                self.identifiers.retain(|_, owner| *owner != erasure.profile_id);
                self.history.extend(history.map(|row| (row.profile_id, row.revision, row.rpc)));
                self.erasures.push(erasure);
            }
            let one_of_both = |revised: &[Revised]| {
                revised.iter().all(|revised| revised.added.is_empty())
                    || revised.iter().all(|revised| revised.removed.is_empty())
            };
            assert!(one_of_both(&created) && one_of_both(&updated), "a statement adds and removes identifiers");
            for Revised { profile, expected, history, claims, added, removed } in created.into_iter().chain(updated) {
                for row in removed {
                    assert_eq!(self.identifiers.remove(&row.key()), Some(profile.id));
                }
                for row in added {
                    assert_eq!(self.identifiers.insert(row.key(), profile.id), None);
                }
                assert_eq!(self.profiles.get(&profile.id).map_or(0, |stored| stored.revision), expected);
                assert_eq!(profile.revision, expected + i64::try_from(history.len()).expect("a small number"));
                self.history.extend(history.into_iter().map(|row| (row.profile_id, row.revision, row.fields)));
                self.claims.extend(claims);
                self.profiles.insert(profile.id, profile);
            }
            self.claims.extend(claims);
            let keys = |profile: &Model| {
                let (organization, id) = (profile.organization_id, profile.id);
                identifiers::of(profile).into_iter().map(move |identifier| (identifier.key(organization), id))
            };
            assert_eq!(self.profiles.values().flat_map(keys).collect::<HashMap<_, _>>(), self.identifiers);
            for (column, text) in
                self.profiles.values().flat_map(|profile| [&profile.email, &profile.phone_number]).enumerate()
            {
                let same = self.profiles.values().flat_map(|profile| [&profile.email, &profile.phone_number]);
                assert!(
                    text.is_none() || same.filter(|other| *other == text).count() == 1,
                    "{column}: two have {text:?}"
                );
            }
            later
        }
    }

    fn text(result: Result<Written>) -> String {
        result.map_or_else(
            |error: Error| error.to_string(),
            |written| match written {
                Written::Profile(Model { id, revision, email, phone_number, city, identifiers, .. }) => {
                    format!("{id} {revision} {email:?} {phone_number:?} {city:?} {identifiers:?}")
                }
                Written::Erasure(erasure::Model { profile_id, .. }, found) => format!("{profile_id} {found:?}"),
                Written::Case(_) => panic!("no profile"),
            },
        )
    }

    /// What a change does, in small numbers: addresses and request ids are meant to meet. It has a `Debug`, as changes do not.
    type Drawn = (Rpc, u8, Option<Option<u8>>, Option<Option<u8>>, Option<u8>, Option<(u8, u8)>, bool, Vec<u8>);

    fn drawn() -> impl Strategy<Value = Drawn> {
        let rpc = proptest::sample::select(vec![
            Rpc::PatchProfile,
            Rpc::PatchProfile,
            Rpc::CreateProfile,
            Rpc::UpdateProfile,
            Rpc::AddIdentifier,
            Rpc::RemoveIdentifier,
            Rpc::EraseProfile,
            Rpc::ReplayErasure,
        ]);
        let address = || proptest::option::weighted(0.5, proptest::option::weighted(0.8, 0..3u8));
        let claim = proptest::option::weighted(0.3, (0..3u8, 0..2u8));
        let identifiers = proptest::collection::vec(0..3u8, 1..3);
        let city = proptest::option::of(0..2u8);
        (rpc, 0..3u8, address(), address(), city, claim, prop::bool::weighted(0.1), identifiers)
    }

    fn change(number: usize, (rpc, person, email, phone, city, claim, validate_only, identifiers): Drawn) -> Change {
        let target = match rpc {
            Rpc::CreateProfile => Target::New(Uuid::from_u128(100 + number as u128)),
            Rpc::UpdateProfile => Target::Email { email: format!("e{person}"), sent: String::new().into() },
            _ => Target::Id(Uuid::from_u128(2 + u128::from(person))),
        };
        let text = |kind: &str, value: Option<u8>| Value::from(value.map(|value| format!("{kind}{value}")));
        let email = email.filter(|_| rpc != Rpc::UpdateProfile).map(|email| (Column::Email, text("e", email)));
        let phone = phone.map(|phone| (Column::PhoneNumber, text("p", phone)));
        let city = city.map(|city| (Column::City, text("c", Some(city))));
        let columns = [email, phone, city].into_iter().flatten().collect();
        let pair = |value: &u8| Identifier { system: "mrn".to_owned(), value: value.to_string() };
        let identifiers: Vec<_> = identifiers.iter().map(pair).collect();
        let edit = match rpc {
            Rpc::CreateProfile => Edit::Set { columns, identifiers },
            Rpc::AddIdentifier => Edit::Set { columns: Vec::new(), identifiers },
            Rpc::RemoveIdentifier => Edit::Remove(identifiers[0].clone()),
            Rpc::EraseProfile | Rpc::ReplayErasure => {
                Edit::Erase(Erasing { reason_code: ReasonCode::Retention, even_if_locked: false, erase_time: None })
            }
            _ => tests::set(columns),
        };
        let claim = claim.filter(|_| !validate_only);
        let claim = claim.map(|(id, payload)| Claim { request_id: id.to_string(), payload_sha256: vec![payload] });
        Change { claim, validate_only, ..tests::change(rpc, target, edit) }
    }

    proptest! {
        /// Changes that are decided together answer and leave what they would one by one, in the order of their decisions.
        #[test]
        fn a_group_ends_as_its_changes_one_by_one(drawn in proptest::collection::vec(drawn(), 1..24)) {
            let changes: Vec<_> = drawn.into_iter().enumerate().map(|(number, drawn)| change(number, drawn)).collect();
            let mut tables = Tables::default();
            for id in 2..5 {
                let profile = Model { email: (id < 4).then(|| format!("e{}", id - 2)), ..tests::profile(id) };
                tables.profiles.insert(profile.id, profile);
            }
            let (mut together, mut told) = (tables.clone(), Vec::new());
            let mut left: Vec<_> = (0..changes.len()).collect();
            while !left.is_empty() {
                let later = together.carry_out(&changes, &left, &mut told);
                prop_assert!(later.len() < left.len(), "a group gets nowhere");
                left = later;
            }
            let (mut alone, mut told_alone) = (tables, Vec::new());
            for (number, _) in &told {
                prop_assert!(alone.carry_out(&changes, &[*number], &mut told_alone).is_empty());
            }
            prop_assert_eq!(told, told_alone);
            prop_assert_eq!(together.profiles, alone.profiles);
            let sorted = |mut rows: Vec<(Uuid, i64, String)>| { rows.sort(); rows };
            prop_assert_eq!(sorted(together.history), sorted(alone.history));
            prop_assert_eq!(together.claims.len(), alone.claims.len());
            prop_assert_eq!(together.erasures, alone.erasures);
        }
    }
}
