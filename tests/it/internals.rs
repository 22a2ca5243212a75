//! What is counted inside: queues, connections to the database, conflicts, the feed, the log.

#![allow(clippy::float_cmp, reason = "counts are whole numbers")]

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use prost::Message as _;
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::transport::Endpoint;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::{
    Database, Scrape, Service, http, message, program, until,
    wire::{Wire, frame},
};

const WATCH: &str = "ProfileQueryService/WatchProfiles";

#[tokio::test]
async fn queues_tell_how_much_waits_how_long_it_has_waited_and_how_much_is_taken_together() {
    let service = Service::observed(Database::create().into(), []);
    let north = service.organization("north").await;
    let sum = async |name: &str, label: &str| service.scrape().await.sum(name, &[label]);
    let (reads, writes) = (r#"queue="reads""#, r#"queue="writes""#);
    let ada = north.person(json!({})).await;
    for _ in 0..5 {
        north.get(&ada).await.expect("a profile");
    }
    let scrape = service.scrape().await;
    for (queue, items) in [(reads, 5.0), (writes, 1.0)] {
        assert_eq!(scrape.sum("profile_service_queue_wait_seconds_count", &[queue]), items, "{queue}");
        assert_eq!(scrape.sum("profile_service_queue_batch_size_sum", &[queue]), items, "{queue}");
        assert!(scrape.sum("profile_service_queue_wait_seconds_sum", &[queue]) > 0.0, "{queue}");
    }
    for way in ["read", "write"] {
        let waited = scrape.sum("profile_service_database_wait_seconds_count", &[&format!("for=\"{way}\"")]);
        assert!(waited > 0.0, "{way}");
    }

    let held = service.database.hold().await;
    let patch = |city: &'static str| {
        let (north, ada) = (north.clone(), ada.clone());
        tokio::spawn(async move { north.patch(&ada, json!({ "city": city })).await })
    };
    let in_flight = async || service.scrape().await.sum("profile_service_permits_in_use", &[r#"of="calls""#]);
    let first = patch("London");
    until("the first is being made", async || {
        let scrape = service.scrape().await;
        let length = scrape.sum("profile_service_queue_length", &[writes]);
        scrape.sum("profile_service_queue_wait_seconds_count", &[writes]) >= 2.0 && length == 0.0
    })
    .await;
    let second = patch("Paris");
    until("the second waits", async || sum("profile_service_queue_length", writes).await == 1.0).await;
    assert_eq!(in_flight().await, 2.0);
    held.release().await;
    for call in [first, second] {
        call.await.expect("a call").expect("an answer");
    }
    assert_eq!(sum("profile_service_queue_length", writes).await, 0.0);
}

#[tokio::test]
async fn a_write_that_another_one_is_in_the_way_of_is_counted() {
    let service = Service::observed(Database::create().into(), []);
    let north = service.organization("north").await;
    let ada = north.person(json!({})).await;
    let conflicts = async || service.scrape().await.sum("profile_service_write_conflicts_total", &[]);
    assert_eq!(conflicts().await, 0.0);
    let held = service.database.hold().await;
    let (patching, person) = (north.clone(), ada.clone());
    let call = tokio::spawn(async move { patching.patch(&person, json!({ "city": "London" })).await });
    // SQLite waits for its one writer by itself, for 2 s, and then the write has waited for too long.
    until("another write is in the way", async || conflicts().await == 1.0).await;
    held.release().await;
    let outcome = call.await.expect("a call");
    assert!(outcome.is_ok() || !service.database.is_postgres(), "{outcome:?}");
}

#[tokio::test]
async fn the_connections_to_the_database_and_what_was_made_again_over_another_one_are_told() {
    let service = Service::observed(Database::create().into(), []);
    let north = service.organization("north").await;
    let ada = north.person(json!({})).await;
    let scrape = service.scrape().await;
    let value = |name: &str, pool: &str| {
        scrape.sum(&format!("profile_service_database_connections_{name}"), &[&format!("pool=\"{pool}\"")])
    };
    let pools: &[_] =
        if service.database.is_postgres() { &[("shared", 16.0)] } else { &[("readers", 4.0), ("writer", 1.0)] };
    for (pool, limit) in pools {
        assert_eq!(value("limit", pool), *limit, "{pool}");
        assert!((1.0..=*limit).contains(&value("open", pool)) && value("in_use", pool) <= value("open", pool));
    }
    if service.database.is_postgres() {
        let end = "SELECT COUNT(pg_terminate_backend(pid)) AS number FROM pg_stat_activity \
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        north.get(&ada).await.expect("connections that are open");
        assert!(service.database.number(end).await > 0);
        north.get(&ada).await.expect("another connection");
        assert!(service.scrape().await.sum("profile_service_database_retries_total", &[]) > 0.0);
    }
}

#[tokio::test]
async fn connections_that_end_are_counted_by_why() {
    let service =
        Service::observed(Database::create().into(), ["--max-connection-age", "1s", "--max-connections", "2"]);
    let ended = async |end: &str| {
        service.scrape().await.sum("profile_service_connections_ended_total", &[&format!("end=\"{end}\"")])
    };
    let begin = async |bytes: &[u8]| {
        let mut stream = TcpStream::connect(&service.address).await.expect("a connection");
        stream.write_all(bytes).await.expect("bytes");
        stream
    };
    for (end, bytes) in [("not_begun", &b"PRI"[..]), ("no_http2", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")] {
        drop(begin(bytes).await);
        until(end, async || ended(end).await == 1.0).await;
    }
    let client = Wire::connect(&service.address).await;
    client.call("ProfileService/GetProfile", &[], frame(b""), true).await.expect_err("no key");
    client.ended().await.expect("it ends in good order");
    until("its peer has ended it", async || ended("peer").await == 1.0).await;
    let old = [Wire::connect(&service.address).await, Wire::connect(&service.address).await];
    let mut third = begin(b"").await;
    assert_eq!(third.read(&mut [0; 1]).await.unwrap_or_default(), 0, "it is closed");
    until("one was too many", async || ended("refused").await == 1.0).await;
    until("two have ended at their age", async || ended("age").await == 2.0).await;
    drop(old);
}

#[tokio::test]
async fn those_who_follow_the_last_of_them_and_what_is_not_in_the_feed_are_told() {
    let service = Service::observed(Database::create().into(), []);
    let north = service.organization("north").await;
    let value = async |name: &str| service.scrape().await.sum(&format!("profile_service_{name}"), &[]);
    assert_eq!((value("watchers").await, value("feed_pending_changes").await), (0.0, 0.0));
    let mut near = north.stream(WATCH, json!({ "skipExisting": true })).await.expect("a stream");
    near.next().await.expect("a message");
    let deaf = Wire::deaf(&service.address).await;
    let key = service.key("north", &["profiles.list"]);
    let ask = frame(&message(WATCH, json!({ "skipExisting": true })).encode_to_vec());
    let far = deaf.begin(WATCH, &[("cv-api-key", &key)], ask, true).await;
    until("both follow", async || value("watchers").await == 2.0).await;
    for _ in 0..3 {
        let person = north.person(json!({})).await;
        while near.next().await.expect("a message").expect("a message")["profileId"] != person["id"] {}
    }
    assert!(value("watch_delay_seconds_count").await >= 3.0);
    until("the deaf one is behind", async || value("watch_lag_changes").await >= 1.0).await;
    drop((far, deaf));
    until("it has gone, and the other has all", async || {
        let scrape = service.scrape().await;
        let value = |name: &str| scrape.sum(name, &[]);
        (value("profile_service_watchers"), value("profile_service_watch_lag_changes")) == (1.0, 0.0)
    })
    .await;
    // Nobody can read what is wrong: it stays, and what comes behind it too.
    service.database.execute("INSERT INTO feed_pending (changes) VALUES ('no such change and none more')").await;
    until("they are counted", async || value("feed_pending_changes").await == 2.0).await;
}

#[tokio::test]
async fn lines_of_the_log_that_are_lost_are_counted() {
    let database = Database::create();
    let mut command = program(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
    command.env("PROFILE_DATABASE_URL", database.url()).env("RUST_LOG", "debug").stderr(Stdio::piped());
    let mut child = Killed(command.spawn().expect("a program"));
    let mut log = BufReader::new(child.0.stderr.take().expect("its log")).lines();
    let mut address_of = |message: &str| {
        let address = log.find_map(|line| {
            let line: Json = serde_json::from_str(&line.ok()?).ok()?;
            (line["message"] == message).then(|| line["address"].as_str().map(str::to_owned))?
        });
        address.expect("an address")
    };
    let (metrics, listening) = (address_of("metrics"), address_of("listening"));
    let lost = async || {
        Scrape::parse(&http(&metrics, "GET", "/metrics").await.1).sum("profile_service_log_lines_dropped_total", &[])
    };
    assert_eq!(lost().await, 0.0);
    drop(log); // nobody reads it any more
    let service = Endpoint::from_shared(format!("http://{listening}")).expect("an address").connect_lazy();
    until("the line of a call is lost", async || {
        HealthClient::new(service.clone()).check(HealthCheckRequest::default()).await.expect("health");
        lost().await > 0.0
    })
    .await;
}

/// A program that ends with its owner.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
