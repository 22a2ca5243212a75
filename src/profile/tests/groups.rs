//! Changes that are decided together: who sees what of whom, and what is saved for which.

use super::{
    super::{
        change::{Change, Claim, Target},
        decide::tests::{change, profile, set},
        group::{Dependency, Group, Revised, Rows, Saving, target_profile},
        policy::Rpc,
    },
    Column, ELSEWHERE, Model, next, patch, with_request_id,
};
use crate::entity::profile::Owner;

fn by_email(email: &str) -> Change {
    let target = Target::Email { email: email.to_owned(), sent: email.to_owned().into() };
    change(Rpc::UpdateProfile, target, set(vec![(Column::City, Some("Ur").into())]))
}

fn create(id: u128) -> Change {
    let names = set(vec![(Column::FirstName, "Ada".into()), (Column::LastName, "Byron".into())]);
    change(Rpc::CreateProfile, Target::New(profile(id).id), names)
}

fn error(group: &mut Group, change: &Change) -> Option<String> {
    next(group, change).expect("a decision").1
}

#[test]
fn a_profile_is_saved_once_with_the_history_and_the_request_ids_of_all_its_changes() {
    let (two, three) = (profile(2), profile(3));
    let mut group = Group::new(Rows { profiles: vec![two.clone(), three.clone()], ..Rows::default() });
    let (of_two, of_four) = (Dependency::Profile(two.id), Dependency::Profile(profile(4).id));
    assert_eq!(next(&mut group, &patch(&two, Column::City, "Ur")), Some((of_two, None)));
    assert_eq!(next(&mut group, &with_request_id(patch(&two, Column::City, "Uruk"))), Some((of_two, None)));
    assert_eq!(next(&mut group, &patch(&two, Column::City, "Uruk")), Some((of_two, None)), "it has seen it");
    assert_eq!(next(&mut group, &create(4)), Some((of_four, None)));
    let changes_nothing =
        Change { rpc: Rpc::CorrectProfile, ..with_request_id(patch(&three, Column::FirstName, "Ada")) };
    assert_eq!(next(&mut group, &changes_nothing), Some((Dependency::Claims, None)));
    assert_eq!(next(&mut group, &patch(&three, Column::FirstName, "Ada")), Some((Dependency::Nothing, None)));
    let Saving { created, updated, claims, cases, erased } = group.into_saving();
    assert!(cases.is_empty() && erased.is_none());
    let [created] = created.try_into().ok().expect("one profile");
    assert_eq!((created.profile.id, created.expected, created.profile.revision), (profile(4).id, 0, 1));
    let [updated] = updated.try_into().ok().expect("one profile");
    assert_eq!((updated.profile.id, updated.expected, updated.profile.revision), (two.id, 1, 3));
    let history: Vec<_> = updated.history.iter().map(|row| (row.revision, row.new_values.as_deref())).collect();
    assert_eq!(history, [(2, Some(r#"{"city":"Ur"}"#)), (3, Some(r#"{"city":"Uruk"}"#))]);
    assert_eq!(updated.claims.iter().map(|claim| claim.profile_id).collect::<Vec<_>>(), [Some(two.id)]);
    assert_eq!(claims.iter().map(|claim| claim.profile_id).collect::<Vec<_>>(), [Some(three.id)]);
}

#[test]
fn a_group_changes_profiles_where_it_creates_changes_or_erases_one() {
    let saving = |change: &Change| {
        let mut group = Group::new(Rows { profiles: vec![profile(2)], ..Rows::default() });
        next(&mut group, change).expect("a decision");
        group.into_saving().changes_profiles()
    };
    assert!(saving(&create(4)));
    assert!(saving(&patch(&profile(2), Column::City, "Ur")));
    assert!(saving(&super::erasures::erasing(Rpc::EraseProfile, &profile(2), false)));
    assert!(!saving(&with_request_id(patch(&profile(2), Column::FirstName, "Ada"))));
}

#[test]
fn another_organizations_profile_is_not_there() {
    let email = || Some("ada@example.com".to_owned());
    let foreign = Model { organization_id: ELSEWHERE, email: email(), ..profile(2) };
    let mut group = Group::new(Rows { profiles: vec![foreign.clone()], ..Rows::default() });
    let not_found = "There is no such profile in the organization.";
    assert_eq!(error(&mut group, &patch(&foreign, Column::City, "Ur")).as_deref(), Some(not_found));
    let elsewhere = "User ada@example.com does not exist in the organization";
    assert_eq!(error(&mut group, &by_email("ada@example.com")).as_deref(), Some(elsewhere));
    assert_eq!(error(&mut group, &by_email("eve@example.com")).as_deref(), Some("User eve@example.com does not exist"));
    let own = Model { email: email(), ..profile(2) };
    let mut group = Group::new(Rows { profiles: vec![own.clone()], ..Rows::default() });
    assert_eq!(next(&mut group, &by_email("ada@example.com")), Some((Dependency::Profile(own.id), None)));
}

/// Its profile came to the organization after the look for it, so that the call is tried again.
#[test]
fn an_email_that_has_just_changed_hands_is_a_conflict() {
    let owner = |organization_id| Owner {
        id: profile(2).id,
        organization_id,
        email: Some("ada@example.com".to_owned()),
        phone_number: None,
    };
    for (organization, message) in [
        (profile(2).organization_id, "Other writes were in the way. Try again."),
        (ELSEWHERE, "User ada@example.com does not exist in the organization"),
    ] {
        let mut group = Group::new(Rows { owners: vec![owner(organization)], ..Rows::default() });
        assert_eq!(error(&mut group, &by_email("ada@example.com")).as_deref(), Some(message));
    }
}

#[test]
fn a_change_waits_for_the_addresses_that_its_group_takes_and_gives_up_and_for_no_other() {
    let two = Model { email: Some("two@example.com".to_owned()), ..profile(2) };
    let mut group = Group::new(Rows { profiles: vec![two.clone(), profile(3)], ..Rows::default() });
    next(&mut group, &patch(&two, Column::Email, "new@example.com")).expect("a decision");
    for (change, waits) in [
        (patch(&profile(3), Column::Email, "two@example.com"), true),
        (patch(&profile(3), Column::Email, "new@example.com"), true),
        (by_email("two@example.com"), true),
        (by_email("new@example.com"), true),
        (by_email("another@example.com"), false),
        (patch(&profile(3), Column::Email, "another@example.com"), false),
    ] {
        assert_eq!(next(&mut group, &change).is_none(), waits);
    }
}

#[test]
fn an_email_and_a_phone_number_have_one_owner() {
    let owner = Owner {
        id: profile(7).id,
        organization_id: ELSEWHERE,
        email: Some("ada@example.com".to_owned()),
        phone_number: Some("+15551234567".to_owned()),
    };
    let email = "Unable to use this email. Please use a different one";
    let phone = "Unable to use this phone number. Please use a different one";
    let mut group = Group::new(Rows { profiles: vec![profile(2)], owners: vec![owner], ..Rows::default() });
    for (column, text, refused) in [
        (Column::Email, "ada@example.com", Some(email)),
        (Column::Email, "+15551234567", None),
        (Column::PhoneNumber, "+15551234567", Some(phone)),
        (Column::PhoneNumber, "ada@example.com", None),
    ] {
        assert_eq!(error(&mut group, &patch(&profile(2), column, text)).as_deref(), refused);
    }
}

#[test]
fn what_is_remembered_is_not_made_again_and_stands_for_one_payload() {
    let change = with_request_id(patch(&profile(2), Column::City, "Ur"));
    let mut group = Group::new(Rows { profiles: vec![profile(2)], ..Rows::default() });
    next(&mut group, &change).expect("a decision");
    assert_eq!(next(&mut group, &change), None, "its claim is not saved yet");
    let Revised { profile, claims, .. } = group.into_saving().updated.pop().expect("a new row");
    let mut group = Group::new(Rows { profiles: vec![profile], claims, ..Rows::default() });
    assert_eq!(next(&mut group, &change), Some((Dependency::Nothing, None)));
    let other =
        Change { claim: change.claim.clone().map(|claim| Claim { payload_sha256: vec![2], ..claim }), ..change };
    let reused = "The request id has been used with another request. Use a new one.";
    assert_eq!(error(&mut group, &other).as_deref(), Some(reused));
    assert!(!group.into_saving().changes_profiles());
}

#[test]
fn a_change_names_its_profile_by_id_or_by_email() {
    assert_eq!(target_profile(&patch(&profile(2), Column::City, "Ur")), Some(profile(2).id));
    assert_eq!(target_profile(&create(4)), Some(profile(4).id));
    assert_eq!(target_profile(&by_email("ada@example.com")), None);
}
