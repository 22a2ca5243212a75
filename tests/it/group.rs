//! Changes that are carried out together look as if each had been alone.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::{Value as Json, json};
use tokio::{task::JoinSet, time::timeout};

use crate::harness::{Database, STOP, Service, client, progress};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_of_one_profile_has_its_history_with_its_own_key_rpc_and_request() {
    let (mut service, north) = client().await;
    let ada = north.person(json!({ "email": "ada@example.com" })).await;
    let (mut calls, mut keys) = (JoinSet::new(), HashMap::new());
    for number in 0..60 {
        let key = service.key("north", &["profiles.write", "support"]);
        let north = service.client(&key).await;
        keys.insert(format!("r-{number}"), key.split('_').nth(1).expect("a lookup id").to_owned());
        let (rpc, mut request) = match number % 3 {
            0 => ("ProfileService/PatchProfile", json!({ "profile": { "id": ada["id"] } })),
            1 => ("ProfileService/UpdateProfile", json!({ "data": { "email": "ada@example.com" } })),
            _ => ("SupportService/CorrectProfile", json!({ "profile": { "id": ada["id"] }, "reason": "she says so" })),
        };
        let field = if number % 3 == 1 { "data" } else { "profile" };
        request[field]["city"] = json!(format!("City {number}"));
        request["requestId"] = json!(format!("r-{number}"));
        calls.spawn(async move { (rpc, number, north.call(rpc, request).await.expect("changed")) });
    }
    let answers: HashMap<_, _> =
        calls.join_all().await.into_iter().map(|(rpc, n, answer)| (n, (rpc, answer))).collect();

    let changes = north.changes(&ada).await;
    assert_eq!(changes.len(), 61);
    for change in &changes[..60] {
        let request = change["requestId"].as_str().expect("a request id");
        let number: i32 = request.trim_start_matches("r-").parse().expect("a number");
        let (rpc, answer) = &answers[&number];
        assert_eq!((&change["rpc"], &change["keyId"]), (&json!(rpc), &json!(keys[request])));
        assert_eq!(change["fields"][0]["newValue"], json!(format!("City {number}")));
        assert_eq!(answer["etag"], json!(format!("\"{}\"", change["revision"].as_str().expect("a revision"))));
        assert_eq!(answer["city"], change["fields"][0]["newValue"]);
    }
    service.signal("TERM");
    let (_, log) = service.end().await;
    let lines = log.iter().map(|line| serde_json::from_str::<Json>(line).expect("JSON"));
    let calls: Vec<_> = lines.filter(|line| line["message"] == "call").map(|line| line["span"].clone()).collect();
    let logged: HashSet<_> = calls.iter().filter_map(|span| span["key_id"].as_str()).collect();
    assert!(keys.values().all(|key| logged.contains(key.as_str())), "a call has another key's line");
    assert!(calls.iter().all(|span| span["profile_id"] == ada["id"]), "a call has another profile's line");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_refused_fails_no_other() {
    let (_service, north) = client().await;
    north.person(json!({ "email": "taken@example.com", "phoneNumber": "+15550000" })).await;
    let ada = north.person(json!({})).await;
    let mut calls = JoinSet::new();
    for number in 0..400 {
        let (north, ada) = (north.clone(), ada.clone());
        calls.spawn(async move {
            let names = json!({ "firstName": "Eve", "lastName": "King" });
            let with = |field: &str, value: &str| {
                let mut person = names.clone();
                person[field] = json!(value);
                person
            };
            let (outcome, reason) = match number % 5 {
                0 => (north.create(with("email", "taken@example.com")).await, "EMAIL_IN_USE"),
                1 => (north.create(with("phoneNumber", "+15550000")).await, "PHONE_NUMBER_IN_USE"),
                2 => (north.patch(&ada, json!({ "city": "x", "etag": "\"99999\"" })).await, "ETAG_MISMATCH"),
                3 => (north.create(with("email", &format!("{number}@example.com"))).await, ""),
                _ => (north.patch(&ada, json!({ "city": format!("City {number}") })).await, ""),
            };
            assert_eq!(outcome.map_or_else(|refused| refused.reason, |_| String::new()), reason);
        });
    }
    calls.join_all().await;
    assert_eq!(north.changes(&ada).await.len(), 81);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_somebody_else_has_locked_holds_up_its_own_changes_alone() {
    let (service, north) = client().await;
    if !service.database.is_postgres() {
        println!("nothing to do: SQLite locks no rows");
        return;
    }
    let (ada, eve) = (north.person(json!({})).await, north.person(json!({})).await);
    let connection = service.database.connect().await;
    let other = connection.begin().await.expect("a transaction");
    let lock = format!("SELECT FROM profile WHERE id = '{}' FOR UPDATE", ada["id"].as_str().expect("an id"));
    other.execute_unprepared(&lock).await.expect("a lock");
    let mut waiting = JoinSet::new();
    for number in 0..16 {
        let (north, ada) = (north.clone(), ada.clone());
        waiting.spawn(async move { north.patch(&ada, json!({ "city": format!("City {number}") })).await });
    }
    for number in 0..200 {
        let patched = timeout(Duration::from_secs(1), north.patch(&eve, json!({ "city": format!("City {number}") })));
        patched.await.expect("no wait for somebody else's row").expect("patched");
    }
    other.rollback().await.expect("a rollback");
    for outcome in waiting.join_all().await {
        assert!(outcome.is_ok() || outcome.is_err_and(|refused| refused.reason == "TRANSACTION_CONFLICT"));
    }
}

/// More calls than may wait for one profile: those are told at once, and the others' permits go with their callers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_locked_row_is_bounded_and_gives_its_permits_back() {
    let service = Service::on(Arc::new(Database::create()), ["--max-in-flight", "64"]);
    let north = service.organization("north").await;
    if !service.database.is_postgres() {
        println!("nothing to do: SQLite locks no rows");
        return;
    }
    let (ada, eve) = (north.person(json!({})).await, north.person(json!({})).await);
    let held = service.database.hold().await;
    let calls = |from: usize, to: usize| {
        let mut calls = JoinSet::new();
        for number in from..to {
            let (north, ada) = (north.clone(), ada.clone());
            calls.spawn(async move { north.patch(&ada, json!({ "city": format!("City {number}") })).await });
        }
        calls
    };
    let mut waiting = calls(0, 60);
    let refused = waiting.join_next().await.expect("an answer").expect("a call").expect_err("one too many");
    assert_eq!(refused.reason, "TRANSACTION_CONFLICT");
    waiting.abort_all();
    while waiting.join_next().await.is_some() {}
    // Whoever waited has gone, and so have the permits: as many may come again.
    let read = async { while north.get(&eve).await.is_err() {} };
    timeout(Duration::from_secs(1), read).await.expect("a permit");
    held.release().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_gives_fewer_connections_than_asked_is_used_with_those() {
    let database = Arc::new(Database::create());
    if !database.is_postgres() {
        println!("nothing to do: SQLite refuses no connection");
        return;
    }
    let role = format!("few_{}", database.url().rsplit_once('_').expect("a name").1);
    database.execute(&format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 3")).await;
    database.execute(&format!("GRANT ALL ON SCHEMA public TO {role}")).await;
    let url = database.url().replacen("://postgres@", &format!("://{role}@"), 1);
    assert!(url.contains(&role), "the tests' user is postgres");
    let service = Service::by_url(Arc::clone(&database), &url, []);
    service.run(["organization", "create", "north"]);
    let key = service.key("north", &["profiles.read", "profiles.write"]);
    let north = service.client(&key).await;
    let successes = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for caller in 0..32 {
        let (north, successes) = (north.clone(), Arc::clone(&successes));
        callers.spawn(async move {
            for number in 0.. {
                if successes.load(Ordering::SeqCst) >= STOP {
                    break;
                }
                let person = north.person(json!({ "email": format!("{caller}.{number}@example.com") })).await;
                assert_eq!(north.get(&person).await.as_ref(), Ok(&person));
                successes.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    progress(&successes, 1000).await;
    successes.fetch_add(STOP, Ordering::SeqCst);
    callers.join_all().await;
    drop(service);
    database.execute(&format!("DROP OWNED BY {role}")).await;
    database.execute(&format!("DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_organizations_flood_leaves_another_its_writes() {
    let database = Arc::new(Database::create());
    let (url, _proxy) = database.behind_a_proxy(Duration::from_millis(4)).await;
    let service = Service::by_url(Arc::clone(&database), &url, []);
    let (north, south) = (service.organization("north").await, service.organization("south").await);
    let (ada, eve) = (north.person(json!({})).await, south.person(json!({})).await);
    let floods = Arc::new(AtomicU64::new(0));
    let mut flood = JoinSet::new();
    for caller in 0..400 {
        let (north, ada, floods) = (north.clone(), ada.clone(), Arc::clone(&floods));
        flood.spawn(async move {
            while floods.fetch_add(1, Ordering::SeqCst) < STOP {
                let _ = north.patch(&ada, json!({ "city": format!("City {caller}") })).await;
            }
        });
    }
    progress(&floods, 800).await;
    for number in 0..50 {
        south.patch(&eve, json!({ "city": format!("City {number}") })).await.expect("its turn");
    }
    floods.fetch_add(STOP, Ordering::SeqCst);
    flood.join_all().await;
}
