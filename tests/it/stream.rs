//! Calls whose answer is a stream: how many there may be, how each ends, and that who does not read costs nobody else.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prost::Message as _;
use prost_reflect::DynamicMessage;
use serde_json::{Value as Json, json};
use tokio::time::timeout;
use tonic::Code;

use crate::harness::{
    Client, Database, Failure, POOL, Service, Way, message, until,
    wire::{Begun, Reading, Wire, frame},
};

const WATCH: &str = "ProfileQueryService/WatchProfiles";
const LIST: [&str; 1] = ["profiles.list"];

/// How long a test waits for what should come at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// Begins to follow the changes from now on.
async fn begin(wire: &Wire, key: &str, further: &[(&str, &str)]) -> Begun {
    let ask = frame(&message(WATCH, json!({ "skipExisting": true })).encode_to_vec());
    let headers = [&[("cv-api-key", key)], further].concat();
    wire.begin(WATCH, &headers, ask, true).await
}

/// Follows the changes from now on, and has had the first message.
async fn follow(wire: &Wire, key: &str) -> Reading {
    let mut reading = begin(wire, key, &[]).await.read().await;
    reading.message().await.expect("the first message comes at once");
    reading
}

/// Why a stream does not begin.
async fn refused(wire: &Wire, key: &str) -> Failure {
    begin(wire, key, &[]).await.read().await.message().await.expect_err("no place").into()
}

/// Reads to the end, and answers the kinds of the messages, how many bytes they had with their frames, and the end.
async fn rest(reading: &mut Reading) -> (Vec<String>, usize, Failure) {
    let (mut kinds, mut bytes) = (Vec::new(), 0);
    let end = async {
        loop {
            match reading.message().await {
                Ok(message) => {
                    bytes += 5 + message.len();
                    kinds.push(kind(&message));
                }
                Err(status) => return Failure::from(status),
            }
        }
    };
    let end = timeout(PATIENCE, end).await.expect("an end");
    (kinds, bytes, end)
}

fn kind(message: &[u8]) -> String {
    let descriptor = POOL.get_message_by_name("profiles.v1.WatchProfilesResponse").expect("a message");
    let message = DynamicMessage::decode(descriptor, message).expect("a message of the contract");
    let json = serde_json::to_value(message).expect("JSON");
    json["kind"].as_str().expect("a kind").to_owned()
}

/// The lines that streams have left in the log, once the program has drained.
async fn lines(service: &mut Service) -> Vec<Json> {
    let (code, log) = service.end().await;
    assert_eq!(code, Some(0));
    assert!(log.last().is_some_and(|line| line.contains("\"drained\"")), "{log:?}");
    let lines = log.iter().map(|line| serde_json::from_str::<Json>(line).expect("JSON"));
    lines.filter(|line| line["span"]["method"] == format!("/profiles.v1.{WATCH}")).collect()
}

fn started_with<const N: usize>(arguments: [&str; N]) -> Service {
    let service = Service::on(Arc::new(Database::create()), arguments);
    service.run(["organization", "create", "north"]);
    service
}

#[tokio::test]
async fn a_stream_too_many_is_refused_and_so_is_one_past_a_quarter_by_one_key() {
    let service = started_with(["--max-streams", "8", "--max-in-flight", "1"]);
    let keys: Vec<_> = (0..5).map(|_| service.key("north", &LIST)).collect();
    let wire = Wire::connect(&service.address).await;
    let mut open = Vec::new();
    for key in &keys[..4] {
        open.extend([follow(&wire, key).await, follow(&wire, key).await]);
        let refused = refused(&wire, key).await;
        assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
        assert!(refused.retry_after.is_some() && refused.pushback.is_some());
    }
    assert_eq!(refused(&wire, &keys[4]).await.reason, "OVERLOADED");
    let client: Client = service.client(&keys[4]).await;
    client.call("KeyService/GetCurrentKey", json!({})).await.expect("streams are no calls in flight");
    open.pop();
    until("the place is free", async || begins(&wire, &keys[4]).await).await;
}

/// Whether a stream begins.
async fn begins(wire: &Wire, key: &str) -> bool {
    begin(wire, key, &[]).await.read().await.message().await.is_ok()
}

#[tokio::test]
async fn a_stream_lasts_to_its_callers_deadline_and_leaves_one_line_with_what_was_sent() {
    let mut service = started_with([]);
    let (key, wire) = (service.key("north", &LIST), Wire::connect(&service.address).await);
    // Longer than a call may take.
    let (allowed, begun) = (Duration::from_secs(11), Instant::now());
    let mut reading = begin(&wire, &key, &[("grpc-timeout", "11S"), ("x-request-id", "r-1")]).await.read().await;
    let (kinds, bytes, end) = rest(&mut reading).await;
    assert_eq!((end.code, end.reason.as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    assert!(begun.elapsed().abs_diff(allowed) < Duration::from_secs(2), "{:?}", begun.elapsed());
    service.signal("TERM");
    let lines = lines(&mut service).await;
    let [line] = lines.as_slice() else { panic!("one line of {lines:?}") };
    assert_eq!((&line["code"], &line["span"]["reason"]), (&json!("DeadlineExceeded"), &json!("DEADLINE_EXCEEDED")));
    assert_eq!((&line["messages"], &line["bytes"]), (&json!(kinds.len()), &json!(bytes)));
    assert_eq!((&line["span"]["request_id"], &line["span"]["key_id"]), (&json!("r-1"), &json!(lookup(&key))));
    assert!(line["duration_us"].as_u64() > Some(10_000_000), "{line}");
}

/// The part of a key that names it.
fn lookup(key: &str) -> &str {
    key.split('_').nth(1).expect("a key")
}

#[tokio::test]
async fn a_drain_ends_a_stream_after_a_last_heartbeat() {
    let mut service = started_with([]);
    let key = service.key("north", &LIST);
    let (wire, deaf) = (Wire::connect(&service.address).await, Wire::deaf(&service.address).await);
    let mut reading = follow(&wire, &key).await;
    let mut unread = begin(&deaf, &key, &[]).await;
    unread.head().await;
    let begun = Instant::now();
    service.signal("TERM");
    let (kinds, _, end) = rest(&mut reading).await;
    assert_eq!(kinds.last().map(String::as_str), Some("KIND_HEARTBEAT"));
    assert_eq!((end.code, end.reason.as_str()), (Code::Unavailable, "STREAM_ENDED"));
    let lines = lines(&mut service).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "who does not read keeps nobody: {:?}", begun.elapsed());
    let reasons: Vec<_> = lines.iter().map(|line| &line["span"]["reason"]).collect();
    assert_eq!(reasons, ["STREAM_ENDED", "STREAM_ENDED"]);
}

#[tokio::test]
async fn a_connection_at_its_age_ends_its_streams_first_and_then_itself() {
    let service = started_with(["--max-connection-age", "1s"]);
    let key = service.key("north", &LIST);
    let (wire, deaf) = (Wire::connect(&service.address).await, Wire::deaf(&service.address).await);
    let mut reading = follow(&wire, &key).await;
    let mut unread = begin(&deaf, &key, &[]).await;
    unread.head().await;
    let (kinds, _, end) = rest(&mut reading).await;
    assert_eq!(kinds.last().map(String::as_str), Some("KIND_HEARTBEAT"));
    assert_eq!((end.code, end.reason.as_str()), (Code::Unavailable, "STREAM_ENDED"));
    drop(reading);
    for connection in [wire, deaf] {
        timeout(PATIENCE, connection.ended()).await.expect("it has ended").expect("in good order");
    }
}

#[tokio::test]
async fn a_key_that_is_revoked_or_expires_ends_its_streams_within_5_seconds_and_no_others() {
    let mut service = started_with([]);
    let [revoked, other] = [(); 2].map(|()| service.key("north", &LIST));
    let (wire, deaf) = (Wire::connect(&service.address).await, Wire::deaf(&service.address).await);
    let (mut other_one, mut revoked_one) = (follow(&wire, &other).await, follow(&wire, &revoked).await);
    let mut unread = begin(&deaf, &revoked, &[]).await;
    unread.head().await;
    service.run(["key", "revoke", lookup(&revoked)]);
    ends_with_its_key(&mut revoked_one, Instant::now()).await;

    let brief = ["--name", "brief", "--scope", "profiles.list", "--expires", "4s"];
    let [n, name, s, scope, e, lifetime] = brief;
    let expiring = service.run(["key", "create", "--organization", "north", n, name, s, scope, e, lifetime]);
    let expires = Instant::now() + Duration::from_secs(4);
    ends_with_its_key(&mut follow(&wire, &expiring).await, expires).await;

    service.signal("TERM");
    assert_eq!(rest(&mut other_one).await.2.reason, "STREAM_ENDED");
    let lines = lines(&mut service).await;
    let ended = lines.iter().filter(|line| line["span"]["reason"] == "API_KEY_INVALID").count();
    assert_eq!(ended, 3, "the one that is not read is ended too: {lines:?}");
}

/// Whether a stream ends in time after its key.
async fn ends_with_its_key(reading: &mut Reading, no_longer_valid: Instant) {
    let (_, _, end) = rest(reading).await;
    assert_eq!((end.code, end.reason.as_str()), (Code::Unauthenticated, "API_KEY_INVALID"));
    let late = Instant::now().saturating_duration_since(no_longer_valid);
    assert!(late < Duration::from_secs(5), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_makes_no_key_invalid() {
    let database = Arc::new(Database::create());
    let (url, Some(proxy)) = database.behind_a_proxy(Duration::ZERO).await else {
        println!("nothing to do: SQLite is never away");
        return;
    };
    let service = Service::by_url(database, &url, []);
    service.run(["organization", "create", "north"]);
    let key = service.key("north", &LIST);
    let wire = Wire::connect(&service.address).await;
    let mut reading = follow(&wire, &key).await;
    proxy.set(Way::Closed);
    // Longer than the keys of streams may go without a look-up that succeeds.
    if let Ok((_, _, end)) = timeout(Duration::from_secs(6), rest(&mut reading)).await {
        assert_eq!(end.reason, "DATABASE_UNAVAILABLE");
        proxy.set(Way::Open);
        until("it serves again", async || begins(&wire, &key).await).await;
        reading = follow(&wire, &key).await;
    }
    proxy.set(Way::Open);
    service.run(["key", "revoke", lookup(&key)]);
    ends_with_its_key(&mut reading, Instant::now()).await;
}

#[tokio::test]
async fn who_opens_no_window_loses_its_stream_and_nobody_else_notices() {
    let mut service = started_with(["--max-streams", "4"]);
    let [deaf_key, late_key, polite_key] = [(); 3].map(|()| service.key("north", &LIST));
    let (deaf, polite) = (Wire::deaf(&service.address).await, Wire::connect(&service.address).await);
    let unread = [
        begin(&deaf, &deaf_key, &[]).await.read().await,
        begin(&deaf, &late_key, &[("grpc-timeout", "1S")]).await.read().await,
    ];
    let mut followed = follow(&polite, &polite_key).await;
    let begun = Instant::now();
    for (key, least) in [(&late_key, 0), (&deaf_key, 9)] {
        assert_eq!(refused(&polite, key).await.reason, "OVERLOADED", "it has its only place");
        until("the place of who does not read is free", async || begins(&polite, key).await).await;
        assert!(begun.elapsed() > Duration::from_secs(least), "it was ended for what it did not do");
    }
    for mut stream in unread {
        let reset = timeout(PATIENCE, stream.message()).await.expect("an end").expect_err("a reset");
        assert_eq!(reset.code(), Code::Cancelled);
    }
    // Its connection goes on: a refusal has no message.
    assert!(begin(&deaf, "", &[]).await.head().await.contains_key("grpc-status"));
    service.signal("TERM");
    assert_eq!(rest(&mut followed).await.2.reason, "STREAM_ENDED");
    let lines = lines(&mut service).await;
    let reason_of = |key| {
        let of_key = lines.iter().filter(|line| line["span"]["key_id"] == lookup(key));
        of_key
            .filter_map(|line| line["span"]["reason"].as_str())
            .find(|reason| *reason != "OVERLOADED")
            .expect("a reason")
    };
    assert_eq!([reason_of(&deaf_key), reason_of(&late_key)], ["STREAM_ENDED", "DEADLINE_EXCEEDED"]);
}
