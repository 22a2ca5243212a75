//! What happens to the database under the program: nothing is written into the void, and nothing is lost for good.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::json;
use tokio::task::JoinSet;
use tonic::Code;
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
};

use crate::harness::{Database, STOP, Service, client, program, progress, until};

#[tokio::test]
async fn a_file_that_was_deleted_acknowledges_no_write() {
    let (service, north) = client().await;
    let Database::Sqlite { directory } = &*service.database else {
        println!("nothing to do: PostgreSQL keeps its own files");
        return;
    };
    let ada = north.person(json!({})).await;
    fs::remove_file(directory.path().join("profiles.db")).expect("the file");
    let refused = north.patch(&ada, json!({ "city": "London" })).await.expect_err("no file");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "DATABASE_UNAVAILABLE"));
    becomes(&service, ServingStatus::NotServing).await;
}

#[tokio::test]
async fn a_database_that_was_read_only_for_a_while_is_written_to_again() {
    let (service, north) = client().await;
    if !service.database.is_postgres() {
        println!("nothing to do: SQLite has no standby");
        return;
    }
    let ada = north.person(json!({})).await;
    let name = service.database.url().rsplit_once('/').expect("a name").1.to_owned();
    let end_sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    service.database.execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    service.database.execute(end_sessions).await;
    becomes(&service, ServingStatus::NotServing).await;
    let refused = north.patch(&ada, json!({ "city": "London" })).await.expect_err("read-only");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "DATABASE_UNAVAILABLE"));
    service.database.execute(&format!("BEGIN READ WRITE; ALTER DATABASE {name} RESET ALL; COMMIT")).await;
    becomes(&service, ServingStatus::Serving).await;
    for number in 0..50 {
        north.patch(&ada, json!({ "city": format!("City {number}") })).await.expect("written again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_where_a_column_changes_its_type() {
    let (service, north) = client().await;
    if !service.database.is_postgres() {
        println!("nothing to do: SQLite changes no types");
        return;
    }
    let calls = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let (north, calls) = (north.clone(), Arc::clone(&calls));
        callers.spawn(async move {
            let email = format!("{caller}@example.com");
            let ada = north.person(json!({ "email": email })).await;
            while calls.fetch_add(1, Ordering::SeqCst) < STOP {
                north.patch(&ada, json!({ "city": calls.load(Ordering::SeqCst).to_string() })).await.expect("patched");
                north.get(&ada).await.expect("read");
                north.call("SupportService/FindProfile", json!({ "email": email })).await.expect("found");
            }
        });
    }
    for kind in ["varchar(100)", "text", "varchar(100)", "text"] {
        progress(&calls, 100).await;
        for table in ["profile ALTER COLUMN city", "profile_change ALTER COLUMN reason"] {
            service.database.execute(&format!("ALTER TABLE {table} TYPE {kind}")).await;
        }
    }
    progress(&calls, 100).await;
    calls.fetch_add(STOP, Ordering::SeqCst);
    callers.join_all().await;
}

#[tokio::test]
async fn an_encoding_that_cannot_hold_every_name_is_refused_at_the_start() {
    let database = Database::create();
    if !database.is_postgres() {
        println!("nothing to do: SQLite is UTF-8");
        return;
    }
    let (server, name) = {
        let url = database.url();
        let (server, name) = url.rsplit_once('/').expect("a name");
        (server.to_owned(), format!("{name}_latin1"))
    };
    database
        .execute(&format!("CREATE DATABASE {name} ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"))
        .await;
    let url = format!("{server}/{name}");
    let refused = program(["organization", "list", "--database-url", &url]).output().expect("a program");
    database.execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("LATIN1") && said.contains("createdb --encoding=UTF8"), "{said}");
}

/// Waits until the service says so of itself.
async fn becomes(service: &Service, status: ServingStatus) {
    let mut health = HealthClient::new(service.channel().await);
    until(&format!("it is {status:?}"), async || {
        let request = HealthCheckRequest { service: String::new() };
        let answer = health.check(request).await.expect("an answer").into_inner();
        answer.status() as i32 == status as i32
    })
    .await;
}
