//! Too much at once is refused, and what was taken on is served.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prost::Message as _;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::{
    Client, Database, Service, message,
    wire::{Wire, frame},
};

const CREATE: &str = "ProfileService/CreateProfile";

/// The preface of HTTP/2 and empty SETTINGS.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn a_call_too_many_is_refused_and_health_is_not() {
    let service = Service::on(Database::create().into(), ["--max-in-flight", "1"]);
    let north = service.organization("north").await;
    let ada = north.person(json!({})).await;
    let held = service.database.hold().await;
    let (patching, person) = (north.clone(), ada.clone());
    let call = tokio::spawn(async move {
        loop {
            match patching.patch(&person, json!({ "city": "London" })).await {
                Err(refused) if refused.reason == "OVERLOADED" => {} // a get below was before it
                outcome => break outcome,
            }
        }
    });
    let refused = loop {
        // The first call takes the only place as soon as it arrives.
        if let Err(refused) = north.get(&ada).await {
            break refused;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(refused.retry_after.is_some());
    let stranger = Client::with_metadata(service.channel().await, vec![("cv-api-key", "unknown".to_owned())]);
    assert_eq!(stranger.get(&ada).await.expect_err("no place").reason, "OVERLOADED", "no key is looked up");
    let mut health = HealthClient::new(service.channel().await);
    health.check(HealthCheckRequest::default()).await.expect("health");
    held.release().await;
    call.await.expect("a call").expect("what was taken on is served");
    north.get(&ada).await.expect("a free place");
}

/// On SQLite two groups of 32 try for 2 s each before the others have their turn.
#[tokio::test]
async fn writes_that_waited_for_too_long_are_told_to_come_again() {
    let service = Service::observed(Database::create().into(), []);
    let north = service.organization("north").await;
    let ada = Arc::new(north.person(json!({})).await);
    let held = service.database.hold().await;
    let started = Instant::now();
    let mut writers = JoinSet::new();
    for _ in 0..100 {
        let (north, ada) = (north.clone(), Arc::clone(&ada));
        writers.spawn(async move { north.patch(&ada, json!({ "city": "London" })).await.expect_err("held") });
    }
    let refused = writers.join_all().await;
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    assert!(refused.iter().all(|refused| refused.retry_after.is_some()), "{refused:?}");
    let shed = service.scrape().await.sum("profile_service_shed_total", &[r#"limit="write_wait""#]);
    let overloaded = refused.iter().filter(|refused| refused.reason == "OVERLOADED").count();
    assert_eq!(shed.to_string(), overloaded.to_string());
    let mut reasons: Vec<_> = refused.iter().map(|refused| refused.reason.as_str()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    let expected: &[&str] = if service.database.is_postgres() {
        &["TRANSACTION_CONFLICT"]
    } else {
        &["OVERLOADED", "TRANSACTION_CONFLICT"]
    };
    assert_eq!(reasons, expected);
    held.release().await;
    assert_eq!(north.get(&ada).await.expect("the profile")["etag"], "\"1\"");
}

#[tokio::test]
async fn half_a_message_takes_no_place_and_the_rest_of_it_is_served_like_any_other() {
    let service = Service::on(Database::create().into(), ["--max-in-flight", "4"]);
    let north = service.organization("north").await;
    let south = service.organization("south").await;
    let key = service.key("north", &["profiles.write"]);
    let person =
        frame(&message(CREATE, json!({ "profile": { "firstName": "Ada", "lastName": "Byron" } })).encode_to_vec());
    let wire = Wire::connect(&service.address).await;
    let mut halves = Vec::new();
    for _ in 0..50 {
        halves.push(wire.begin(CREATE, &[("cv-api-key", &key)], person.slice(..7), false).await);
    }
    for client in [&south, &north, &south, &north] {
        client.person(json!({})).await;
    }
    for mut half in halves {
        half.end(person.slice(7..));
        assert_eq!(half.status().await.code(), Code::Ok);
    }
}

#[tokio::test]
async fn idle_connections_take_no_open_file_that_the_service_needs() {
    let service = Service::with_open_files(Database::create().into(), 128, 512);
    let north = service.organization("north").await;
    north.person(json!({})).await;
    let mut idle = Vec::new();
    for _ in 0..600 {
        let mut stream = TcpStream::connect(&service.address).await.expect("a connection");
        let _ = stream.write_all(HELLO).await; // it may be closed already
        idle.push(stream);
    }
    let mut closed = 0;
    for stream in &mut idle {
        // The settings of the server, or the end.
        let read = timeout(Duration::from_secs(5), stream.read(&mut [0; 1])).await.expect("an answer");
        closed += usize::from(read.unwrap_or_default() == 0);
    }
    assert!((150..400).contains(&closed), "{closed} of 600 were closed");
    for number in 0..50 {
        north.person(json!({ "email": format!("{number}@example.com") })).await;
    }
    let line = service.logged("connections");
    assert_eq!((&line["open_files"], &line["wanted"]), (&json!(512), &json!(1024)), "{line}");
}

#[tokio::test]
async fn a_connection_too_many_is_closed_at_once_and_the_next_one_is_served() {
    let service = Service::on(Database::create().into(), ["--max-connections", "2"]);
    let north = service.organization("north").await;
    let second = service.channel().await;
    HealthClient::new(second.clone()).check(HealthCheckRequest::default()).await.expect("health");
    let mut third = TcpStream::connect(&service.address).await.expect("a connection");
    assert_eq!(third.read(&mut [0; 1]).await.unwrap_or_default(), 0, "it is closed");
    drop(second);
    let endpoint = Endpoint::from_shared(format!("http://{}", service.address)).expect("an address");
    let deadline = Instant::now() + Duration::from_secs(5);
    while HealthClient::new(endpoint.connect_lazy()).check(HealthCheckRequest::default()).await.is_err() {
        assert!(Instant::now() < deadline, "the place of an ended connection stays taken");
    }
    north.person(json!({})).await;
}
