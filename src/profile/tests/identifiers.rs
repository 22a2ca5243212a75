//! What other systems call a person, while a group is decided.

use uuid::Uuid;

use super::{
    super::{
        change::{Change, Edit, Target},
        decide::tests::{author, change, profile},
        group::{Group, Rows, Saving},
        history, identifiers,
        policy::Rpc,
    },
    Model, next,
};
use crate::entity::profile_identifier::{self, Identifier};

fn pair(value: &str) -> Identifier {
    Identifier { system: "mrn".to_owned(), value: value.to_owned() }
}

fn with(id: u128, values: &[&str]) -> Model {
    Model { identifiers: identifiers::column(&values.iter().map(|value| pair(value)).collect()), ..profile(id) }
}

fn row(id: u128, value: &str) -> profile_identifier::Model {
    let Identifier { system, value } = pair(value);
    profile_identifier::Model { organization_id: author().organization_id, system, value, profile_id: profile(id).id }
}

fn add(id: u128, value: &str) -> Change {
    let edit = Edit::Set { columns: Vec::new(), identifiers: vec![pair(value)] };
    change(Rpc::AddIdentifier, Target::Id(profile(id).id), edit)
}

fn remove(id: u128, value: &str) -> Change {
    change(Rpc::RemoveIdentifier, Target::Id(profile(id).id), Edit::Remove(pair(value)))
}

#[test]
fn a_profile_has_its_identifiers_in_one_column_in_their_order() {
    let both = with(2, &["b", "a"]);
    assert_eq!(both.identifiers.as_deref(), Some("mrn|a\nmrn|b"));
    assert_eq!(identifiers::of(&both).iter().map(Identifier::text).collect::<Vec<_>>(), ["mrn|a", "mrn|b"]);
    assert_eq!((with(2, &[]).identifiers, identifiers::of(&profile(2)).len()), (None, 0));
}

#[test]
fn what_is_added_and_removed_is_saved_and_is_in_the_history() {
    for (before, change, added, removed, old, new) in [
        (with(2, &["a"]), add(2, "b"), vec![row(2, "b")], vec![], None, Some(r#"{"identifiers":["mrn|b"]}"#)),
        (with(2, &["a", "b"]), remove(2, "a"), vec![], vec![row(2, "a")], Some(r#"{"identifiers":["mrn|a"]}"#), None),
    ] {
        let mut group = Group::new(Rows { profiles: vec![before], ..Rows::default() });
        next(&mut group, &change).expect("a decision");
        let Saving { mut updated, .. } = group.into_saving();
        let revised = updated.pop().expect("a new row");
        assert!((revised.added, revised.removed) == (added, removed));
        let history = &revised.history[0];
        assert_eq!((history.old_values.as_deref(), history.new_values.as_deref()), (old, new));
        assert_eq!(history.fields, "identifiers");
    }
    let same = history::differences(Some(&with(2, &["a"])), &with(2, &["a"])).expect("differences");
    assert!(same.is_empty());
}

#[test]
fn a_pair_has_one_owner_in_the_organization() {
    let in_use = "Unable to use this identifier. Please use a different one";
    let foreign = profile_identifier::Model { organization_id: Uuid::from_u128(9), ..row(3, "f") };
    let rows = Rows {
        profiles: vec![with(2, &["own"]), with(3, &["loaded"])],
        identifiers: vec![row(7, "else"), foreign],
        ..Rows::default()
    };
    let mut group = Group::new(rows);
    for (value, error) in [("own", None), ("loaded", Some(in_use)), ("else", Some(in_use)), ("f", None), ("new", None)]
    {
        let (_, refused) = next(&mut group, &add(2, value)).expect("a decision");
        assert_eq!(refused.as_deref(), error, "{value}");
    }
}

#[test]
fn a_statement_adds_or_removes_and_no_pair_changes_hands_in_a_group() {
    let group = |first: &Change| {
        let rows = Rows { profiles: vec![with(2, &["a"]), with(3, &["b"])], ..Rows::default() };
        let mut group = Group::new(rows);
        next(&mut group, first).expect("a decision");
        group
    };
    let waits = |first: &Change, second: &Change| next(&mut group(first), second).is_none();
    assert!(waits(&add(2, "c"), &add(3, "c")), "the same pair");
    assert!(!waits(&add(2, "c"), &add(3, "d")));
    assert!(waits(&add(2, "c"), &remove(3, "b")));
    assert!(waits(&remove(2, "a"), &add(3, "c")));
    assert!(!waits(&remove(2, "a"), &remove(3, "b")));
    let patch = super::patch(&profile(3), super::Column::City, "Ur");
    assert!(!waits(&remove(2, "a"), &patch) && !waits(&add(2, "c"), &patch));
}
