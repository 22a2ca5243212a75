//! Transactions that get in each other's way are tried again: nobody sees it.

use std::sync::Arc;

use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;

use crate::harness::{Database, Service, client, until};

/// How many sessions wait for a lock.
const WAITING: &str = "SELECT COUNT(*) AS number FROM pg_stat_activity \
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_succeed_at_serializable_too() {
    let database = Arc::new(Database::create());
    let isolation = if database.is_postgres() { "?options[default_transaction_isolation]=serializable" } else { "" };
    let url = format!("{}{isolation}", database.url());
    let service = Service::by_url(database, &url, []);
    let north = service.organization("north").await;
    let ada = Arc::new(north.person(json!({})).await);
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let (north, ada) = (north.clone(), Arc::clone(&ada));
        writers.spawn(async move {
            for round in 0..10 {
                north.patch(&ada, json!({ "city": format!("City {writer} {round}") })).await.expect("a write");
                north.person(json!({ "email": format!("{writer}.{round}@example.com") })).await;
            }
        });
    }
    writers.join_all().await;
    assert_eq!(north.get(&ada).await.expect("the profile")["etag"], "\"81\"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_programs_write_to_one_database() {
    let database = Arc::new(Database::create());
    let services = [Service::on(Arc::clone(&database), []), Service::on(database, [])];
    let north = services[0].organization("north").await;
    let ada = Arc::new(north.person(json!({})).await);
    let key = services[1].key("north", &["profiles.read", "profiles.write"]);
    let mut writers = JoinSet::new();
    for writer in 0..16 {
        let (north, ada) = (services[writer % 2].client(&key).await, Arc::clone(&ada));
        writers.spawn(async move {
            for round in 0..10 {
                north.patch(&ada, json!({ "city": format!("City {writer} {round}") })).await.expect("a write");
            }
        });
    }
    writers.join_all().await;
    assert_eq!(north.get(&ada).await.expect("the profile")["etag"], "\"161\"");
}

/// Someone else holds a phone number and wants an e-mail address, the service holds that address and wants that number.
#[tokio::test]
async fn a_deadlock_over_two_unique_indexes_is_tried_again() {
    let (service, north) = client().await;
    if !service.database.is_postgres() {
        println!("nothing to do: the one writer of SQLite cannot deadlock");
        return;
    }
    let ada = north.person(json!({})).await;
    let connection = service.database.connect().await;
    for rpc in ["CreateProfile", "PatchProfile"] {
        let (email, phone) = (format!("{rpc}@example.com").to_lowercase(), "+15550001");
        let other = connection.begin().await.expect("a transaction");
        let hold = |column: &str, value: &str| {
            format!(
                "INSERT INTO profile (id, organization_id, revision, locked, role, first_name, last_name, {column}, created_at, updated_at) \
                 VALUES (gen_random_uuid(), gen_random_uuid(), 1, false, 'USER', 'A', 'B', '{value}', now(), now())"
            )
        };
        other.execute_unprepared(&hold("phone_number", phone)).await.expect("the number");

        let fields = json!({ "email": email, "phoneNumber": phone });
        let (north, ada) = (north.clone(), ada.clone());
        let call = tokio::spawn(async move {
            if rpc == "PatchProfile" { north.patch(&ada, fields).await } else { Ok(north.person(fields).await) }
        });
        // The service holds the address as soon as it waits for the number.
        until("the service waits", async || service.database.number(WAITING).await > 0).await;
        other.execute_unprepared(&hold("email", &email)).await.expect("the service gives way");
        other.rollback().await.expect("a rollback");
        let person = call.await.expect("a call").expect("tried again");
        assert_eq!(person["phoneNumber"], phone, "{rpc}");
        service.database.execute("UPDATE profile SET phone_number = NULL").await;
    }
}

/// The address moves to another person of the organization while UpdateProfile waits for the one who has it.
#[tokio::test]
async fn an_email_that_changes_hands_meanwhile_is_looked_for_again() {
    let (service, north) = client().await;
    if !service.database.is_postgres() {
        println!("nothing to do: nobody waits in the middle of a write on SQLite");
        return;
    }
    let (ada, eve) = (north.person(json!({ "email": "ada@example.com" })).await, north.person(json!({})).await);
    let connection = service.database.connect().await;
    let other = connection.begin().await.expect("a transaction");
    let give = |id: &Json, email: &str| {
        format!("UPDATE profile SET email = {email} WHERE id = '{}'", id.as_str().expect("an id"))
    };
    other.execute_unprepared(&give(&ada["id"], "NULL")).await.expect("given up");
    other.execute_unprepared(&give(&eve["id"], "'ada@example.com'")).await.expect("taken over");
    let update =
        tokio::spawn(async move { north.update(json!({ "email": "ada@example.com", "city": "London" })).await });
    until("the service waits", async || service.database.number(WAITING).await > 0).await;
    other.commit().await.expect("a commit");
    assert_eq!(update.await.expect("a call").expect("updated")["id"], eve["id"]);
}
