//! Callers that go away in the middle lose nothing for anybody.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};
use tokio::{task::JoinSet, time::timeout};
use tonic::Code;

use crate::harness::{Client, Database, Failure, Service, client};

/// Calls that are cut off.
const CUT: u32 = 10_000;

/// When at the latest a caller goes away.
const LATEST: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_cut_calls_cost_no_acknowledged_write_and_no_connection() {
    let database = Arc::new(Database::create());
    let (url, _proxy) = database.behind_a_proxy(Duration::from_millis(1)).await;
    let service = Service::by_url(Arc::clone(&database), &url, ["--database-connections", "16"]);
    let north = service.organization("north").await;
    let people = Arc::new([north.person(json!({})).await, north.person(json!({})).await]);

    let left = Arc::new(AtomicU32::new(CUT));
    let mut cut = JoinSet::new();
    for seed in 0..16 {
        cut.spawn(cut_calls(north.clone(), Arc::clone(&people), Arc::clone(&left), seed, LATEST));
    }
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let (north, left) =
            (service.client(&service.key("north", &["profiles.read", "profiles.write"])).await, Arc::clone(&left));
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0.. {
                if left.load(Ordering::Relaxed) == 0 {
                    break;
                }
                let email = format!("{writer}.{number}@example.com");
                let create = json!({ "firstName": "Ada", "lastName": "King", "email": email });
                match north.create(create).await {
                    Ok(person) => acknowledged.push(person),
                    Err(refused) => is_the_services_own(&refused),
                }
            }
            acknowledged
        });
    }
    cut.join_all().await;
    let acknowledged: Vec<Json> = writers.join_all().await.into_iter().flatten().collect();
    assert!(!acknowledged.is_empty());
    for person in &acknowledged {
        assert_eq!(north.get(person).await.as_ref(), Ok(person));
    }
    println!("{CUT} calls cut off, {} writes acknowledged meanwhile, none lost", acknowledged.len());
    let changes = north.changes(&people[0]).await;
    let etag = north.get(&people[0]).await.expect("the profile")["etag"].clone();
    assert_eq!(json!(format!("\"{}\"", changes[0]["revision"].as_str().expect("a revision"))), etag);
    no_connection_is_left_in_a_transaction(&database, 16).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_cut_calls_a_pool_of_one_serves_the_next_within_a_second() {
    let database = Arc::new(Database::create());
    let (url, _proxy) = database.behind_a_proxy(Duration::from_millis(1)).await;
    let service = Service::by_url(Arc::clone(&database), &url, ["--database-connections", "1"]);
    let north = service.organization("north").await;
    let people = Arc::new([north.person(json!({})).await, north.person(json!({})).await]);
    for round in 0..20 {
        cut_calls(north.clone(), Arc::clone(&people), Arc::new(AtomicU32::new(10)), round, LATEST).await;
        let started = Instant::now();
        north.patch(&people[0], json!({ "city": format!("City {round}") })).await.expect("the next call");
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
    no_connection_is_left_in_a_transaction(&database, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_give_up_at_once_end_nobody_elses_call_on_their_connection() {
    let (_service, north) = client().await;
    let people = Arc::new([north.person(json!({})).await, north.person(json!({})).await]);
    let left = Arc::new(AtomicU32::new(2000)); // as many as a machine that does nothing else may let lie
    let mut cut = JoinSet::new();
    for seed in 0..40 {
        let soon = Duration::from_millis(4);
        cut.spawn(cut_calls(north.clone(), Arc::clone(&people), Arc::clone(&left), seed, soon));
    }
    let mut others = JoinSet::new();
    for _ in 0..4 {
        let (north, people, left) = (north.clone(), Arc::clone(&people), Arc::clone(&left));
        others.spawn(async move {
            while left.load(Ordering::Relaxed) > 0 {
                north.get(&people[0]).await.map_or_else(|refused| is_the_services_own(&refused), drop);
            }
        });
    }
    cut.join_all().await;
    others.join_all().await;
}

/// A machine that does other things too may answer late. A call that ended with its connection has no reason.
fn is_the_services_own(refused: &Failure) {
    assert!(refused.code == Code::Unavailable && !refused.reason.is_empty(), "{refused:?}");
}

/// Calls every kind of RPC and goes away after a while, `latest` at the most, until no call is left.
async fn cut_calls(north: Client, people: Arc<[Json; 2]>, left: Arc<AtomicU32>, seed: u64, latest: Duration) {
    let latest = u64::try_from(latest.as_micros()).expect("a short time");
    let take = |left: u32| left.checked_sub(1);
    while let Ok(number) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
        let wait = Duration::from_micros((u64::from(number) * 7919 + seed * 104_729) % latest);
        let city = json!({ "city": format!("City {seed} {number}") });
        let call = async {
            match number % 4 {
                0 => north.get(&people[0]).await,
                1 => north.patch(&people[0], city).await,
                2 => north.patch(&people[1], city).await,
                _ => north.create(json!({ "firstName": "Cut", "lastName": "Off" })).await,
            }
        };
        let _ = timeout(wait, call).await;
    }
}

async fn no_connection_is_left_in_a_transaction(database: &Database, pool: i64) {
    if !database.is_postgres() {
        return;
    }
    let of_the_service =
        "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'profile-service'";
    let open = format!("SELECT COUNT(*) AS number {of_the_service} AND state LIKE 'idle in transaction%'");
    let deadline = Instant::now() + Duration::from_secs(5);
    while database.number(&open).await > 0 {
        assert!(Instant::now() < deadline, "a connection is left in a transaction");
    }
    let connections = database.number(&format!("SELECT COUNT(*) AS number {of_the_service}")).await;
    assert!(connections <= pool, "{connections} connections");
}
