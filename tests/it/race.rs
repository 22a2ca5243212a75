//! Races that the database decides.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use tokio::task::JoinSet;
use tonic::Code;

use crate::harness::{Client, client, rounds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_callers_who_want_one_phone_number_exactly_one_gets_it() {
    let (_service, north) = client().await;
    for round in 0..rounds(25) {
        let mut callers = JoinSet::new();
        for _ in 0..64 {
            let (north, phone) = (north.clone(), format!("+1555{round:07}"));
            let profile = json!({ "firstName": "A", "lastName": "B", "phoneNumber": phone });
            callers.spawn(async move { north.create(profile).await });
        }
        let outcomes = callers.join_all().await;
        let refusals: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        assert_eq!(refusals.len(), 63, "round {round}");
        for refused in refusals {
            assert_eq!((refused.code, refused.reason.as_str()), (Code::AlreadyExists, "PHONE_NUMBER_IN_USE"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_writers_that_each_add_1_under_an_etag_none_is_lost() {
    let (_service, north) = client().await;
    let ada = Arc::new(north.person(json!({ "postalCode": "0" })).await);
    let mut writers = JoinSet::new();
    for _ in 0..64 {
        writers.spawn(add_one(north.clone(), Arc::clone(&ada)));
    }
    writers.join_all().await;
    let after = north.get(&ada).await.expect("the profile");
    assert_eq!((&after["postalCode"], &after["etag"]), (&json!("64"), &json!("\"65\"")));
}

/// Reads, adds 1, and writes if nobody has written meanwhile, until that holds.
async fn add_one(north: Client, ada: Arc<Json>) {
    loop {
        let read = north.get(&ada).await.expect("the profile");
        let count: u32 = read["postalCode"].as_str().expect("a number").parse().expect("a number");
        match north.patch(&ada, json!({ "postalCode": (count + 1).to_string(), "etag": read["etag"] })).await {
            Ok(_) => break,
            Err(refused) => assert_eq!(refused.reason, "ETAG_MISMATCH"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_256_contended_writers_without_an_etag_succeed() {
    let (_service, north) = client().await;
    let ada = Arc::new(north.person(json!({})).await);
    let mut writers = JoinSet::new();
    for writer in 0..256 {
        let (north, ada) = (north.clone(), Arc::clone(&ada));
        writers.spawn(async move { north.patch(&ada, json!({ "city": format!("City {writer}") })).await });
    }
    for outcome in writers.join_all().await {
        outcome.expect("a write");
    }
    assert_eq!(north.get(&ada).await.expect("the profile")["etag"], "\"257\"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_repeats_in_flight_make_one_change_and_sixteen_equal_answers() {
    let (_service, north) = client().await;
    let ada = north.person(json!({ "email": "ada@example.com" })).await;
    for round in 0..10 {
        let city = format!("City {round}");
        for (rpc, request) in [
            ("ProfileService/CreateProfile", json!({ "profile": { "firstName": "Eve", "lastName": city } })),
            ("ProfileService/PatchProfile", json!({ "profile": { "id": ada["id"], "city": format!("{city} a") } })),
            ("ProfileService/UpdateProfile", json!({ "data": { "email": "ada@example.com", "city": city } })),
        ] {
            let before = north.changes(&ada).await.len();
            let mut request = request;
            request["requestId"] = json!(format!("r-{round}"));
            let mut repeats = JoinSet::new();
            for _ in 0..16 {
                let (north, request) = (north.clone(), request.clone());
                repeats.spawn(async move { north.call(rpc, request).await.expect(rpc) });
            }
            let answers = repeats.join_all().await;
            assert!(answers.iter().all(|answer| *answer == answers[0]), "{rpc}");
            if rpc == "ProfileService/CreateProfile" {
                assert_eq!(north.changes(&answers[0]).await.len(), 1);
            } else {
                assert_eq!(north.changes(&ada).await.len(), before + 1, "{rpc}");
            }
        }
    }
}
