//! Reads that one query answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value as Json, json};
use tokio::{task::JoinSet, time::timeout};
use tonic::Code;

use crate::harness::{Client, Database, Outcome, STOP, Service, client, progress};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_200_reads_at_once_each_has_its_own_answer() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    let mut people = Vec::new();
    for number in 0..20 {
        people.push(north.person(known_as(&number.to_string())).await);
    }
    let foreign = south.person(known_as("0")).await; // as somebody of the other organization
    let mut nobody = known_as("nobody");
    nobody["id"] = json!("0190f8a4-0000-7000-8000-000000000000");
    let mut readers = JoinSet::new();
    for number in 0..200 {
        let (north, south) = (north.clone(), south.clone());
        let (ada, foreign, nobody) = (people[number % 20].clone(), foreign.clone(), nobody.clone());
        readers.spawn(async move {
            match number % 8 {
                0 => assert_eq!(refusal(&north, &foreign).await, (Code::NotFound, "PROFILE_NOT_FOUND".to_owned())),
                5 => assert_eq!(look_up(&north, &nobody).await.expect_err("nobody").reason, "PROFILE_NOT_FOUND"),
                6 => assert_eq!(look_up(&north, &ada).await, Ok(ada)),
                7 => assert_eq!(look_up(&south, &foreign).await, Ok(foreign)),
                1 => assert_eq!(refusal(&north, &nobody).await, (Code::NotFound, "PROFILE_NOT_FOUND".to_owned())),
                2 => assert_eq!(
                    refusal(&north, &json!({ "id": "no id" })).await,
                    (Code::InvalidArgument, "INVALID_FIELDS".to_owned())
                ),
                3 => assert_eq!(south.get(&foreign).await, Ok(foreign)),
                _ => assert_eq!(north.get(&ada).await, Ok(ada)),
            }
        });
    }
    readers.join_all().await;
}

/// The fields of a profile with this identifier.
fn known_as(value: &str) -> Json {
    json!({ "identifiers": [{ "system": "crm", "value": value }] })
}

/// LookUpProfile by this profile's identifier.
async fn look_up(client: &Client, profile: &Json) -> Outcome {
    client.call("ProfileQueryService/LookUpProfile", json!({ "identifier": profile["identifiers"][0] })).await
}

async fn refusal(client: &Client, profile: &Json) -> (Code, String) {
    let refused = client.get(profile).await.expect_err("a refusal");
    (refused.code, refused.reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_go_away_disturb_no_other() {
    let (service, north) = client().await;
    let hasty = service.client(&service.key("north", &["profiles.read"])).await; // with a connection of their own
    let ada = north.person(json!({})).await;
    let mut readers = JoinSet::new();
    for number in 0..500 {
        let (north, hasty, ada) = (north.clone(), hasty.clone(), ada.clone());
        readers.spawn(async move {
            if number % 2 == 0 {
                let _ = timeout(Duration::from_micros(number * 20), hasty.get(&ada)).await;
            } else {
                assert_eq!(north.get(&ada).await, Ok(ada));
            }
        });
    }
    readers.join_all().await;
}

/// A read that begins after a write was acknowledged, or after another read has seen it, sees it too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_is_older_than_what_was_known_when_it_began() {
    let (_service, north) = client().await;
    let mut ada = known_as("7");
    ada["postalCode"] = json!("0");
    let ada = Arc::new(north.person(ada).await);
    let (known, reads) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut readers = JoinSet::new();
    for reader in 0..32 {
        let (north, ada) = (north.clone(), Arc::clone(&ada));
        let (known, reads) = (Arc::clone(&known), Arc::clone(&reads));
        readers.spawn(async move {
            while reads.load(Ordering::SeqCst) < STOP {
                let before = known.load(Ordering::SeqCst);
                let read = if reader % 2 == 0 { north.get(&ada).await } else { look_up(&north, &ada).await };
                let seen = number(&read.expect("the profile"));
                assert!(seen >= before, "read {seen} after {before} was known");
                known.fetch_max(seen, Ordering::SeqCst);
                reads.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    for count in 1..=100 {
        let written = north.patch(&ada, json!({ "postalCode": count.to_string() })).await.expect("a write");
        known.fetch_max(number(&written), Ordering::SeqCst);
        progress(&reads, 10).await;
    }
    reads.fetch_add(STOP, Ordering::SeqCst);
    readers.join_all().await;
}

fn number(profile: &Json) -> u64 {
    profile["postalCode"].as_str().expect("a number").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_cannot_be_read_is_its_own_readers_error_alone() {
    let (service, north) = client().await;
    let (ada, eve) = (north.person(known_as("1")).await, north.person(known_as("2")).await);
    let id = eve["id"].as_str().expect("an id");
    let spelled =
        if service.database.is_postgres() { format!("'{id}'") } else { format!("x'{}'", id.replace('-', "")) };
    service.database.execute(&format!("UPDATE profile SET role = 'GARDENER' WHERE id = {spelled}")).await;
    let mut readers = JoinSet::new();
    for number in 0..100 {
        let (north, ada, eve) = (north.clone(), ada.clone(), eve.clone());
        readers.spawn(async move {
            match number % 10 {
                0 => assert_eq!(refusal(&north, &eve).await, (Code::Internal, "INTERNAL".to_owned())),
                1 => assert_eq!(look_up(&north, &eve).await.expect_err("unreadable").reason, "INTERNAL"),
                2..5 => assert_eq!(look_up(&north, &ada).await, Ok(ada)),
                _ => assert_eq!(north.get(&ada).await, Ok(ada)),
            }
        });
    }
    readers.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_writes_share_a_single_connection() {
    let service = Service::on(Arc::new(Database::create()), ["--database-connections", "1"]);
    let north = service.organization("north").await;
    let ada = north.person(json!({})).await;
    let (writes, reads) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut load = JoinSet::new();
    for writer in 0..8 {
        let (north, ada) = (north.clone(), ada.clone());
        let (writes, reads) = (Arc::clone(&writes), Arc::clone(&reads));
        load.spawn(async move {
            while reads.load(Ordering::SeqCst) < 100 || writes.load(Ordering::SeqCst) < 1000 {
                let city = format!("{writer} {}", writes.fetch_add(1, Ordering::SeqCst));
                north.patch(&ada, json!({ "city": city })).await.expect("a write");
            }
        });
    }
    while !load.is_empty() {
        north.get(&ada).await.expect("a read");
        reads.fetch_add(1, Ordering::SeqCst);
        while load.try_join_next().is_some_and(|ended| ended.is_ok()) {}
    }
}
