//! Cases lock the demographics.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use chrono::{TimeDelta, Utc};
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;
use tonic::Code;

use crate::harness::{Client, Database, Failure, Service, client, rounds, until};

const LOCKING: [&str; 5] = ["ASSIGNED", "IN_PROGRESS", "APPROVED", "REJECTED", "NO_DECISION"];
const DEMOGRAPHICS: [&str; 4] = ["first_name", "last_name", "dob", "gender"];
const MONDAY: &str = "2026-01-05T10:00:00Z";
const TUESDAY: &str = "2026-01-06T10:00:00Z";

#[tokio::test]
async fn a_report_is_answered_as_it_is_stored() {
    let (_service, north) = client().await;
    let ada = north.person(json!({})).await;
    let case = north.report(" c-1 ", &ada, "OPEN", "2026-01-05T10:00:00.123456789Z").await;
    let expected = json!({ "caseId": "c-1", "profileId": ada["id"], "status": "OPEN", "statusTime": "2026-01-05T10:00:00.123456Z" });
    assert_eq!(case, Ok(expected));
}

#[tokio::test]
async fn a_profile_is_locked_in_five_statuses_and_says_so_in_every_answer() {
    let (_service, north) = client().await;
    for status in ["OPEN", "CANCELLED"].iter().chain(&LOCKING) {
        let ada = north.person(json!({ "email": format!("{}@example.com", status.to_lowercase()) })).await;
        north.report(status, &ada, status, MONDAY).await.expect("reported");
        let expected = if LOCKING.contains(status) { json!("firstName,lastName,dob,gender") } else { Json::Null };
        let email = json!({ "email": ada["email"] });
        for answer in [
            north.get(&ada).await,
            north
                .replace(json!({ "id": ada["id"], "firstName": "Ada", "lastName": "Byron", "email": ada["email"] }))
                .await,
            north.patch(&ada, json!({ "city": "London" })).await,
            north.update(json!({ "email": ada["email"], "city": "Ockham" })).await,
            north.correct(&ada, json!({ "city": "Paris" }), "she moved").await,
            north.set_role(&ada, "PROVIDER").await,
            north.call("SupportService/FindProfile", email.clone()).await,
        ] {
            assert_eq!(answer.expect("an answer")["lockedFields"], expected, "{status}");
        }
    }
}

#[tokio::test]
async fn a_locked_field_may_be_sent_as_it_is_but_not_changed_or_cleared() {
    let (_service, north) = client().await;
    let ada = north.person(json!({ "email": "ada@example.com", "dob": "1915-12-10", "gender": "FEMALE" })).await;
    north.report("c-1", &ada, "ASSIGNED", MONDAY).await.expect("reported");
    let locked = north.get(&ada).await.expect("the profile");

    let same =
        json!({ "firstName": " Ada", "lastName": "Byron", "dob": "1915-12-10", "gender": "FEMALE", "city": "London" });
    let patched = north.patch(&ada, same).await.expect("no locked field changes");
    assert_eq!(patched["city"], "London");
    north.replace(patched.clone()).await.expect("put back");

    let mut whole = patched.clone();
    whole.as_object_mut().expect("an object").remove("etag");
    whole["gender"] = json!("OTHER");
    whole["city"] = json!("Nowhere");
    for (outcome, fields) in [
        (north.replace(whole).await, vec!["gender"]),
        (north.patch(&ada, json!({ "dob": "", "city": "Nowhere" })).await, vec!["dob"]),
        (north.patch_masked(&ada, json!({}), &["gender", "dob", "city"]).await, vec!["dob", "gender"]),
        (north.update(json!({ "email": "ada@example.com", "firstName": "Eve", "lastName": "Eve", "dob": "1999-01-01", "gender": "OTHER", "city": "Nowhere" })).await, DEMOGRAPHICS.to_vec()),
    ] {
        let refused = outcome.expect_err("locked");
        assert_eq!((refused.code, refused.reason.as_str()), (Code::FailedPrecondition, "DEMOGRAPHICS_LOCKED"));
        assert_eq!(refused.message, "Cannot update user profile fields (firstName, lastName, dob, gender) for user with cases");
        assert_eq!(refused.paths(), fields);
    }
    assert_eq!(north.get(&ada).await, Ok(patched));
    assert_eq!(locked["lockedFields"], "firstName,lastName,dob,gender");
}

#[tokio::test]
async fn a_case_that_ends_unlocks_unless_another_still_locks() {
    let (_service, north) = client().await;
    let ada = north.person(json!({})).await;
    for case in ["c-1", "c-2"] {
        north.report(case, &ada, "ASSIGNED", MONDAY).await.expect("reported");
    }
    north.report("c-1", &ada, "CANCELLED", TUESDAY).await.expect("reported");
    assert_eq!(
        north.patch(&ada, json!({ "firstName": "Eve" })).await.expect_err("locked").reason,
        "DEMOGRAPHICS_LOCKED"
    );
    north.report("c-2", &ada, "CANCELLED", TUESDAY).await.expect("reported");
    assert_eq!(north.patch(&ada, json!({ "firstName": "Eve" })).await.expect("unlocked").get("lockedFields"), None);
}

#[tokio::test]
async fn a_flip_of_the_lock_is_a_revision_and_any_other_report_is_none() {
    let (_service, north) = client().await;
    let ada = north.person(json!({})).await;
    let mut versions = Vec::new();
    for (status, time) in [
        ("OPEN", MONDAY),
        ("ASSIGNED", TUESDAY),
        ("ASSIGNED", TUESDAY),
        ("APPROVED", "2026-01-07T10:00:00Z"),
        ("OPEN", MONDAY),
        ("CANCELLED", "2026-01-08T10:00:00Z"),
    ] {
        north.report("c-1", &ada, status, time).await.expect("reported");
        versions.push(north.get(&ada).await.expect("the profile")["etag"].clone());
    }
    assert_eq!(versions, ["\"1\"", "\"2\"", "\"2\"", "\"2\"", "\"2\"", "\"3\""]);
}

#[tokio::test]
async fn reports_in_any_order_and_any_number_end_alike() {
    let (_service, north) = client().await;
    // Of two reports with the same time the one that locks holds, then the greater status.
    for (reports, holds) in [
        (vec![("OPEN", MONDAY), ("ASSIGNED", TUESDAY), ("CANCELLED", "2026-01-07T10:00:00Z")], "CANCELLED"),
        (vec![("CANCELLED", MONDAY), ("ASSIGNED", MONDAY), ("OPEN", MONDAY)], "ASSIGNED"),
        (vec![("ASSIGNED", MONDAY), ("NO_DECISION", MONDAY), ("APPROVED", MONDAY)], "NO_DECISION"),
        (vec![("CANCELLED", TUESDAY), ("OPEN", TUESDAY), ("APPROVED", MONDAY)], "CANCELLED"),
    ] {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let ada = north.person(json!({})).await;
            let case = ada["id"].as_str().expect("an id");
            for index in order.iter().chain(&order) {
                let (status, time) = reports[*index];
                north.report(case, &ada, status, time).await.expect("reported");
            }
            let last = north.report(case, &ada, "OPEN", "2000-01-01T00:00:00Z").await.expect("reported");
            assert_eq!(last["status"], holds, "{order:?}");
            let locked = north.get(&ada).await.expect("the profile").get("lockedFields").is_some();
            assert_eq!(locked, LOCKING.contains(&holds), "{order:?}");
        }
    }
}

#[tokio::test]
async fn a_case_is_an_organizations_own_and_never_moves() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    let (ada, eve) = (north.person(json!({})).await, north.person(json!({})).await);
    let bob = south.person(json!({})).await;
    north.report("c-1", &ada, "OPEN", MONDAY).await.expect("reported");
    south.report("c-1", &bob, "ASSIGNED", MONDAY).await.expect("another organization's case");
    let refused = north.report("c-1", &eve, "ASSIGNED", TUESDAY).await.expect_err("ada's case");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::FailedPrecondition, "CASE_OF_ANOTHER_PROFILE"));
    assert_eq!(north.report("c-2", &bob, "OPEN", MONDAY).await.expect_err("not theirs").reason, "PROFILE_NOT_FOUND");
    for (caller, profile) in [(&north, &ada), (&north, &eve)] {
        assert_eq!(caller.get(profile).await.expect("the profile").get("lockedFields"), None);
    }
}

#[tokio::test]
async fn a_report_is_judged_whole() {
    let (_service, north) = client().await;
    let rpc = "CaseService/ReportCaseStatus";
    let empty = north.call(rpc, json!({})).await.expect_err("nothing said");
    let told: Vec<_> = empty.fields.iter().map(|(path, rule)| format!("{path} {rule}")).collect();
    assert_eq!(
        told,
        [
            "case_id is required",
            "profile_id is required",
            "status must be OPEN, ASSIGNED, IN_PROGRESS, APPROVED, REJECTED, NO_DECISION or CANCELLED",
            "status_time is required",
        ]
    );
    let ada = north.person(json!({})).await;
    let at = |ahead| (Utc::now() + TimeDelta::seconds(ahead)).to_rfc3339();
    north.report("c-1", &ada, "OPEN", &at(280)).await.expect("a clock a little ahead");
    let ahead = north.report("c-1", &ada, "OPEN", &at(320)).await.expect_err("a wrong clock");
    assert_eq!(ahead.fields[0].1, "must not be more than 5 minutes ahead of the server's clock");
    let out_of_range = json!({ "caseId": "x".repeat(101), "profileId": "1", "status": 99 });
    let refused = north.call(rpc, out_of_range).await.expect_err("out of range");
    assert_eq!(refused.paths(), ["case_id", "profile_id", "status", "status_time"]);
    let bad_nanos = [0x22, 0x06, 0x10, 0xff, 0xff, 0xff, 0xff, 0x07]; // status_time { nanos: 2147483647 }
    let refused = Failure::from(north.raw(rpc, vec![bad_nanos.to_vec()]).await.expect_err("no time"));
    assert_eq!(refused.fields[3], ("status_time".to_owned(), "must be a time between the years 1 and 9999".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_profiles_that_race_for_a_case_one_gets_it() {
    let (_service, north) = client().await;
    let people = Arc::new([north.person(json!({})).await, north.person(json!({})).await]);
    for round in 0..20 {
        let mut racers = JoinSet::new();
        for index in [0, 1] {
            let (north, people) = (north.clone(), Arc::clone(&people));
            racers.spawn(async move { north.report(&format!("c-{round}"), &people[index], "OPEN", MONDAY).await });
        }
        let outcomes = racers.join_all().await;
        let refusals: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
        assert_eq!(
            refusals.iter().map(|refused| refused.reason.as_str()).collect::<Vec<_>>(),
            ["CASE_OF_ANOTHER_PROFILE"]
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_begun_after_the_acknowledgment_changes_a_locked_field() {
    let (_service, north) = client().await;
    for round in 0..5 {
        let ada = north.person(json!({})).await;
        let acknowledged = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for writer in 0..16 {
            writers.spawn(rename_until_locked(north.clone(), ada.clone(), writer, Arc::clone(&acknowledged)));
        }
        until("a name has changed", async || north.get(&ada).await.expect("the profile")["etag"] != "\"1\"").await;
        north.report(&format!("c-{round}"), &ada, "ASSIGNED", MONDAY).await.expect("reported");
        acknowledged.store(true, Ordering::SeqCst);
        let locked = north.get(&ada).await.expect("the profile");
        writers.join_all().await;
        assert_eq!(north.get(&ada).await, Ok(locked));
    }
}

/// A write that was decided before the report is not saved after it, whichever program makes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_began_before_the_report_changes_nothing_after_its_acknowledgment() {
    let database = Arc::new(Database::create());
    // No connection ends by its age, with a call on it, however long many rounds take.
    let start = || Service::on(Arc::clone(&database), ["--max-connection-age", "1d"]);
    let replicas = [start(), start()];
    let north = replicas[0].organization("north").await;
    let other = replicas[1].client(&replicas[1].key("north", &["profiles.read", "profiles.write"])).await;
    let mut lanes = JoinSet::new();
    for lane in 0..8 {
        let (north, other) = (north.clone(), other.clone());
        lanes.spawn(async move {
            for round in 0..rounds(120) / 8 {
                let email = format!("{lane}.{round}@example.com");
                let ada = north.person(json!({ "email": email })).await;
                let writes = [(&north, "patch"), (&other, "patch"), (&north, "update"), (&other, "replace")];
                let writes = writes.map(|(client, rpc)| {
                    let (client, ada) = (client.clone(), ada.clone());
                    tokio::spawn(async move {
                        match rpc {
                            "patch" => client.patch(&ada, json!({ "firstName": "Eve" })).await,
                            "update" => client.update(json!({ "email": ada["email"], "lastName": "King" })).await,
                            _ => client.replace(json!({ "id": ada["id"], "email": ada["email"], "firstName": "Joan", "lastName": "Byron" })).await,
                        }
                    })
                });
                north.report(&format!("c-{lane}-{round}"), &ada, "ASSIGNED", MONDAY).await.expect("reported");
                let locked = other.get(&ada).await.expect("the profile");
                for write in writes {
                    let outcome = write.await.expect("a call");
                    assert!(outcome.is_ok() || outcome.is_err_and(|refused| refused.reason == "DEMOGRAPHICS_LOCKED"));
                }
                assert_eq!(north.get(&ada).await, Ok(locked));
            }
        });
    }
    lanes.join_all().await;
}

/// Renames until a write that began after the acknowledgment has been refused.
async fn rename_until_locked(north: Client, ada: Json, writer: u32, acknowledged: Arc<AtomicBool>) {
    for attempt in 0.. {
        let began_after = acknowledged.load(Ordering::SeqCst);
        match north.patch(&ada, json!({ "firstName": format!("Ada {writer} {attempt}") })).await {
            Ok(_) => assert!(!began_after, "a locked field has changed"),
            Err(refused) => assert_eq!(refused.reason, "DEMOGRAPHICS_LOCKED"),
        }
        if began_after {
            break;
        }
    }
}
