//! What callers do not bring about by themselves: the reasons that need a fault, and panics.

use std::fs;

use serde_json::{Value as Json, json};

use super::{
    CANARY,
    calls::{CREATE, Heard, Keys, PATCH, WATCH, caller},
};
use crate::harness::{Client, Database, Messages, Proxy, Service, Way, until};

/// How many streams the service has; a key may have a quarter of them.
pub const STREAMS: usize = 32;

fn person() -> Json {
    json!({ "profile": { "firstName": CANARY, "lastName": CANARY } })
}

/// Brings about the reasons that need a fault, but for the end of streams: those that are answered are open.
pub async fn happen(service: &Service, proxy: Option<&Proxy>, keys: &Keys, heard: &mut Heard) -> Vec<Messages> {
    let north = caller(service, keys.north.clone()).await;
    service.database.sequenced().await;
    let follow = async || north.stream(WATCH, json!({ "skipExisting": true })).await;
    let mut first = follow().await.expect("a stream");
    let of_now = first.next().await.expect("a message").expect("the first")["resumeToken"].clone();
    let mut token = of_now.as_str().expect("a token").to_owned();
    // Its end is a digest of the change that is at its position.
    let last = if token.pop() == Some('0') { "1" } else { "0" };
    let _ = heard.call(&north, WATCH, json!({ "resumeToken": token + last })).await;
    drop(first);
    be_away(&service.database, proxy, &north, heard).await;
    if let Some(proxy) = proxy {
        lose_answers(proxy, &north, heard).await;
    }
    // Only now: a query that fails would end them in another way.
    let mut open = Vec::new();
    until("a key has a quarter of the streams", async || match follow().await {
        Ok(messages) => {
            open.push(messages);
            false
        }
        Err(refused) => {
            let is_full = refused.reason == "OVERLOADED";
            heard.reasons.insert(refused.reason);
            is_full
        }
    })
    .await;
    open
}

/// The database is away: the way to PostgreSQL is closed, or the file of an embedded one has gone.
async fn be_away(database: &Database, proxy: Option<&Proxy>, north: &Client, heard: &mut Heard) {
    match (database, proxy) {
        (Database::Sqlite { directory }, _) => {
            let (file, away) = (directory.path().join("profiles.db"), directory.path().join("away.db"));
            fs::rename(&file, &away).expect("a file");
            let _ = heard.call(north, CREATE, person()).await;
            fs::rename(&away, &file).expect("a file");
        }
        (Database::Postgres { .. }, proxy) => {
            let proxy = proxy.expect("a way to PostgreSQL");
            proxy.set(Way::Closed);
            until("it is noticed that the database is away", async || {
                let created = heard.call(north, CREATE, person()).await;
                created.is_err_and(|refused| refused.reason == "DATABASE_UNAVAILABLE")
            })
            .await;
            proxy.set(Way::Open);
        }
    }
}

/// Loses what PostgreSQL answers, until that was the answer to a write.
async fn lose_answers(proxy: &Proxy, north: &Client, heard: &mut Heard) {
    let mut nth = 0;
    until("the answer to a write is lost", async || {
        nth = nth % 4 + 1;
        proxy.lose(nth);
        let created = heard.call(north, CREATE, person()).await;
        created.is_err_and(|refused| refused.reason == "OUTCOME_UNKNOWN")
    })
    .await;
    proxy.lose_nothing();
}

/// Reads streams to their ends.
pub async fn end(open: Vec<Messages>, heard: &mut Heard) {
    for mut messages in open {
        let ended = loop {
            match messages.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ends without a reason"),
                Err(ended) => break ended,
            }
        };
        heard.reasons.insert(ended.reason);
    }
}

/// The files in which `panic` has them panic.
pub const PANICKING: [&str; 3] = ["src/profile/decide.rs:", "src/grpc/export.rs:", "src/store/feed.rs:"];

/// What each of these panics says, which is nowhere.
pub const SAID: &str = "attempt to add";

/// Has a worker of the write, a stream and the sequencer of the feed panic: numbers that are as large as they can be are
/// counted on, which a debug build notices.
pub async fn panic(service: &Service, keys: &Keys, id: &str, heard: &mut Heard) {
    let (database, north) = (&service.database, caller(service, keys.north.clone()).await);
    database.sequenced().await;
    let revision = database.number(&format!("SELECT revision AS number FROM profile WHERE {FIRST}")).await;
    let revised =
        async |revision| database.execute(&format!("UPDATE profile SET revision = {revision} WHERE {FIRST}")).await;
    revised(i64::MAX).await;
    let patch = |city: &str| json!({ "profile": { "id": id, "city": city } });
    let refused = heard.call(&north, PATCH, patch("canary panics")).await.expect_err("a panic");
    assert_eq!(refused.reason, "OUTCOME_UNKNOWN", "it had begun");
    let mut exported = north.stream("SupportService/ExportProfile", json!({ "id": id })).await.expect("a stream");
    while let Ok(Some(_)) = exported.next().await {}
    revised(revision).await;

    let last = database.number("SELECT MAX(position) AS number FROM feed").await;
    let placed = async |from: i64, to: i64| {
        database.execute(&format!("UPDATE feed SET position = {to} WHERE position = {from}")).await;
    };
    placed(last, i64::MAX).await;
    heard.call(&north, PATCH, patch("canary goes on")).await.expect("patched");
    until("all have panicked", async || PANICKING.iter().all(|file| service.count(file) > 0)).await;
    placed(i64::MAX, last).await;
    database.sequenced().await;
}

/// The profile whose id is `ids[0]`, by what SQLite and PostgreSQL compare alike.
const FIRST: &str = "email LIKE 'canary0@%'";
