//! Who does not read its answers, or holds streams open, costs nobody else a call.

#![allow(clippy::float_cmp, reason = "counts are whole numbers")]

use std::time::Duration;

use prost::{Message as _, bytes::Bytes};
use serde_json::{Value as Json, json};
use tokio::{task::JoinSet, time::timeout};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::{
    Client, Database, Failure, Service, message,
    wire::{Wire, frame},
};

const LIST: &str = "SupportService/ListProfileChanges";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// Streams that a connection may have open without a key.
const KEYLESS: usize = 4;

#[tokio::test]
async fn a_peer_that_reads_none_of_its_large_answers_is_cut_and_no_other() {
    let service = Service::observed(Database::create().into(), []);
    let north = service.organization("north").await;
    let ada = much_changed(&north).await;
    let key = service.key("north", &["support"]);
    let (deaf, polite) = (Wire::deaf(&service.address).await, Wire::connect(&service.address).await);
    let ask = frame(&message(LIST, json!({ "id": ada["id"], "pageSize": 200 })).encode_to_vec());
    let headers = [("cv-api-key", key.as_str())];
    let mut unread = Vec::new();
    for _ in 0..32 {
        unread.push(deaf.begin(LIST, &headers, ask.clone(), true).await);
        polite.call(LIST, &headers, ask.clone(), true).await.expect("a page");
    }
    let _cut = timeout(Duration::from_secs(10), deaf.ended()).await.expect("8 MiB that nobody reads");
    let cut = service.scrape().await.sum("profile_service_connections_ended_total", &[r#"end="cut""#]);
    assert_eq!(cut, 1.0);
    let polite = std::sync::Arc::new(polite);
    let mut pages = JoinSet::new();
    for _ in 0..20 {
        let (polite, key, ask) = (polite.clone(), key.clone(), ask.clone());
        pages.spawn(async move { polite.call(LIST, &[("cv-api-key", &key)], ask, true).await });
    }
    for page in pages.join_all().await {
        page.expect("a page");
    }
}

/// Somebody whose history has more than a page.
async fn much_changed(north: &Client) -> Json {
    let ada = north.person(json!({})).await;
    for number in 0..80 {
        let long = format!("{number}{}", "\u{1f600}".repeat(190));
        let changed = north.correct(&ada, json!({ "address": long, "address2": long }), &"\u{1f600}".repeat(500)).await;
        changed.expect("corrected");
    }
    ada
}

#[tokio::test]
async fn a_connection_has_4_streams_without_a_key_and_a_place_again_when_one_ends() {
    let service = Service::start();
    let (first, second) = (Wire::connect(&service.address).await, Wire::connect(&service.address).await);
    let mut open = Vec::new();
    for number in 0..KEYLESS {
        let (path, body, end) =
            if number % 2 == 0 { (WATCH, frame(b""), true) } else { (REFLECTION, Bytes::new(), false) };
        let mut begun = first.begin(path, &[], body, end).await;
        begun.head().await;
        open.push(begun);
    }
    for path in [WATCH, REFLECTION] {
        let refused = Failure::from(first.begin(path, &[], frame(b""), true).await.status().await);
        assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
        assert!(refused.retry_after.is_some());
    }
    second.begin(WATCH, &[], frame(b""), true).await.head().await;
    first.call("/grpc.health.v1.Health/Check", &[], frame(b""), true).await.expect("health");
    open.pop();
    let again =
        async { while first.begin(WATCH, &[], frame(b""), true).await.head().await.contains_key("grpc-status") {} };
    timeout(Duration::from_secs(5), again).await.expect("a free place");
}

#[tokio::test]
async fn a_watch_ends_at_its_callers_deadline_with_a_reason() {
    let service = Service::start();
    let mut client = HealthClient::new(service.channel().await);
    let mut request = tonic::Request::new(HealthCheckRequest { service: "liveness".to_owned() });
    request.metadata_mut().insert("grpc-timeout", "500m".parse().expect("metadata"));
    let mut watch = client.watch(request).await.expect("a stream").into_inner();
    assert!(watch.message().await.expect("a message").is_some());
    let refused = Failure::from(watch.message().await.expect_err("too late"));
    assert_eq!((refused.code, refused.reason.as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
}
