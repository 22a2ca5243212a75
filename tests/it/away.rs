//! The database goes away and comes back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};
use tokio::{task::JoinSet, time::timeout};
use tonic::{Code, Streaming};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::harness::{Client, Database, Proxy, STOP, Service, Way, client, progress};

/// What happens to the way, and for how long.
const FAULTS: [(&str, Way, Duration); 3] = [
    ("stopped", Way::Closed, Duration::from_secs(4)),
    ("frozen", Way::Frozen, Duration::from_secs(4)),
    ("restarted", Way::Closed, Duration::ZERO),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_told_in_time_and_nothing_acknowledged_is_lost() {
    let database = Arc::new(Database::create());
    let (url, Some(proxy)) = database.behind_a_proxy(Duration::ZERO).await else {
        println!("nothing to do: SQLite is never away");
        return;
    };
    let service = Service::by_url(database, &url, []);
    let north = service.organization("north").await;
    let mut health = watch(&service, "").await;
    let mut liveness = watch(&service, "liveness").await;
    let successes = Arc::new(AtomicU64::new(0));
    let mut load = JoinSet::new();
    for writer in 0..8 {
        load.spawn(write_on(north.clone(), writer, Arc::clone(&successes)));
    }
    until(&mut health, ServingStatus::Serving).await;
    for (fault, way, duration) in FAULTS {
        progress(&successes, 100).await;
        happen(&proxy, &mut health, fault, way, duration).await;
        progress(&successes, 100).await;
    }
    until(&mut liveness, ServingStatus::Serving).await;
    let heard = timeout(Duration::from_millis(100), liveness.message()).await;
    assert!(heard.is_err(), "the database is no matter of life: {heard:?}");
    proxy.set(Way::Lost);
    let lost = Instant::now();
    progress(&successes, 200).await;
    println!("connections lost without a word: 200 writes acknowledged after {:?}", lost.elapsed());
    successes.fetch_add(STOP, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    let mut slowest = Duration::ZERO;
    for (people, slow) in load.join_all().await {
        acknowledged.extend(people);
        slowest = slowest.max(slow);
    }
    println!("{} writes acknowledged, slowest answer {slowest:?}", acknowledged.len());
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    for person in &acknowledged {
        assert_eq!(north.get(person).await.as_ref(), Ok(person));
    }
}

/// Lets a fault happen, and measures how soon health tells of it and of its end.
async fn happen(proxy: &Proxy, health: &mut Streaming<HealthCheckResponse>, fault: &str, way: Way, duration: Duration) {
    let began = Instant::now();
    proxy.set(way);
    if duration.is_zero() {
        proxy.set(Way::Open);
        return;
    }
    until(health, ServingStatus::NotServing).await;
    println!("{fault}: NOT_SERVING after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(3), "{fault}");
    tokio::time::sleep_until((began + duration).into()).await;
    let returned = Instant::now();
    proxy.set(Way::Open);
    until(health, ServingStatus::Serving).await;
    println!("{fault}: SERVING {:?} after its return", returned.elapsed());
    assert!(returned.elapsed() < Duration::from_secs(2), "{fault}");
}

/// Creates until it is told to stop: the people whose creation was acknowledged, and the slowest answer.
async fn write_on(north: Client, writer: u32, successes: Arc<AtomicU64>) -> (Vec<Json>, Duration) {
    let (mut acknowledged, mut slowest) = (Vec::new(), Duration::ZERO);
    for number in 0.. {
        if successes.load(Ordering::SeqCst) >= STOP {
            break;
        }
        let started = Instant::now();
        let email = format!("{writer}.{number}@example.com");
        match north.create(json!({ "firstName": "Ada", "lastName": "Byron", "email": email })).await {
            Ok(person) => {
                acknowledged.push(person);
                successes.fetch_add(1, Ordering::SeqCst);
            }
            Err(refused) => {
                assert_eq!(refused.code, Code::Unavailable, "{refused:?}");
                let expected_retry = refused.reason == "DATABASE_UNAVAILABLE";
                assert!(expected_retry || refused.reason == "OUTCOME_UNKNOWN", "{refused:?}");
                assert_eq!(refused.retry_after.is_some(), expected_retry);
            }
        }
        slowest = slowest.max(started.elapsed());
    }
    (acknowledged, slowest)
}

#[tokio::test]
async fn connections_that_the_database_has_ended_cost_retryable_errors_at_the_most() {
    let (service, north) = client().await;
    if !service.database.is_postgres() {
        println!("nothing to do: SQLite has no connections that it could end");
        return;
    }
    let ada = north.person(json!({})).await;
    for round in 0..5 {
        let end = "SELECT COUNT(pg_terminate_backend(pid)) AS number FROM pg_stat_activity \
                   WHERE datname = current_database() AND application_name = 'profile-service'";
        assert!(service.database.number(end).await > 0);
        let deadline = Instant::now() + Duration::from_secs(2);
        while let Err(refused) = north.patch(&ada, json!({ "city": format!("City {round}") })).await {
            assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "DATABASE_UNAVAILABLE"));
            assert!(Instant::now() < deadline, "it does not recover");
        }
    }
    assert_eq!(north.get(&ada).await.expect("the profile")["city"], "City 4");
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_no_loss() {
    let database = Arc::new(Database::create());
    if database.is_postgres() {
        println!("nothing to do: the disk is PostgreSQL's");
        return;
    }
    let mut service = Service::with_little_room(Arc::clone(&database), 1000);
    let north = service.organization("north").await;
    let mut acknowledged = Vec::new();
    let refused = loop {
        let number = acknowledged.len();
        let fields = json!({ "firstName": "Ada", "lastName": "Byron", "address": format!("{number:0>200}") });
        match north.create(fields).await {
            Ok(person) => acknowledged.push(person),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.code, Code::Unavailable, "{refused:?}");
    for person in &acknowledged {
        assert_eq!(north.get(person).await.as_ref(), Ok(person), "it can still be read");
    }
    service.signal("TERM");
    assert_eq!(service.end().await.0, Some(0));
    let roomy = Service::on(database, []);
    let north = roomy.client(&roomy.key("north", &["profiles.read", "profiles.write"])).await;
    for person in &acknowledged {
        assert_eq!(north.get(person).await.as_ref(), Ok(person));
    }
    north.person(json!({})).await;
    println!("{} writes acknowledged before the disk was full, none lost", acknowledged.len());
}

async fn watch(service: &Service, name: &str) -> Streaming<HealthCheckResponse> {
    let mut health = HealthClient::new(service.channel().await);
    health.watch(HealthCheckRequest { service: name.to_owned() }).await.expect("a watch").into_inner()
}

async fn until(health: &mut Streaming<HealthCheckResponse>, status: ServingStatus) {
    let told = async { while health.message().await.expect("a status").expect("an open stream").status() != status {} };
    timeout(Duration::from_secs(10), told).await.unwrap_or_else(|_| panic!("health never said {status:?}"));
}
