//! What becomes of a change: a pure function of the change and of what was loaded.

use chrono::{DateTime, Utc};
use sea_orm::{IdenStatic as _, ModelTrait as _};
use uuid::Uuid;

use super::{
    change::{Author, Change, Claim, Edit, Found, Target, Written, etag},
    erase::{self, Erased},
    history::{self, Difference},
    identifiers,
    policy::{self, Editable, Rpc},
};
use crate::{
    entity::{
        erasure,
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
    /// Whether another profile has an identifier which the change adds.
    pub identifier_is_taken: bool,
    /// The reported case as it is stored.
    pub case: Option<&'a profile_case::Model>,
    /// Whether another case locks the profile.
    pub locked_by_another_case: bool,
    /// That the profile which the change would erase has been erased.
    pub erasure: Option<&'a erasure::Model>,
}

/// What is stored, and what the caller is answered.
#[derive(Clone)]
pub struct Decision {
    pub answer: Written,
    /// The profile's new row with its history, where the change changes anything.
    pub revision: Option<Revision>,
    /// The reported case, where the report supersedes what is stored.
    pub case: Option<profile_case::Model>,
    /// What is left of a person who is erased.
    pub erased: Option<Erased>,
    /// The claim to remember.
    pub claim: Option<write_request::Model>,
}

impl Decision {
    /// Nothing is stored.
    const fn answer(answer: Written) -> Self {
        Self { answer, revision: None, case: None, erased: None, claim: None }
    }
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
        return replay(claim, earlier, loaded, change);
    }
    if change.rpc == Rpc::ReplayErasure && loaded.profile.is_none() {
        return erased_before(loaded, author, change, now);
    }
    let before = target(loaded, author, change)?;
    if change.etag.is_some() && change.etag != before.map(etag) {
        return Err(Error::EtagMismatch);
    }
    if let (Edit::Erase(erasing), Some(before)) = (&change.edit, before) {
        let erased = erase::erase(before, author, change, erasing, now)?;
        let answer = Written::Erasure(erased.erasure.clone(), Found::Profile);
        if change.validate_only {
            return Ok(Decision::answer(answer));
        }
        let claim = change.claim.as_ref().map(|claim| remembered(author, change.rpc, claim, before.id, now));
        return Ok(Decision { erased: Some(erased), claim, ..Decision::answer(answer) });
    }
    let (mut after, case) = edited(loaded, before, author, change, now)?;
    let claim = change.claim.as_ref().map(|claim| remembered(author, change.rpc, claim, after.id, now));
    let differences = history::differences(before, &after)?;
    let stored_case = case.clone().filter(|case| loaded.case != Some(case));
    let answer = |after: &Model| case.clone().map_or_else(|| Written::Profile(after.clone()), Written::Case);
    if differences.is_empty() {
        return Ok(Decision { case: stored_case, claim, ..Decision::answer(answer(&after)) });
    }
    let lock_overridden = before.is_some_and(|profile| profile.locked) && overrides(change.rpc, &differences)?;
    addresses_are_free(loaded, &after, &differences)?;
    if change.validate_only {
        return Ok(Decision::answer(answer(&after)));
    }
    after.revision += 1;
    after.updated_at = now.max(after.updated_at);
    let history = history::record(author, change, &after, &differences, lock_overridden);
    let answer = Decision::answer(answer(&after));
    Ok(Decision { revision: Some(Revision { profile: after, history }), case: stored_case, claim, ..answer })
}

/// What a repeat answers: the profile as it is now, or that it was erased.
fn replay(claim: &Claim, earlier: &write_request::Model, loaded: Loaded<'_>, change: &Change) -> Result<Decision> {
    if claim.payload_sha256 != earlier.payload_sha256 {
        return Err(Error::RequestIdReused);
    }
    let answer = if change.rpc.erases() {
        loaded.erasure.map(|erasure| Written::Erasure(erasure.clone(), Found::Erasure))
    } else {
        loaded.profile.map(|profile| Written::Profile(profile.clone()))
    };
    answer.map(Decision::answer).ok_or(Error::ProfileNotFound(earlier.profile_id))
}

/// Makes an erasure again whose profile is not there, so that it is remembered at least.
fn erased_before(loaded: Loaded<'_>, author: &Author, change: &Change, now: DateTime<Utc>) -> Result<Decision> {
    let (Edit::Erase(erasing), Target::Id(id)) = (&change.edit, &change.target) else {
        return Err(Error::Internal("an erasure that is made again erases nobody".to_owned()));
    };
    if let Some(erasure) = loaded.erasure {
        return Ok(Decision::answer(Written::Erasure(erasure.clone(), Found::Erasure)));
    }
    let erased = erase::erased_before(author, *id, erasing, now);
    let answer = Decision::answer(Written::Erasure(erased.erasure.clone(), Found::Nothing));
    Ok(Decision { erased: (!change.validate_only).then_some(erased), ..answer })
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
        Edit::Set { columns, identifiers: added } => {
            for (column, value) in columns {
                after.try_set(*column, value.clone())?;
            }
            if !added.is_empty() {
                let mut all = identifiers::of(&after);
                all.extend(added.iter().cloned());
                if all.len() > identifiers::MOST {
                    return Err(Error::TooManyIdentifiers);
                }
                after.identifiers = identifiers::column(&all);
            }
            Ok((after, None))
        }
        Edit::Remove(identifier) => {
            let mut left = identifiers::of(&after);
            left.remove(identifier);
            after.identifiers = identifiers::column(&left);
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
        Edit::Erase(_) => Err(Error::Internal("an erasure edits nothing".to_owned())),
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
        identifiers: None,
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

/// Refuses an e-mail, phone number or identifier that someone else had when the rows were loaded. The unique indexes judge races.
fn addresses_are_free(loaded: Loaded<'_>, after: &Model, differences: &[Difference]) -> Result<()> {
    let changes = |column: Column| differences.iter().any(|difference| difference.column.as_str() == column.as_str());
    let taken = |owner: Option<Uuid>| owner.is_some_and(|owner| owner != after.id);
    if changes(Column::Email) && taken(loaded.email_owner) {
        Err(Error::EmailInUse)
    } else if changes(Column::PhoneNumber) && taken(loaded.phone_number_owner) {
        Err(Error::PhoneNumberInUse)
    } else if changes(Column::Identifiers) && loaded.identifier_is_taken {
        Err(Error::IdentifierInUse)
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

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;
    use sea_orm::{ActiveEnum as _, IdenStatic, Iterable as _, Value};

    use super::*;
    use crate::{
        entity::{profile::Gender, profile_case::Status, profile_identifier::Identifier},
        profile::change::AuditNote,
    };

    pub fn author() -> Author {
        Author { organization_id: Uuid::from_u128(1), key_id: "k".to_owned(), key_name: "test".to_owned(), actor: None }
    }

    pub fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("a time")
    }

    /// A profile of the author's organization at its first revision.
    pub fn profile(id: u128) -> Model {
        Model {
            revision: 1,
            first_name: "Ada".to_owned(),
            last_name: "Byron".to_owned(),
            ..blank(Uuid::from_u128(id), author().organization_id, at(0))
        }
    }

    pub fn change(rpc: Rpc, target: Target, edit: Edit) -> Change {
        Change { rpc, target, edit, etag: None, claim: None, validate_only: false, audit: AuditNote::default() }
    }

    /// Sets these columns.
    pub const fn set(columns: Vec<(Column, Value)>) -> Edit {
        Edit::Set { columns, identifiers: Vec::new() }
    }

    /// A report about the profile with the id 2.
    pub fn report(case: &str, status: Status, second: i64) -> profile_case::Model {
        profile_case::Model {
            organization_id: author().organization_id,
            case_id: case.to_owned(),
            profile_id: Uuid::from_u128(2),
            status,
            status_time: at(second),
        }
    }

    /// A value that no one has yet.
    fn new_value(column: Column) -> Value {
        match column {
            Column::Gender => Some(Gender::Other).into(),
            Column::Dob => chrono::NaiveDate::from_ymd_opt(1999, 1, 1).into(),
            Column::FirstName | Column::LastName => "Eve".into(),
            _ => Some("new".to_owned()).into(),
        }
    }

    /// Who may change what: a changed rule is a changed row.
    #[test]
    fn the_policy_as_one_table() {
        let columns: Vec<_> = policy::mutable().collect();
        let mut rows = vec![columns.iter().map(IdenStatic::as_str).collect::<Vec<_>>().join(" ")];
        for rpc in [Rpc::ReplaceProfile, Rpc::PatchProfile, Rpc::UpdateProfile, Rpc::CorrectProfile] {
            for role in Role::iter() {
                for locked in [false, true] {
                    let before = Model { locked, role, ..profile(2) };
                    let verdicts = columns.iter().map(|column| {
                        let edit = set(vec![(*column, new_value(*column))]);
                        let change = change(rpc, Target::Id(before.id), edit);
                        let loaded = Loaded { profile: Some(&before), ..Loaded::default() };
                        match decide(loaded, &author(), &change, at(1)) {
                            Ok(Decision { revision: Some(revision), .. }) if revision.history.lock_overridden => {
                                "overrides"
                            }
                            Ok(Decision { revision: Some(_), .. }) => "yes",
                            Ok(Decision { revision: None, .. }) => "unchanged",
                            Err(Error::DemographicsLocked(_)) => "locked",
                            Err(Error::UpdateNotAllowed) => "barred",
                            Err(error) => panic!("{error}"),
                        }
                    });
                    let verdicts = verdicts.collect::<Vec<_>>().join(" ");
                    rows.push(format!(
                        "{rpc:?} {} {}: {verdicts}",
                        role.to_value(),
                        if locked { "locked" } else { "free" }
                    ));
                }
            }
        }
        insta::assert_snapshot!(rows.join("\n"), @r"
        first_name last_name email dob gender phone_number address address2 city state country postal_code
        ReplaceProfile USER free: yes yes yes yes yes yes yes yes yes yes yes yes
        ReplaceProfile USER locked: locked locked yes locked locked yes yes yes yes yes yes yes
        ReplaceProfile PROVIDER free: yes yes yes yes yes yes yes yes yes yes yes yes
        ReplaceProfile PROVIDER locked: locked locked yes locked locked yes yes yes yes yes yes yes
        ReplaceProfile SUPPORT free: yes yes yes yes yes yes yes yes yes yes yes yes
        ReplaceProfile SUPPORT locked: locked locked yes locked locked yes yes yes yes yes yes yes
        ReplaceProfile ADMIN free: yes yes yes yes yes yes yes yes yes yes yes yes
        ReplaceProfile ADMIN locked: locked locked yes locked locked yes yes yes yes yes yes yes
        PatchProfile USER free: yes yes yes yes yes yes yes yes yes yes yes yes
        PatchProfile USER locked: locked locked yes locked locked yes yes yes yes yes yes yes
        PatchProfile PROVIDER free: yes yes yes yes yes yes yes yes yes yes yes yes
        PatchProfile PROVIDER locked: locked locked yes locked locked yes yes yes yes yes yes yes
        PatchProfile SUPPORT free: yes yes yes yes yes yes yes yes yes yes yes yes
        PatchProfile SUPPORT locked: locked locked yes locked locked yes yes yes yes yes yes yes
        PatchProfile ADMIN free: yes yes yes yes yes yes yes yes yes yes yes yes
        PatchProfile ADMIN locked: locked locked yes locked locked yes yes yes yes yes yes yes
        UpdateProfile USER free: yes yes yes yes yes yes yes yes yes yes yes yes
        UpdateProfile USER locked: locked locked yes locked locked yes yes yes yes yes yes yes
        UpdateProfile PROVIDER free: barred barred barred barred barred barred barred barred barred barred barred barred
        UpdateProfile PROVIDER locked: barred barred barred barred barred barred barred barred barred barred barred barred
        UpdateProfile SUPPORT free: barred barred barred barred barred barred barred barred barred barred barred barred
        UpdateProfile SUPPORT locked: barred barred barred barred barred barred barred barred barred barred barred barred
        UpdateProfile ADMIN free: barred barred barred barred barred barred barred barred barred barred barred barred
        UpdateProfile ADMIN locked: barred barred barred barred barred barred barred barred barred barred barred barred
        CorrectProfile USER free: yes yes yes yes yes yes yes yes yes yes yes yes
        CorrectProfile USER locked: overrides overrides yes overrides overrides yes yes yes yes yes yes yes
        CorrectProfile PROVIDER free: yes yes yes yes yes yes yes yes yes yes yes yes
        CorrectProfile PROVIDER locked: overrides overrides yes overrides overrides yes yes yes yes yes yes yes
        CorrectProfile SUPPORT free: yes yes yes yes yes yes yes yes yes yes yes yes
        CorrectProfile SUPPORT locked: overrides overrides yes overrides overrides yes yes yes yes yes yes yes
        CorrectProfile ADMIN free: yes yes yes yes yes yes yes yes yes yes yes yes
        CorrectProfile ADMIN locked: overrides overrides yes overrides overrides yes yes yes yes yes yes yes
        ");
    }

    #[test]
    fn what_a_change_is_about_decides_in_the_order_of_the_contract() {
        let before = Model { locked: true, role: Role::Admin, ..profile(2) };
        let edit = || set(vec![(Column::Dob, new_value(Column::Dob)), (Column::Email, new_value(Column::Email))]);
        let mut update = change(Rpc::UpdateProfile, Target::Id(before.id), edit());
        update.etag = Some("\"9\"".to_owned());
        update.claim = Some(Claim { request_id: "r".to_owned(), payload_sha256: vec![1] });
        let claim = remembered(&author(), update.rpc, update.claim.as_ref().expect("a claim"), before.id, at(0));
        let other = write_request::Model { payload_sha256: vec![2], ..claim.clone() };
        let user = Model { role: Role::User, ..before.clone() };
        let free = Model { locked: false, ..user.clone() };
        let reason = |loaded: Loaded<'_>, change: &Change| match decide(loaded, &author(), change, at(1)) {
            Ok(decision) if decision.revision.is_none() => "replayed".to_owned(),
            Ok(_) => "changed".to_owned(),
            Err(error) => error.to_string(),
        };
        let taken = Some(Uuid::from_u128(3));
        let loaded = Loaded { claim: Some(&other), profile: Some(&before), email_owner: taken, ..Loaded::default() };
        let current = Change { etag: Some(etag(&before)), ..update.clone() };
        insta::assert_snapshot!([
            reason(loaded, &update),
            reason(Loaded { claim: Some(&claim), ..loaded }, &update),
            reason(Loaded { claim: None, profile: None, ..loaded }, &update),
            reason(Loaded { claim: None, ..loaded }, &update),
            reason(Loaded { claim: None, profile: Some(&user), ..loaded }, &update),
            reason(Loaded { claim: None, profile: Some(&user), ..loaded }, &current),
            reason(Loaded { claim: None, profile: Some(&free), ..loaded }, &current),
            reason(Loaded { claim: None, profile: Some(&free), email_owner: None, ..loaded }, &current),
        ].join("\n"), @r"
        The request id has been used with another request. Use a new one.
        replayed
        There is no such profile in the organization.
        Not allowed to update the profile
        The etag is not the profile's current one. Read the profile again.
        Cannot update user profile fields (firstName, lastName, dob, gender) for user with cases
        Unable to use this email. Please use a different one
        changed
        ");
    }

    #[test]
    fn an_etag_is_judged_before_the_number_of_identifiers_and_that_before_their_owners() {
        let pair = |n: usize| Identifier { system: "mrn".to_owned(), value: n.to_string() };
        let has =
            |count: usize| Model { identifiers: identifiers::column(&(0..count).map(pair).collect()), ..profile(2) };
        let reason = |before: &Model, added: usize, etag: &str, identifier_is_taken: bool| {
            let edit = Edit::Set { columns: Vec::new(), identifiers: vec![pair(added)] };
            let add = change(Rpc::AddIdentifier, Target::Id(before.id), edit);
            let loaded = Loaded { profile: Some(before), identifier_is_taken, ..Loaded::default() };
            match decide(loaded, &author(), &Change { etag: Some(etag.to_owned()), ..add }, at(1)) {
                Ok(decision) => decision.revision.map_or("unchanged", |_| "changed").to_owned(),
                Err(error) => error.to_string(),
            }
        };
        insta::assert_snapshot!([
            reason(&has(20), 20, "\"9\"", true),
            reason(&has(20), 20, "\"1\"", true),
            reason(&has(20), 19, "\"1\"", false),
            reason(&has(19), 19, "\"1\"", true),
            reason(&has(19), 19, "\"1\"", false),
        ].join("\n"), @r"
        The etag is not the profile's current one. Read the profile again.
        The profile may have 20 identifiers at the most. Remove one first.
        unchanged
        Unable to use this identifier. Please use a different one
        changed
        ");
    }

    proptest! {
        #[test]
        fn a_revision_has_its_history_and_the_same_change_again_is_none(
            columns in proptest::collection::vec(proptest::sample::select(policy::mutable().collect::<Vec<_>>()), 0..6),
            second in -5..5i64,
        ) {
            let before = profile(2);
            let edit = set(columns.iter().map(|column| (*column, new_value(*column))).collect());
            let patch = change(Rpc::PatchProfile, Target::Id(before.id), edit);
            let loaded = Loaded { profile: Some(&before), ..Loaded::default() };
            let decision = decide(loaded, &author(), &patch, at(second)).expect("a decision");
            let named: std::collections::BTreeSet<_> = columns.iter().map(IdenStatic::as_str).collect();
            prop_assert_eq!(decision.revision.is_some(), !named.is_empty());
            if let Some(Revision { profile: after, history }) = decision.revision {
                prop_assert_eq!((after.revision, history.revision), (2, 2));
                prop_assert!(after.updated_at >= before.updated_at && history.changed_at == after.updated_at);
                prop_assert_eq!(history.fields.split(' ').collect::<std::collections::BTreeSet<_>>(), named);
                let loaded = Loaded { profile: Some(&after), ..Loaded::default() };
                let again = decide(loaded, &author(), &patch, at(second)).expect("a decision");
                prop_assert!(again.revision.is_none() && again.answer.profile_id() == Some(after.id));
            }
        }

        #[test]
        fn reports_in_any_order_and_any_number_end_alike(
            reports in proptest::collection::vec((proptest::sample::select(Status::iter().collect::<Vec<_>>()), 0..3i64), 1..6),
            seed: u64,
        ) {
            let end = |reports: &[(Status, i64)]| {
                let (mut person, mut case) = (profile(2), None);
                for (status, second) in reports {
                    let edit = Edit::Case(report("c", *status, *second));
                    let change = change(Rpc::ReportCaseStatus, Target::Id(person.id), edit);
                    let loaded = Loaded { profile: Some(&person), case: case.as_ref(), ..Loaded::default() };
                    let decision = decide(loaded, &author(), &change, at(9)).expect("a decision");
                    person = decision.revision.map_or(person, |revision| revision.profile);
                    case = match decision.answer {
                        Written::Case(case) => Some(case),
                        Written::Profile(_) | Written::Erasure(..) => None,
                    };
                }
                (person.locked, case)
            };
            let mut shuffled = [reports.as_slice(), &reports[..1]].concat();
            let by = usize::try_from(seed).unwrap_or_default() % shuffled.len();
            shuffled.rotate_left(by);
            shuffled.reverse();
            prop_assert_eq!(end(&reports), end(&shuffled));
        }
    }
}
