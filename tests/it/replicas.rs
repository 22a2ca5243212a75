//! Two replicas on one database.

use std::{
    env, mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value as Json, json};
use tokio::task::JoinSet;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use crate::harness::{Client, Database, STOP, Service, progress};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_may_be_killed_or_restarted_and_nothing_is_lost() {
    let database = Arc::new(Database::create());
    let mut replicas = [Service::on(Arc::clone(&database), []), Service::on(Arc::clone(&database), [])];
    replicas[0].organization("north").await;
    let key = replicas[0].key("north", &["profiles.read", "profiles.write"]);
    let endpoints = replicas.each_ref().map(|replica| {
        let endpoint = Endpoint::from_shared(format!("http://{}", replica.address)).expect("an address");
        endpoint.connect_timeout(Duration::from_secs(1))
    });
    let balanced = Client::new(Channel::balance_list(endpoints.into_iter()), &key);

    let successes = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        writers.spawn(write_on(balanced.clone(), writer, Arc::clone(&successes)));
    }
    for signal in ["KILL", "TERM"] {
        progress(&successes, 100).await;
        replicas[0].signal(signal);
        let (code, _) = replicas[0].end().await;
        assert_eq!(code, if signal == "TERM" { Some(0) } else { None });
        progress(&successes, 100).await;
        let address = replicas[0].address.clone();
        replicas[0] = Service::on(Arc::clone(&database), ["--listen", &address]);
    }
    let before = writes(&database).await;
    progress(&successes, 300).await;
    successes.fetch_add(STOP, Ordering::SeqCst);
    let acknowledged: Vec<Json> = writers.join_all().await.into_iter().flatten().collect();
    assert!(writes(&database).await > before);

    let north = replicas[1].client(&key).await;
    for person in &acknowledged {
        assert_eq!(north.get(person).await.as_ref(), Ok(person));
    }
    println!("{} writes acknowledged over a kill and a restart, none lost", acknowledged.len());
    for replica in &mut replicas {
        replica.signal("TERM");
        let (_, log) = replica.end().await;
        let served = log.iter().filter(|line| line.contains("CreateProfile")).count();
        assert!(served > 0, "a replica takes no load");
    }
}

/// How many people are looked for, unless `PROFILE_TEST_WRITES` says it.
const WRITES: usize = 100;

/// Who looks at once.
const WRITERS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_has_acknowledged_the_other_finds_at_once() {
    let database = Arc::new(Database::create());
    let replicas = [Service::on(Arc::clone(&database), []), Service::on(Arc::clone(&database), [])];
    replicas[0].organization("north").await;
    let key = replicas[0].key("north", &["profiles.read", "profiles.write", "profiles.list"]);
    let clients = [replicas[0].client(&key).await, replicas[1].client(&key).await];
    let wanted = env::var("PROFILE_TEST_WRITES").map_or(WRITES, |number| number.parse().expect("a number"));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let [mut one, mut other] = clients.clone();
        writers.spawn(async move {
            for number in (writer..wanted).step_by(WRITERS) {
                let (first, last) = (format!("Ada{number}"), format!("B\u{fc}ron{number}"));
                let email = format!("{number}@example.com");
                let person = json!({ "firstName": first, "lastName": last, "email": email, "dob": "1985-12-10" });
                let person = one.create(person).await.expect("a new profile");
                found(&other, &person, &format!("buron{number} ada{number}"), &email).await;
                // And what the other changes, the first one finds.
                mem::swap(&mut one, &mut other);
                let email = format!("{number}@example.org");
                let person = one.patch(&person, json!({ "lastName": format!("King{number}"), "email": email })).await;
                found(&other, &person.expect("patched"), &format!("king{number} ada{number}"), &email).await;
            }
        });
    }
    writers.join_all().await;
    assert_eq!(usize::try_from(writes(&database).await), Ok(wanted));
    println!("{wanted} creates and as many changes, each found at once through the other replica");
}

/// Whether each query answers this profile, and none another one.
async fn found(replica: &Client, person: &Json, name: &str, email: &str) {
    let list = json!({ "profiles": [person] });
    let call = async |rpc: &str, request: Json| replica.call(&format!("ProfileQueryService/{rpc}"), request).await;
    assert_eq!(call("ListProfiles", json!({ "namePrefix": name })).await.as_ref(), Ok(&list));
    assert_eq!(call("BatchGetProfiles", json!({ "ids": [person["id"]] })).await.as_ref(), Ok(&list));
    assert_eq!(call("LookUpProfile", json!({ "email": email })).await.as_ref(), Ok(person));
}

async fn writes(database: &Database) -> i64 {
    database.number("SELECT COUNT(*) AS number FROM profile").await
}

/// Creates until it is told to stop; only errors that may be tried again come between.
async fn write_on(north: Client, writer: u32, successes: Arc<AtomicU64>) -> Vec<Json> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if successes.load(Ordering::SeqCst) >= STOP {
            break;
        }
        let email = format!("{writer}.{number}@example.com");
        let create =
            json!({ "requestId": email, "profile": { "firstName": "Ada", "lastName": "Byron", "email": email } });
        let person = loop {
            match north.call("ProfileService/CreateProfile", create.clone()).await {
                Ok(person) => break person,
                // Without a reason it is no answer of the service, but the client's word for a connection that ended.
                Err(refused) => assert!(refused.reason.is_empty() || refused.code == Code::Unavailable, "{refused:?}"),
            }
        };
        acknowledged.push(person);
        successes.fetch_add(1, Ordering::SeqCst);
    }
    acknowledged
}
