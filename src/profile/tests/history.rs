//! What the history keeps of a change, and how it is read.

use super::{
    super::{
        decide::tests::{author, change, profile, set},
        history::{self, FieldChange, field_changes, field_names, record},
        policy::Rpc,
    },
    Model, Target, with_request_id,
};

/// A change of a field with its old and its new value.
fn field(field: &str, old: Option<&str>, new: Option<&str>) -> FieldChange {
    FieldChange { field: field.to_owned(), old_value: old.map(str::to_owned), new_value: new.map(str::to_owned) }
}

#[test]
fn a_row_tells_who_changed_which_fields_from_what_to_what() {
    let before = Model { city: Some("Ur".to_owned()), state: Some("NY".to_owned()), ..profile(2) };
    let after = Model { city: Some("Uruk".to_owned()), state: None, locked: true, revision: 2, ..before.clone() };
    let differences = history::differences(Some(&before), &after).expect("differences");
    let patch = with_request_id(change(Rpc::PatchProfile, Target::Id(before.id), set(Vec::new())));
    let row = record(&author(), &patch, &after, &differences, false);
    assert_eq!(row.fields, "locked city state");
    assert_eq!(row.old_values.as_deref(), Some(r#"{"city":"Ur","state":"NY"}"#));
    assert_eq!(row.new_values.as_deref(), Some(r#"{"city":"Uruk","locked":true}"#));
    assert_eq!((row.profile_id, row.revision, row.rpc.as_str()), (before.id, 2, "ProfileService/PatchProfile"));
    assert_eq!((row.key_id.as_str(), row.request_id.as_deref()), ("k", Some("r")));
    let created = history::differences(None, &profile(2)).expect("differences");
    let row = record(&author(), &patch, &profile(2), &created, false);
    assert_eq!((row.fields.as_str(), row.old_values.as_deref()), ("role first_name last_name", None));
}

#[test]
fn a_row_is_read_by_the_names_of_the_contract_and_a_lock_as_what_is_locked() {
    let (old, new) = (r#"{"city":"Ur"}"#, r#"{"locked":true,"city":"Uruk","identifiers":["mrn|1","mrn|2"]}"#);
    let changes = field_changes("locked city identifiers", Some(old), Some(new)).expect("changes");
    assert_eq!(
        changes,
        [
            field("locked_fields", None, Some("first_name,last_name,dob,gender")),
            field("city", Some("Ur"), Some("Uruk")),
            field("identifiers", None, Some("mrn|1")),
            field("identifiers", None, Some("mrn|2")),
        ]
    );
    let removed = field_changes("identifiers", Some(r#"{"identifiers":["mrn|1"]}"#), None).expect("changes");
    assert_eq!(removed, [field("identifiers", Some("mrn|1"), None)]);
    assert_eq!(field_names("locked city").collect::<Vec<_>>(), ["locked_fields", "city"]);
    // After an erasure the values are gone, and the names are not.
    assert_eq!(field_changes("city", None, None).expect("changes"), [field("city", None, None)]);
    assert!(field_changes("city", Some("?"), None).is_err());
}

#[test]
fn an_rpc_is_named_as_the_contract_names_it() {
    use sea_orm::Iterable as _;
    assert_eq!(
        Rpc::iter().map(Rpc::name).collect::<Vec<_>>(),
        [
            "ProfileService/CreateProfile",
            "ProfileService/ReplaceProfile",
            "ProfileService/PatchProfile",
            "ProfileService/UpdateProfile",
            "CaseService/ReportCaseStatus",
            "SupportService/CorrectProfile",
            "SupportService/SetProfileRole",
            "ProfileIdentifierService/AddIdentifier",
            "ProfileIdentifierService/RemoveIdentifier",
            "SupportService/EraseProfile",
            "erasures replay",
            "import",
        ]
    );
}
