//! Reports about cases, and what they lock.

use sea_orm::Iterable as _;
use uuid::Uuid;

use super::{
    super::{
        change::{Edit, Target, Written},
        decide::{
            Loaded, decide,
            tests::{at, author, change, profile, report},
        },
        group::{Dependency, Group, Rows, Saving},
        history, policy,
        policy::Rpc,
    },
    next, with_request_id,
};
use crate::{
    entity::{
        profile::Model,
        profile_case::{self, Status},
    },
    error::Error,
};

const CANCELLED: Status = Status::Cancelled;
const ASSIGNED: Status = Status::Assigned;

fn reporting(report: &profile_case::Model) -> super::Change {
    change(Rpc::ReportCaseStatus, Target::Id(Uuid::from_u128(2)), Edit::Case(report.clone()))
}

#[test]
fn a_case_locks_from_its_assignment_until_it_is_cancelled() {
    let locking: Vec<_> = Status::iter().filter(|status| policy::locks(*status)).collect();
    assert_eq!(locking, [ASSIGNED, Status::InProgress, Status::Approved, Status::Rejected, Status::NoDecision]);
    assert_eq!(history::locked_fields(), ["first_name", "last_name", "dob", "gender"]);
}

#[test]
fn the_later_report_holds_then_the_one_that_locks_then_the_greater_status() {
    let ascending = [
        report("c", ASSIGNED, 1),
        report("c", Status::Open, 2),
        report("c", CANCELLED, 2),
        report("c", ASSIGNED, 2),
        report("c", Status::InProgress, 2),
        report("c", Status::Open, 3),
    ];
    for (n, one) in ascending.iter().enumerate() {
        for (m, other) in ascending.iter().enumerate() {
            assert_eq!(policy::supersedes(one, other), n > m, "{one:?} {other:?}");
        }
    }
}

#[test]
fn a_report_that_holds_is_stored_and_answered_and_another_answers_what_is_stored() {
    let stored = report("c", ASSIGNED, 5);
    for (locked, sent, saved, holds, is_locked) in [
        (false, report("c", Status::Open, 6), None, true, false), // the first, which locks nothing
        (false, report("c", ASSIGNED, 6), None, true, true),
        (true, report("c", CANCELLED, 6), Some(&stored), true, false),
        (true, report("c", Status::Approved, 6), Some(&stored), true, true),
        (true, report("c", CANCELLED, 4), Some(&stored), false, true), // late
        (true, stored.clone(), Some(&stored), false, true),            // again
    ] {
        let before = Model { locked, ..profile(2) };
        let loaded = Loaded { profile: Some(&before), case: saved, ..Loaded::default() };
        let decision = decide(loaded, &author(), &with_request_id(reporting(&sent)), at(9)).expect("a decision");
        assert_eq!(decision.case, holds.then(|| sent.clone()), "{sent:?}");
        assert!(matches!(decision.answer, Written::Case(case) if case == if holds { sent } else { stored.clone() }));
        assert_eq!(
            decision.revision.map(|revision| revision.profile.locked),
            (locked != is_locked).then_some(is_locked)
        );
        assert_eq!(decision.claim.map(|claim| claim.request_id).as_deref(), Some("r"));
    }
}

#[test]
fn a_case_never_moves_to_another_profile() {
    let (before, other) =
        (profile(2), profile_case::Model { profile_id: Uuid::from_u128(3), ..report("c", ASSIGNED, 1) });
    let loaded = Loaded { profile: Some(&before), case: Some(&other), ..Loaded::default() };
    let refused = decide(loaded, &author(), &reporting(&report("c", CANCELLED, 2)), at(9)).err();
    assert!(matches!(refused, Some(Error::CaseOfAnotherProfile)));
}

#[test]
fn a_profile_stays_locked_while_another_case_of_it_locks() {
    let another = |id| profile_case::Model { profile_id: Uuid::from_u128(id), ..report("d", ASSIGNED, 1) };
    let own = || report("c", ASSIGNED, 1);
    for (cases, locked_elsewhere, stays) in [
        (vec![own()], vec![], false),
        (vec![own(), another(2)], vec![], true),
        (vec![own(), another(3)], vec![], false), // of another person
        (vec![own(), report("d", CANCELLED, 1)], vec![], false),
        (vec![own()], vec![Uuid::from_u128(2)], true),
        (vec![own()], vec![Uuid::from_u128(3)], false),
    ] {
        let before = Model { locked: true, ..profile(2) };
        let rows = Rows { profiles: vec![before], cases: cases.clone(), locked_elsewhere, ..Rows::default() };
        let mut group = Group::new(rows);
        next(&mut group, &reporting(&report("c", CANCELLED, 2))).expect("a decision");
        let Saving { updated, cases: saved, .. } = group.into_saving();
        assert_eq!(updated.is_empty(), stays, "{cases:?}");
        assert_eq!(saved, [report("c", CANCELLED, 2)]);
    }
}

#[test]
fn a_report_waits_for_the_cases_that_its_group_saves() {
    let mut group = Group::new(Rows { profiles: vec![profile(2)], ..Rows::default() });
    let (open, unknown) = (report("c", Status::Open, 1), super::patch(&profile(7), super::Column::City, "Ur"));
    assert_eq!(next(&mut group, &reporting(&open)), Some((Dependency::Transaction, None)));
    assert_eq!(next(&mut group, &reporting(&open)), Some((Dependency::Transaction, None)));
    let (depends_on, error) = next(&mut group, &unknown).expect("a decision");
    assert_eq!((depends_on, error.is_some()), (Dependency::Nothing, true));
}
