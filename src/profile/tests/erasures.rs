//! What becomes of people who are erased.

use sea_orm::Iterable as _;
use uuid::Uuid;

use super::{
    super::{
        change::{Change, Edit, Erasing, Found, Target, Written},
        decide::{
            Decision, Loaded, decide,
            tests::{at, author, change, profile},
        },
        erase::Erased,
        group::{Dependency, Group, Rows},
        history,
        policy::Rpc,
    },
    ELSEWHERE, next, patch, with_request_id,
};
use crate::{
    entity::{
        erasure::{self, ReasonCode},
        profile::{Column, Model},
    },
    error::Error,
};

pub fn erasing(rpc: Rpc, profile: &Model, even_if_locked: bool) -> Change {
    let erasing = Erasing { reason_code: ReasonCode::LegalOrder, even_if_locked, erase_time: None };
    with_request_id(change(rpc, Target::Id(profile.id), Edit::Erase(erasing)))
}

fn erasure_of(profile: &Model, organization_id: Uuid) -> erasure::Model {
    let reason_code = ReasonCode::LegalOrder;
    erasure::Model { profile_id: profile.id, organization_id, erase_time: at(1), reason_code }
}

fn decided(before: Option<&Model>, change: &Change, second: i64) -> Result<Decision, Error> {
    decide(Loaded { profile: before, ..Loaded::default() }, &author(), change, at(second))
}

#[test]
fn an_erasure_is_remembered_with_a_last_row_of_the_history() {
    // The clock may have gone back since the last change.
    for (now, time) in [(9, 9), (1, 5)] {
        let before = Model { revision: 7, locked: true, updated_at: at(5), ..profile(2) };
        let change = erasing(Rpc::EraseProfile, &before, true);
        let Decision { erased, claim, .. } = decided(Some(&before), &change, now).expect("a decision");
        let Some(Erased { erasure, history: Some(last) }) = erased else { panic!("nothing is erased") };
        assert_eq!(erasure, erasure::Model { erase_time: at(time), ..erasure_of(&before, author().organization_id) });
        assert_eq!((last.revision, last.changed_at, last.lock_overridden), (8, at(time), true));
        assert_eq!((last.rpc.as_str(), last.fields.as_str()), ("SupportService/EraseProfile", ""));
        assert_eq!(claim.and_then(|claim| claim.profile_id), Some(before.id));
        let tried = decided(Some(&before), &Change { validate_only: true, ..change }, now).expect("a decision");
        assert!(tried.erased.is_none() && tried.claim.is_none());
    }
}

#[test]
fn a_lock_is_passed_on_purpose_only() {
    for (locked, even_if_locked, refused) in
        [(false, false, false), (false, true, false), (true, false, true), (true, true, false)]
    {
        let before = Model { locked, ..profile(2) };
        let result = decided(Some(&before), &erasing(Rpc::EraseProfile, &before, even_if_locked), 1);
        assert_eq!(
            matches!(result, Err(Error::DemographicsLocked(fields)) if fields == history::locked_fields()),
            refused
        );
    }
}

#[test]
fn an_erasure_that_is_made_again_is_remembered_where_nobody_is_there() {
    let change = erasing(Rpc::ReplayErasure, &profile(2), false);
    let decision = decided(None, &change, 1).expect("a decision");
    assert!(matches!(decision.answer, Written::Erasure(_, Found::Nothing)));
    assert!(matches!(decision.erased, Some(Erased { history: None, erasure }) if erasure.profile_id == profile(2).id));
    let tried = decided(None, &Change { validate_only: true, ..change.clone() }, 1).expect("a decision");
    assert!(tried.erased.is_none());
    let first = decided(None, &Change { rpc: Rpc::EraseProfile, ..change }, 1).err();
    assert!(matches!(first, Some(Error::ProfileNotFound(_))));
}

#[test]
fn an_organization_finds_its_own_erasures_alone() {
    for (organization, dependency) in
        [(author().organization_id, Dependency::Nothing), (ELSEWHERE, Dependency::Transaction)]
    {
        let erasures = vec![erasure_of(&profile(2), organization)];
        let mut group = Group::new(Rows { erasures, ..Rows::default() });
        // What is there already is not saved again.
        assert_eq!(next(&mut group, &erasing(Rpc::ReplayErasure, &profile(2), false)), Some((dependency, None)));
        assert_eq!(group.into_saving().erased.is_some(), dependency == Dependency::Transaction);
    }
}

#[test]
fn nothing_is_saved_with_an_erasure() {
    let rows = || Rows { profiles: vec![profile(2), profile(3)], ..Rows::default() };
    let (erase, patch) = (erasing(Rpc::EraseProfile, &profile(2), false), patch(&profile(3), Column::City, "Ur"));
    let mut group = Group::new(rows());
    assert_eq!(next(&mut group, &erase), Some((Dependency::Transaction, None)));
    assert_eq!(next(&mut group, &patch), None);
    assert!(group.into_saving().erased.is_some());
    let mut group = Group::new(rows());
    assert_eq!(next(&mut group, &patch), Some((Dependency::Profile(profile(3).id), None)));
    assert_eq!(next(&mut group, &erase), None);
}

#[test]
fn the_history_knows_the_rpcs_that_erase() {
    let erasing: Vec<_> = Rpc::iter().map(Rpc::name).filter(|name| history::is_erasure(name)).collect();
    assert_eq!(erasing, ["SupportService/EraseProfile", "erasures replay"]);
}
