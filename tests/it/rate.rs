//! How many calls a second a key may make.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};
use tonic::Code;

use crate::harness::{Client, Failure, Service, client, program, until};

#[tokio::test]
async fn a_key_past_its_rate_is_told_when_to_come_again_and_no_other_key_is() {
    let (service, north) = client().await;
    let ada = north.person(json!({})).await;
    let limited = service.client(&key(&service, "1/s")).await;
    limited.get(&ada).await.expect("the first call of a second");
    let refused = refusal(&limited, &ada).await;
    assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "RATE_LIMITED"));
    let wait = refused.retry_after.expect("when to come again");
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    let pushback = Duration::from_millis(refused.pushback.expect("when to come again").unsigned_abs());
    assert!(
        (wait..=2 * wait + Duration::from_millis(1)).contains(&(pushback + Duration::from_millis(1))),
        "{pushback:?}"
    );
    north.get(&ada).await.expect("a key without a rate");
    let refused = limited.stream("ProfileQueryService/WatchProfiles", json!({})).await.map(drop).expect_err("a stream");
    assert_eq!(refused.reason, "RATE_LIMITED", "a stream is a call");
    tokio::time::sleep(pushback).await;
    limited.get(&ada).await.expect("a call that comes when it is told to");
}

#[tokio::test]
async fn a_key_makes_as_many_calls_as_its_rate_has_whatever_it_tries() {
    let (service, north) = client().await;
    let ada = north.person(json!({})).await;
    let limited = service.client(&key(&service, "20/s")).await;
    let (mut made, mut refused, began) = (0, 0, Instant::now());
    while began.elapsed() < Duration::from_secs(2) {
        match limited.get(&ada).await {
            Ok(_) => made += 1,
            Err(failure) => {
                assert_eq!(failure.reason, "RATE_LIMITED");
                refused += 1;
            }
        }
    }
    let most = 20.0 + 20.0 * began.elapsed().as_secs_f64();
    assert!(refused > 0 && made >= 20 && f64::from(made) <= most, "{made} made, {refused} refused");
}

#[tokio::test]
async fn a_rate_is_set_and_taken_away_within_5_seconds_and_each_replica_counts_for_itself() {
    let (service, north) = client().await;
    let replica = Service::on(Arc::clone(&service.database), []);
    let ada = north.person(json!({})).await;
    let key = service.key("north", &["profiles.read"]);
    let limited = service.client(&key).await;
    limited.get(&ada).await.expect("a key without a rate");
    service.run(["key", "rate", lookup(&key), "1/s"]);
    let set = Instant::now();
    while limited.get(&ada).await.is_ok() {
        assert!(set.elapsed() < Duration::from_secs(5), "there is no rate");
    }
    replica.client(&key).await.get(&ada).await.expect("the replica's own first call of a second");
    service.run(["key", "rate", &key, "none"]);
    let taken_away = Instant::now();
    let mut in_a_row = 0;
    while in_a_row < 3 {
        assert!(taken_away.elapsed() < Duration::from_secs(5), "there is a rate");
        in_a_row = if limited.get(&ada).await.is_ok() { in_a_row + 1 } else { 0 };
    }
}

#[test]
fn a_rate_is_listed_goes_on_with_the_next_key_and_is_refused_where_it_is_none() {
    let service = Service::start();
    service.run(["organization", "create", "north"]);
    let old = key(&service, "100/s");
    let new = service.run(["key", "rotate", &old]);
    service.run(["key", "rate", &old, "7/s"]);
    let list = service.run(["key", "list", "--organization", "north"]);
    for (key, rate) in [(&old, "\t7/s"), (&new, "\t100/s")] {
        let row = list.lines().find(|row| row.starts_with(lookup(key))).expect("its row");
        assert!(row.ends_with(rate), "{row}");
    }
    for (arguments, code, words) in [
        (
            ["key", "rate", lookup(&old), "0/s"],
            2,
            "it must be calls a second, 1/s to 1000000/s, such as 100/s, or none",
        ),
        (["key", "rate", "0000000000000000", "1/s"], 1, "there is no key \"0000000000000000\""),
    ] {
        let output =
            program(arguments).env("PROFILE_DATABASE_URL", service.database.url()).output().expect("a program");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
}

#[tokio::test]
async fn a_flood_of_unknown_keys_keeps_no_new_key_waiting() {
    let (service, north) = client().await;
    let ada = north.person(json!({})).await;
    let ended = Arc::new(AtomicBool::new(false));
    let mut flood = Vec::new();
    for connection in 0..8_u64 {
        let channel = service.channel().await;
        for caller in 0..10_u64 {
            let unknown = format!("ps_{:016x}_{}", connection * 100 + caller, "0".repeat(64));
            let (caller, ada, ended) = (Client::new(channel.clone(), &unknown), ada.clone(), Arc::clone(&ended));
            flood.push(tokio::spawn(async move {
                let mut refused = 0_u64;
                while !ended.load(Ordering::Relaxed) {
                    caller.get(&ada).await.expect_err("an unknown key");
                    refused += 1;
                }
                refused
            }));
        }
    }
    let new: Vec<_> = (0..3).map(|_| service.key("north", &["profiles.read"])).collect();
    for key in new {
        service.client(&key).await.get(&ada).await.expect("a new key");
        north.get(&ada).await.expect("a key that is known");
    }
    ended.store(true, Ordering::Relaxed);
    for caller in flood {
        assert!(caller.await.expect("a caller") > 0);
    }
}

/// A new key for everything that has a rate.
fn key(service: &Service, rate: &str) -> String {
    let scopes = "profiles.read,profiles.list";
    let create = ["key", "create", "--organization", "north", "--name", "limited", "--scope", scopes, "--rate", rate];
    service.run(create)
}

/// How a call is refused, once it comes too early.
async fn refusal(caller: &Client, person: &Json) -> Failure {
    let mut refusal = None;
    until("a call is refused", async || {
        refusal = caller.get(person).await.err();
        refusal.is_some()
    })
    .await;
    refusal.expect("a refusal")
}

/// What stands between `ps_` and the secret.
fn lookup(key: &str) -> &str {
    key.split('_').nth(1).expect("a key")
}
