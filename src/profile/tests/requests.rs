//! Request ids, and what an answer is about.

use super::{
    super::{
        change::{Written, etag},
        decide::{
            Loaded, decide,
            tests::{at, author, profile},
        },
    },
    Column, Model, patch, with_request_id,
};

#[test]
fn a_request_id_is_of_one_rpc_of_one_organization() {
    let patch = patch(&profile(2), Column::City, "Ur");
    assert_eq!(patch.claim_key(&author()), None);
    let key = (author().organization_id, "ProfileService/PatchProfile".to_owned(), "r".to_owned());
    assert_eq!(with_request_id(patch).claim_key(&author()), Some(key));
}

#[test]
fn a_change_and_one_that_changes_nothing_are_remembered_alike() {
    let before = profile(2);
    let loaded = Loaded { profile: Some(&before), ..Loaded::default() };
    for (name, changes) in [("Eve", true), ("Ada", false)] {
        let patch = with_request_id(patch(&before, Column::FirstName, name));
        let decision = decide(loaded, &author(), &patch, at(1)).expect("a decision");
        let claim = decision.claim.expect("a claim");
        assert_eq!(decision.revision.is_some(), changes);
        assert_eq!(Some(claim.key()), patch.claim_key(&author()));
        assert_eq!((claim.payload_sha256, claim.profile_id, claim.created_at), (vec![1], Some(before.id), at(1)));
    }
}

#[test]
fn an_answer_tells_the_revision_and_names_the_profile_if_it_is_stored() {
    let of = |revision| Written::Profile(Model { revision, ..profile(2) });
    assert_eq!((of(7).revision(), of(7).profile_id()), (Some(7), Some(profile(2).id)));
    assert_eq!((of(1).revision(), of(1).profile_id()), (Some(1), Some(profile(2).id)));
    assert_eq!((of(0).revision(), of(0).profile_id()), (Some(0), None));
    assert_eq!(etag(&Model { revision: 7, ..profile(2) }), "\"7\"");
}
