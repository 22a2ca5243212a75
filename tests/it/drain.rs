//! The end: nothing in flight is lost, and nobody can keep the program from ending.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prost::Message as _;
use serde_json::{Value as Json, json};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::Code;

use crate::harness::{
    Client, Database, Outcome, Service, message,
    wire::{Wire, frame},
};

const PATCH: &str = "ProfileService/PatchProfile";

/// The preface of HTTP/2 and empty SETTINGS.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_flight_are_answered_while_new_connections_are_refused() {
    let (mut service, north) = started_with(["--max-in-flight", "8"]).await;
    let ada = north.person(json!({})).await;
    let held = service.database.hold().await;
    let mut calls = JoinSet::new();
    for number in 0..8 {
        let (north, ada) = (north.clone(), ada.clone());
        calls.spawn(async move { patch(&north, &ada, &format!("City {number}")).await });
    }
    every_place_is_taken(&north, &ada).await;
    service.signal("TERM");
    while TcpStream::connect(&service.address).await.is_ok() {}
    held.release().await;
    for outcome in calls.join_all().await {
        outcome.expect("a call in flight is answered");
    }
    let (code, log) = service.end().await;
    assert_eq!(code, Some(0));
    assert!(log.last().is_some_and(|line| line.contains("\"drained\"")), "{log:?}");
}

#[tokio::test]
async fn a_write_whose_caller_has_gone_ends_whole_before_the_program_does() {
    let (mut service, north) = started_with(["--drain-timeout", "5s"]).await;
    let ada = north.person(json!({})).await;
    let key = service.key("north", &["profiles.write"]);
    let patch = message(PATCH, json!({ "profile": { "id": ada["id"], "city": "London" } })).encode_to_vec();
    let held = service.database.hold().await;
    let headers = [("cv-api-key", key.as_str()), ("grpc-timeout", "300m")];
    let call = Wire::connect(&service.address).await.call(PATCH, &headers, frame(&patch), true).await;
    assert_eq!(call.expect_err("held").code, Code::DeadlineExceeded);
    service.signal("TERM");
    let database = Arc::clone(&service.database);
    let longer_than_a_drain_of_nothing = async {
        sleep(Duration::from_millis(500)).await;
        held.release().await;
    };
    let ((code, _), ()) = tokio::join!(service.end(), longer_than_a_drain_of_nothing);
    assert_eq!(code, Some(0));
    assert_eq!(database.number("SELECT COUNT(*) AS number FROM profile WHERE city = 'London'").await, 1);
}

/// Patches as soon as there is a place.
async fn patch(north: &Client, person: &Json, city: &str) -> Outcome {
    loop {
        match north.patch(person, json!({ "city": city })).await {
            Err(refused) if refused.reason == "OVERLOADED" => {}
            outcome => return outcome,
        }
    }
}

/// Waits until every place is taken.
async fn every_place_is_taken(north: &Client, person: &Json) {
    while north.get(person).await.map_or_else(|refused| refused.reason, |_| String::new()) != "OVERLOADED" {}
}

#[tokio::test]
async fn silent_peers_and_peers_that_do_not_read_do_not_keep_it_from_ending() {
    let (mut service, north) = started_with(["--drain-timeout", "2s"]).await;
    north.person(json!({})).await;
    let mut peers = Vec::new();
    for hello in [&b""[..], &HELLO[..10], HELLO] {
        let mut peer = TcpStream::connect(&service.address).await.expect("a connection");
        peer.write_all(hello).await.expect("a silent peer");
        peers.push(peer);
    }
    let started = Instant::now();
    service.signal("TERM");
    assert_eq!(service.end().await.0, Some(0));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_open_reflection_stream_ends_where_the_drain_begins() {
    use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_client::ServerReflectionClient};
    let mut service = Service::start();
    let mut client = ServerReflectionClient::new(service.channel().await);
    let never = tokio_stream::pending::<ServerReflectionRequest>();
    let mut answers = client.server_reflection_info(never).await.expect("a stream").into_inner();
    service.signal("TERM");
    assert!(answers.message().await.expect("an end without an error").is_none());
    let (code, log) = service.end().await;
    assert_eq!(code, Some(0));
    assert!(log.last().is_some_and(|line| line.contains("\"drained\"")), "{log:?}");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (mut service, north) = started_with(["--max-in-flight", "1"]).await;
    let ada = north.person(json!({})).await;
    let held = service.database.hold().await;
    let (patching, person) = (north.clone(), ada.clone());
    let call = tokio::spawn(async move { patch(&patching, &person, "London").await });
    every_place_is_taken(&north, &ada).await;
    service.signal("TERM");
    while TcpStream::connect(&service.address).await.is_ok() {}
    let started = Instant::now();
    service.signal("INT");
    assert_eq!(service.end().await.0, Some(1));
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    call.await.expect("a call").expect_err("cut off");
    held.release().await;
}

#[tokio::test]
async fn a_connection_ends_at_its_age_once_its_call_is_answered() {
    let (service, north) = started_with(["--max-connection-age", "500ms"]).await;
    let ada = north.person(json!({})).await;
    let key = service.key("north", &["profiles.write"]);
    let patch = message(PATCH, json!({ "profile": { "id": ada["id"], "city": "London" } })).encode_to_vec();
    let held = service.database.hold().await;
    let wire = Wire::connect(&service.address).await;
    let headers = [("cv-api-key", key.as_str())];
    let past_its_age = async {
        sleep(Duration::from_secs(1)).await;
        held.release().await;
    };
    let (answer, ()) = tokio::join!(wire.call(PATCH, &headers, frame(&patch), true), past_its_age);
    answer.expect("a call of a connection that is too old");
    timeout(Duration::from_secs(1), wire.ended()).await.expect("it has ended").expect("in good order");
}

async fn started_with(arguments: [&str; 2]) -> (Service, Client) {
    let service = Service::on(Database::create().into(), arguments);
    let client = service.organization("north").await;
    (service, client)
}
