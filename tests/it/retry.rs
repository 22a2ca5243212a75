//! What a client library is told about repeating a call: gRPC's own pushback.

use std::time::Duration;

use prost::Message as _;
use serde_json::{Value as Json, json};
use tonic::Code;

use crate::{
    harness::{
        Failure, Service, client, message,
        wire::{Wire, frame},
    },
    walk::{change_of, to_change, writing_rpcs},
};

#[tokio::test]
async fn a_stale_etag_is_never_to_be_repeated_and_bad_input_says_nothing() {
    let (_service, north) = client().await;
    let ada = north.person(json!({})).await;
    north.patch(&ada, json!({ "city": "London" })).await.expect("patched");
    let stale = north.patch(&ada, json!({ "city": "Ockham", "etag": ada["etag"] })).await.expect_err("stale");
    assert_eq!((stale.reason.as_str(), stale.pushback), ("ETAG_MISMATCH", Some(-1)));
    let invalid = north.patch(&ada, json!({ "dob": "never" })).await.expect_err("invalid");
    assert_eq!((invalid.reason.as_str(), invalid.pushback), ("INVALID_FIELDS", None));
}

#[tokio::test]
async fn what_was_not_executed_may_be_repeated_after_a_second_or_so() {
    let (service, north) = client().await;
    let ada = north.person(json!({})).await;
    let held = service.database.hold().await;
    let refused = north.patch(&ada, json!({ "city": "London" })).await.expect_err("held");
    held.release().await;
    assert_eq!((refused.reason.as_str(), refused.retry_after), ("TRANSACTION_CONFLICT", Some(Duration::from_secs(1))));
    assert!(refused.pushback.is_some_and(|pushback| (500..=1500).contains(&pushback)), "{refused:?}");
}

/// Every write is held until its caller's deadline.
#[tokio::test]
async fn a_write_that_may_have_been_made_is_never_to_be_repeated_unless_it_can_be() {
    let (service, north) = client().await;
    let mut people = Vec::new();
    for number in 0..writing_rpcs().len() {
        people.push(north.person(to_change(&number.to_string())).await);
    }
    let key = service.key("north", &["profiles.write", "cases.report", "support", "privacy"]);
    let held = service.database.hold().await;
    for (rpc, person) in writing_rpcs().iter().zip(&people) {
        if rpc == "ProfileService/CreateProfile" && service.database.is_postgres() {
            continue; // which no lock on a person holds
        }
        let plain = change_of(rpc, person);
        let mut repeatable = plain.clone();
        let report = rpc == "CaseService/ReportCaseStatus";
        if !report {
            repeatable["requestId"] = json!("r-1");
        }
        let never = if report { None } else { Some(-1) };
        assert_eq!(late(&service, &key, rpc, plain).await.pushback, never, "{rpc}");
        assert_eq!(late(&service, &key, rpc, repeatable).await.pushback, None, "{rpc}");
    }
    held.release().await;
}

/// What a call is told that its caller gives too little time.
async fn late(service: &Service, key: &str, rpc: &str, request: Json) -> Failure {
    let headers = [("cv-api-key", key), ("grpc-timeout", "300m")];
    let body = frame(&message(rpc, request).encode_to_vec());
    let refused = Wire::connect(&service.address).await.call(rpc, &headers, body, true).await.expect_err("held");
    assert_eq!(refused.code, Code::DeadlineExceeded);
    refused
}

#[tokio::test]
async fn a_read_that_was_too_late_says_nothing() {
    let (service, _north) = client().await;
    let key = service.key("north", &["profiles.read"]);
    let half = frame(b"half").slice(..7);
    let headers = [("cv-api-key", key.as_str()), ("grpc-timeout", "300m")];
    let refused = Wire::connect(&service.address).await.call("ProfileService/GetProfile", &headers, half, false).await;
    assert_eq!(refused.expect_err("too late").pushback, None);
}
