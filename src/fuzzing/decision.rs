//! What becomes of a change, in each state that its profile may be found in.

use std::sync::LazyLock;

use chrono::{DateTime, TimeDelta, Utc};
use prost::Message as _;
use sea_orm::IdenStatic as _;
use serde::Serialize;
use uuid::Uuid;

use super::tell;
use crate::{
    entity::{
        erasure,
        profile::{Column, Model, Owner},
        profile_case::{self, Status},
        profile_change, profile_identifier, write_request,
    },
    error::Result,
    grpc::{change, json, pb},
    profile::{
        change::{Author, Change, Edit, Target, Written},
        group::{Group, Rows, Saving, Step, target_address, wanted_addresses},
        history, identifiers, policy,
    },
    server::layers::LARGEST_MESSAGE,
};

/// The organization of the caller.
pub const ORGANIZATION: Uuid = Uuid::from_u128(1);

/// Another profile than that of the change.
const ANOTHER: Uuid = Uuid::from_u128(3);

/// A profile with nothing but what it must have, and one with a value in each field.
const BARE: &[u8] = br#"{"firstName": "Ada", "lastName": "Byron"}"#;
const FULL: &[u8] = br#"{
    "firstName": "Zo\u00eb", "lastName": "King", "email": "zoe@example.com", "dob": "1995-10-01", "gender": "OTHER",
    "phoneNumber": "+15551234567", "address": "1 Main Street", "address2": "2", "city": "Ur", "state": "NY",
    "country": "US", "postalCode": "01010", "identifiers": [{"system": "mrn", "value": "1"}, {"system": "crm", "value": "2"}]
}"#;

static STORED: LazyLock<[Model; 2]> = LazyLock::new(|| {
    [BARE, FULL].map(|profile| {
        let profile = json::parse("Profile", profile).expect("a profile");
        let request = pb::CreateProfileRequest { profile: Some(profile), ..Default::default() };
        let change = change::create(request, now(), Uuid::from_u128(2)).expect("a change");
        carry_out(Rows::default(), &change).1.created.remove(0).profile
    })
});

/// The time of every change.
pub fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}

fn author() -> Author {
    Author { organization_id: ORGANIZATION, key_id: "key".to_owned(), key_name: "test".to_owned(), actor: None }
}

/// Decides a change in each state, and looks at what would be saved and answered.
pub fn decide(change: &Change) {
    for rows in states(change) {
        let creates = matches!(change.target, Target::New(_));
        let before = rows.profiles.first().filter(|_| !creates).cloned();
        let (result, saving) = carry_out(rows, change);
        let Saving { created, updated, claims, cases, erased } = saving;
        let saves = created.len() + updated.len() + claims.len() + cases.len() + usize::from(erased.is_some());
        let written = match result {
            Ok(written) => written,
            Err(error) => {
                assert_eq!(saves, 0, "what is refused is saved");
                tell(error);
                continue;
            }
        };
        assert!(saves == 0 || !change.validate_only, "what is only validated is saved");
        for revised in created.iter().chain(&updated) {
            assert_eq!(revised.expected, before.as_ref().map_or(0, |before| before.revision));
            assert_eq!(revised.history.len(), 1);
            saved(change, before.as_ref(), &revised.profile, &revised.history[0]);
        }
        if let Some(row) = erased.and_then(|erased| erased.history) {
            pb::ProfileChange::try_from(row).expect("a change that can be read");
        }
        answered(written);
    }
}

fn carry_out(rows: Rows, change: &Change) -> (Result<Written>, Saving) {
    let mut group = Group::new(rows);
    let Step::Decided { result, .. } = group.decide(&author(), change, now()) else {
        panic!("a change waits for none");
    };
    (result, group.into_saving())
}

/// What may be stored when the change comes: its profile, its addresses, its request id, its case.
fn states(change: &Change) -> Vec<Rows> {
    let target = |stored: &Model| {
        let mut profile = stored.clone();
        match &change.target {
            Target::New(_) => {}
            Target::Id(id) => profile.id = *id,
            Target::Email { email, sent: _ } => profile.email = Some(email.clone()),
        }
        profile
    };
    let [bare, full] = STORED.each_ref().map(target);
    let with_bare = || Rows { profiles: vec![bare.clone()], ..Rows::default() };
    let owner = || Owner { id: ANOTHER, organization_id: ANOTHER, email: None, phone_number: None };
    let mut owners = Vec::new();
    for (column, text) in wanted_addresses(change).chain(target_address(change)) {
        let text = Some(text.to_owned());
        owners.push(match column {
            Column::Email => Owner { email: text, ..owner() },
            _ => Owner { phone_number: text, ..owner() },
        });
    }
    let row = |identifier: &profile_identifier::Identifier| profile_identifier::Model {
        organization_id: ORGANIZATION,
        system: identifier.system.clone(),
        value: identifier.value.clone(),
        profile_id: ANOTHER,
    };
    let taken = change.edit.added().iter().map(row).collect();
    let mut states = vec![
        Rows::default(),
        with_bare(),
        Rows { profiles: vec![full.clone()], ..Rows::default() },
        Rows { profiles: vec![Model { locked: true, ..full }], owners, identifiers: taken, ..Rows::default() },
    ];
    if let Some(claim) = &change.claim {
        for payload_sha256 in [claim.payload_sha256.clone(), Vec::new()] {
            let claim = write_request::Model {
                organization_id: ORGANIZATION,
                rpc: change.rpc.name().to_owned(),
                request_id: claim.request_id.clone(),
                payload_sha256,
                profile_id: Some(bare.id),
                created_at: now(),
            };
            states.push(Rows { claims: vec![claim], ..with_bare() });
        }
    }
    match &change.edit {
        Edit::Case(report) => {
            let other = profile_case::Model { profile_id: ANOTHER, ..report.clone() };
            states.push(Rows { cases: vec![other], ..with_bare() });
            let earlier = profile_case::Model { status: Status::Approved, status_time: now(), ..report.clone() };
            states.push(Rows { cases: vec![earlier], locked_elsewhere: vec![report.profile_id], ..with_bare() });
        }
        Edit::Erase(erasing) => {
            let erasure = erasure::Model {
                profile_id: bare.id,
                organization_id: ORGANIZATION,
                erase_time: now(),
                reason_code: erasing.reason_code,
            };
            states.push(Rows { erasures: vec![erasure], ..Rows::default() });
        }
        Edit::Set { .. } | Edit::Remove(_) => {}
    }
    states
}

/// A profile's new row with its history: the next revision, by the lock, in text that both databases store.
fn saved(change: &Change, before: Option<&Model>, after: &Model, row: &profile_change::Model) {
    assert_eq!(after.revision, before.map_or(0, |before| before.revision) + 1);
    assert_eq!((row.profile_id, row.revision), (after.id, after.revision));
    let differences = history::differences(before, after).expect("differences");
    let columns = differences.iter().map(|difference| difference.column);
    let locked =
        columns.filter(|column| policy::lockable().any(|lockable| lockable.as_str() == column.as_str())).count();
    let is_locked = before.is_some_and(|before| before.locked);
    assert!(locked == 0 || !is_locked || change.rpc.may_override_lock(), "a locked field is changed");
    assert_eq!(row.lock_overridden, locked > 0 && is_locked);
    let all = identifiers::of(after);
    assert!(identifiers::column(&all) == after.identifiers && all.len() <= identifiers::MOST);
    let texts = [&row.request_id, &row.reason, &row.ticket, &row.case_id].into_iter().flatten();
    assert!(!texts.into_iter().any(|text| text.contains('\0')) && !json_of(after).contains("\\u0000"));
    pb::ProfileChange::try_from(row.clone()).expect("a change that can be read");
}

fn json_of(row: &impl Serialize) -> String {
    serde_json::to_string(row).expect("JSON")
}

/// An answer, which its caller may send back: it changes nothing.
fn answered(written: Written) {
    match written {
        Written::Profile(profile) if profile.revision == 0 => {
            assert!(pb::Profile::from(profile).id.is_empty(), "a profile that is not stored has no id");
        }
        Written::Profile(profile) => {
            let answer = pb::Profile::from(profile.clone());
            let request = pb::ReplaceProfileRequest { profile: Some(answer), ..Default::default() };
            assert!(request.encoded_len() <= LARGEST_MESSAGE);
            let back = change::replace(request, now()).expect("what is answered may be sent");
            let (result, saving) = carry_out(Rows { profiles: vec![profile], ..Rows::default() }, &back);
            assert!(result.is_ok() && !saving.changes_profiles(), "what was answered changes the profile");
        }
        Written::Case(case) => {
            let pb::Case { case_id, profile_id, status, status_time } = pb::Case::from(case);
            let again = pb::ReportCaseStatusRequest { case_id, profile_id, status, status_time };
            change::report(again, now(), ORGANIZATION).expect("what is answered may be reported");
        }
        Written::Erasure(..) => {}
    }
}
