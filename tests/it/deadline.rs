//! Deadlines are answered by the server itself, and what had begun ends whole.

use std::time::{Duration, Instant};

use prost::Message as _;
use prost::bytes::Bytes;
use serde_json::json;
use tonic::Code;

use crate::harness::{
    client, message,
    wire::{Wire, frame},
};

const PATCH: &str = "ProfileService/PatchProfile";

#[tokio::test]
async fn the_callers_deadline_is_answered_and_the_write_that_had_begun_ends_whole() {
    let (service, north) = client().await;
    let ada = north.person(json!({})).await;
    let key = service.key("north", &["profiles.write"]);
    let patch = message(PATCH, json!({ "profile": { "id": ada["id"], "city": "London" } })).encode_to_vec();
    let held = service.database.hold().await;
    let started = Instant::now();
    let headers = [("cv-api-key", key.as_str()), ("grpc-timeout", "300m")];
    let refused = Wire::connect(&service.address).await.call(PATCH, &headers, frame(&patch), true).await;
    let refused = refused.expect_err("too late");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    held.release().await;

    let deadline = Instant::now() + Duration::from_secs(5);
    while north.get(&ada).await.expect("the profile")["etag"] == "\"1\"" {
        assert!(Instant::now() < deadline, "the write has not ended");
    }
    let after = north.get(&ada).await.expect("the profile");
    let changes = north.changes(&ada).await;
    assert_eq!((&after["city"], &after["etag"], changes.len()), (&json!("London"), &json!("\"2\""), 2));
    assert_eq!(changes[0]["fields"], json!([{ "field": "city", "newValue": "London" }]));
}

#[tokio::test]
async fn a_write_that_waits_too_long_for_a_lock_is_aborted_and_leaves_nothing() {
    let (service, north) = client().await;
    let ada = north.person(json!({})).await;
    let held = service.database.hold().await;
    let started = Instant::now();
    let refused = north.patch(&ada, json!({ "city": "London" })).await.expect_err("held");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Aborted, "TRANSACTION_CONFLICT"));
    assert!(refused.retry_after.is_some());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    held.release().await;
    assert_eq!(north.get(&ada).await, Ok(ada.clone()));
    north.patch(&ada, json!({ "city": "London" })).await.expect("free again");
}

#[tokio::test]
async fn the_servers_ceiling_ends_a_call_whose_body_never_ends() {
    let (service, _north) = client().await;
    let key = service.key("north", &["profiles.write"]);
    let half = Bytes::from_static(&[0, 0, 0, 1, 0, 0x0a]); // a frame of 256 bytes, of which one comes
    let started = Instant::now();
    let wire = Wire::connect(&service.address).await;
    let refused = wire.call(PATCH, &[("cv-api-key", &key)], half, false).await.expect_err("too late");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    assert!((10..12).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_deadline_that_is_long_enough_changes_nothing() {
    let (service, north) = client().await;
    let ada = north.person(json!({})).await;
    let key = service.key("north", &["profiles.read"]);
    let wire = Wire::connect(&service.address).await;
    let get = message("ProfileService/GetProfile", json!({ "id": ada["id"] })).encode_to_vec();
    for timeout in ["5S", "99999999H", "nonsense"] {
        let headers = [("cv-api-key", key.as_str()), ("grpc-timeout", timeout)];
        wire.call("ProfileService/GetProfile", &headers, frame(&get), true).await.expect(timeout);
    }
}
