//! Races that the database decides.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::{Value as Json, json};
use tokio::task::JoinSet;
use tonic::Code;

use crate::harness::{Client, Database, SCOPES, Service, client, rounds};

/// Half of them through another program, in every way in which a profile gets one. An UpdateProfile cannot set an e-mail
/// address: where that is wanted it asks for its owner instead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_callers_who_want_one_phone_number_or_email_address_exactly_one_gets_it() {
    let database = Arc::new(Database::create());
    // No connection ends by its age, with a call on it, however long many rounds take.
    let start = || Service::on(Arc::clone(&database), ["--max-connection-age", "1d"]);
    let programs = [start(), start()];
    let north = programs[0].organization("north").await;
    let clients = [north.clone(), programs[1].client(&programs[1].key("north", &SCOPES)).await];
    let mut people = Vec::new();
    for person in 0..64 {
        people.push(north.person(json!({ "email": format!("{person}@example.com") })).await);
    }
    for round in 0..rounds(16) {
        let phone = round % 2 == 0;
        let (field, value, reason) = if phone {
            ("phoneNumber", format!("+1555{round:07}"), "PHONE_NUMBER_IN_USE")
        } else {
            ("email", format!("round.{round}@example.com"), "EMAIL_IN_USE")
        };
        let wanted = json!({ (field): value });
        let watching = Arc::new(AtomicBool::new(true));
        let watch = tokio::spawn(owners(clients[1].clone(), wanted.clone(), Arc::clone(&watching)));
        let mut callers = JoinSet::new();
        for (caller, person) in people.iter().enumerate() {
            let (client, person, wanted) = (clients[caller / 4 % 2].clone(), person.clone(), wanted.clone());
            callers.spawn(async move {
                let rpc = ["create", "patch", "correct", "update"][caller % 4];
                let outcome = match rpc {
                    "create" => {
                        let mut profile = json!({ "firstName": "A", "lastName": "B" });
                        profile[field] = wanted[field].clone();
                        client.create(profile).await
                    }
                    "patch" => client.patch(&person, wanted).await,
                    "correct" => client.correct(&person, wanted, "she says so").await,
                    _ if phone => {
                        client.update(json!({ "email": person["email"], "phoneNumber": wanted[field] })).await
                    }
                    _ => client.update(json!({ "email": wanted[field], "city": format!("City {caller}") })).await,
                };
                (rpc, outcome)
            });
        }
        let (mut winners, mut asked) = (HashSet::new(), HashSet::new());
        for (rpc, outcome) in callers.join_all().await {
            match outcome {
                Ok(owner) if rpc == "update" && !phone => drop(asked.insert(owner["id"].to_string())),
                Ok(owner) => assert!(winners.insert(owner["id"].to_string()), "round {round}"),
                Err(refused) if rpc == "update" && !phone => assert_eq!(refused.reason, "USER_NOT_FOUND"),
                Err(refused) => assert_eq!((refused.code, refused.reason.as_str()), (Code::AlreadyExists, reason)),
            }
        }
        watching.store(false, Ordering::SeqCst);
        asked.extend(watch.await.expect("a look"));
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        assert!(asked.is_subset(&winners), "round {round}: {asked:?} have owned what {winners:?} got");
        let owner = clients[round % 2].call("ProfileQueryService/LookUpProfile", wanted.clone()).await;
        let owner = owner.expect("an owner");
        assert!(winners.contains(&owner["id"].to_string()), "round {round}");
        if !phone && let Some(person) = people.iter().find(|person| person["id"] == owner["id"]) {
            north.patch(person, json!({ "email": person["email"] })).await.expect("its own address again");
        }
    }
}

/// Who is found by an address, over and over: all of them.
async fn owners(client: Client, address: Json, watching: Arc<AtomicBool>) -> HashSet<String> {
    let mut owners = HashSet::new();
    while watching.load(Ordering::SeqCst) {
        if let Ok(owner) = client.call("ProfileQueryService/LookUpProfile", address.clone()).await {
            owners.insert(owner["id"].to_string());
        }
    }
    owners
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_writers_that_each_add_1_under_an_etag_none_is_lost() {
    let (_service, north) = client().await;
    let ada = Arc::new(north.person(json!({ "postalCode": "0" })).await);
    let mut writers = JoinSet::new();
    for _ in 0..64 {
        writers.spawn(add_one(north.clone(), Arc::clone(&ada)));
    }
    writers.join_all().await;
    let after = north.get(&ada).await.expect("the profile");
    assert_eq!((&after["postalCode"], &after["etag"]), (&json!("64"), &json!("\"65\"")));
}

/// Reads, adds 1, and writes if nobody has written meanwhile, until that holds.
async fn add_one(north: Client, ada: Arc<Json>) {
    loop {
        let read = north.get(&ada).await.expect("the profile");
        let count: u32 = read["postalCode"].as_str().expect("a number").parse().expect("a number");
        match north.patch(&ada, json!({ "postalCode": (count + 1).to_string(), "etag": read["etag"] })).await {
            Ok(_) => break,
            Err(refused) => assert_eq!(refused.reason, "ETAG_MISMATCH"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_256_contended_writers_without_an_etag_succeed() {
    let (_service, north) = client().await;
    let ada = Arc::new(north.person(json!({})).await);
    let mut writers = JoinSet::new();
    for writer in 0..256 {
        let (north, ada) = (north.clone(), Arc::clone(&ada));
        writers.spawn(async move { north.patch(&ada, json!({ "city": format!("City {writer}") })).await });
    }
    for outcome in writers.join_all().await {
        outcome.expect("a write");
    }
    assert_eq!(north.get(&ada).await.expect("the profile")["etag"], "\"257\"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_repeats_in_flight_make_one_change_and_sixteen_equal_answers() {
    let (_service, north) = client().await;
    let ada = north.person(json!({ "email": "ada@example.com" })).await;
    for round in 0..10 {
        let city = format!("City {round}");
        for (rpc, request) in [
            ("ProfileService/CreateProfile", json!({ "profile": { "firstName": "Eve", "lastName": city } })),
            ("ProfileService/PatchProfile", json!({ "profile": { "id": ada["id"], "city": format!("{city} a") } })),
            ("ProfileService/UpdateProfile", json!({ "data": { "email": "ada@example.com", "city": city } })),
        ] {
            let before = north.changes(&ada).await.len();
            let mut request = request;
            request["requestId"] = json!(format!("r-{round}"));
            let mut repeats = JoinSet::new();
            for _ in 0..16 {
                let (north, request) = (north.clone(), request.clone());
                repeats.spawn(async move { north.call(rpc, request).await.expect(rpc) });
            }
            let answers = repeats.join_all().await;
            assert!(answers.iter().all(|answer| *answer == answers[0]), "{rpc}");
            if rpc == "ProfileService/CreateProfile" {
                assert_eq!(north.changes(&answers[0]).await.len(), 1);
            } else {
                assert_eq!(north.changes(&ada).await.len(), before + 1, "{rpc}");
            }
        }
    }
}
