//! WatchProfiles: everybody who is there, then every change, none skipped.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::{Value as Json, json};
use tokio::time::timeout;
use tonic::Code;

use crate::harness::{Client, Database, Messages, Service, client};

const WATCH: &str = "ProfileQueryService/WatchProfiles";

/// How long a message may take that comes at once, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(10);

async fn watch(client: &Client, request: Json) -> Messages {
    client.stream(WATCH, request).await.expect("a stream")
}

async fn next(messages: &mut Messages) -> Json {
    let message = timeout(SOON, messages.next()).await.expect("a message in time");
    message.expect("a message").expect("a stream that goes on")
}

/// The next message that is no heartbeat.
async fn change(messages: &mut Messages) -> Json {
    loop {
        let message = next(messages).await;
        if message["kind"] != "KIND_HEARTBEAT" {
            return message;
        }
    }
}

/// What a message says, without its token, time and profile.
fn told(message: &Json) -> (String, String, u64, Vec<String>) {
    let fields = message["fields"].as_array().into_iter().flatten();
    (
        message["kind"].as_str().expect("a kind").to_owned(),
        message["profileId"].as_str().unwrap_or_default().to_owned(),
        message["revision"].as_str().map_or(0, |revision| revision.parse().expect("a number")),
        fields.map(|field| field.as_str().expect("a name").to_owned()).collect(),
    )
}

/// The messages of a snapshot up to its end.
async fn snapshot(messages: &mut Messages) -> Vec<Json> {
    let mut shown = Vec::new();
    loop {
        let message = next(messages).await;
        let ended = message["kind"] == "KIND_SNAPSHOT_END";
        shown.push(message);
        if ended {
            return shown;
        }
    }
}

fn id(person: &Json) -> String {
    person["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_watch_begins_with_everybody_and_goes_on_with_every_change() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    south.person(json!({})).await;
    let mut people = Vec::new();
    for _ in 0..150 {
        people.push(north.person(json!({})).await);
    }
    let people = people;
    north.patch(&people[3], json!({ "city": "London" })).await.expect("patched");

    service.database.sequenced().await;
    let mut messages = watch(&north, json!({})).await;
    let shown = snapshot(&mut messages).await;
    let ids: BTreeSet<_> = shown[..150].iter().map(|message| told(message).1).collect();
    assert_eq!((ids, shown.len()), (people.iter().map(id).collect(), 151));
    for message in &shown[..150] {
        assert_eq!((&message["kind"], &message["fields"]), (&json!("KIND_CREATED"), &Json::Null));
        assert_eq!(message["changeTime"], message["profile"]["updatedDate"]);
    }
    let patched = shown.iter().find(|message| message["profileId"] == people[3]["id"]).expect("the patched one");
    assert_eq!((&patched["revision"], &patched["profile"]["city"]), (&json!("2"), &json!("London")));
    assert_eq!(told(&shown[150]), ("KIND_SNAPSHOT_END".to_owned(), String::new(), 0, vec![]));

    let locked = north.report("c1", &people[0], "ASSIGNED", "2026-01-05T10:00:00Z").await;
    locked.expect("a report");
    let message = change(&mut messages).await;
    let fields = vec!["locked_fields".to_owned()];
    assert_eq!(told(&message), ("KIND_CHANGED".to_owned(), id(&people[0]), 2, fields));
    assert_eq!(Ok(&message["profile"]), north.get(&people[0]).await.as_ref());
    let changed = north.changes(&people[0]).await;
    assert_eq!(message["changeTime"], changed[0]["changeTime"]);
}

#[tokio::test]
async fn the_line_of_a_watch_names_the_profiles_that_it_sent() {
    let (mut service, north) = client().await;
    let ada = north.person(json!({})).await;
    service.database.sequenced().await;
    let mut messages = watch(&north, json!({})).await;
    snapshot(&mut messages).await;
    for city in ["London", "Paris"] {
        north.patch(&ada, json!({ "city": city })).await.expect("patched");
        change(&mut messages).await;
    }
    drop((messages, north));
    service.signal("TERM");
    let (_, log) = service.end().await;
    let line = log.iter().find(|line| line.contains(WATCH)).expect("its line");
    let line: Json = serde_json::from_str(line).expect("JSON");
    assert_eq!((&line["span"]["profiles"], &line["span"]["profile_ids"]), (&json!(3), &ada["id"]));
}

#[tokio::test]
async fn a_watch_that_skips_what_exists_begins_with_a_heartbeat_and_now() {
    let (service, north) = client().await;
    let ada = north.person(json!({})).await;
    service.database.sequenced().await;
    let mut messages = watch(&north, json!({ "skipExisting": true })).await;
    assert_eq!(told(&next(&mut messages).await).0, "KIND_HEARTBEAT");
    north.patch(&ada, json!({ "city": "London", "state": "NY" })).await.expect("patched");
    let fields = vec!["city".to_owned(), "state".to_owned()];
    assert_eq!(told(&change(&mut messages).await), ("KIND_CHANGED".to_owned(), id(&ada), 2, fields));
    let eve = north.person(json!({})).await;
    let (kind, profile, revision, fields) = told(&change(&mut messages).await);
    assert_eq!((kind.as_str(), profile, revision), ("KIND_CREATED", id(&eve), 1));
    assert!(fields.contains(&"first_name".to_owned()));
}

#[tokio::test]
async fn each_token_goes_on_behind_its_message() {
    let (service, north) = client().await;
    let mut people = Vec::new();
    for _ in 0..3 {
        people.push(north.person(json!({})).await);
    }
    service.database.sequenced().await; // what the feed has before a snapshot is not sent behind it
    let mut messages = watch(&north, json!({})).await;
    let mut seen = snapshot(&mut messages).await;
    for city in ["London", "Paris"] {
        north.patch(&people[1], json!({ "city": city })).await.expect("patched");
        seen.push(change(&mut messages).await);
    }
    for at in 0..seen.len() {
        let mut resumed = watch(&north, json!({ "resumeToken": seen[at]["resumeToken"] })).await;
        for expected in &seen[at + 1..] {
            let message = change(&mut resumed).await;
            for what in ["kind", "profileId", "fields", "resumeToken"] {
                assert_eq!(message[what], expected[what]);
            }
        }
        if at + 1 == seen.len() {
            assert_eq!(told(&next(&mut resumed).await).0, "KIND_HEARTBEAT");
        }
    }
}

#[tokio::test]
async fn what_is_no_token_of_the_organization_is_refused_and_one_of_another_history_has_expired() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    north.person(json!({})).await;
    service.database.sequenced().await;
    let mut messages = watch(&north, json!({ "skipExisting": true })).await;
    let token = next(&mut messages).await["resumeToken"].as_str().expect("a token").to_owned();
    let altered = |at: usize| {
        let mut altered = token.clone().into_bytes();
        altered[at] = if altered[at] == b'0' { b'1' } else { b'0' };
        String::from_utf8(altered).expect("text")
    };
    let (invalid, expired) =
        ((Code::InvalidArgument, "INVALID_RESUME_TOKEN"), (Code::OutOfRange, "RESUME_TOKEN_EXPIRED"));
    for (client, token, refusal) in [
        (&north, "nonsense".to_owned(), invalid),
        (&north, token[2..].to_owned(), invalid),
        (&south, token.clone(), invalid),
        (&north, altered(0), invalid),
        (&north, altered(23), expired), // its position
        (&north, altered(24), expired), // its digest
    ] {
        let refused = client.stream(WATCH, json!({ "resumeToken": token })).await.err().expect("a refusal");
        assert_eq!((refused.code, refused.reason.as_str()), refusal, "{token}");
    }
    let both = north.stream(WATCH, json!({ "resumeToken": token, "skipExisting": true })).await;
    let refused = both.err().expect("a refusal");
    assert_eq!(refused.paths(), ["skip_existing"]);
    assert_eq!(refused.field_reasons, ["NOT_WITH_TOKEN"]);
}

/// A number taken inside the writing transaction would not be the order of commits.
#[tokio::test]
async fn a_change_that_commits_later_than_it_began_is_not_skipped() {
    let (service, north) = client().await;
    let (ada, eve) = (north.person(json!({})).await, north.person(json!({})).await);
    service.database.sequenced().await;
    let mut messages = watch(&north, json!({ "skipExisting": true })).await;
    next(&mut messages).await;

    let connection = service.database.connect().await;
    let slow = connection.begin().await.expect("a transaction");
    for statement in [
        "UPDATE profile SET revision = 2, city = 'Paris' WHERE id = $ID",
        "INSERT INTO profile_change (profile_id, revision, organization_id, changed_at, rpc, key_id, key_name, \
         lock_overridden, fields) SELECT profile_id, 2, organization_id, changed_at, 'slow', key_id, key_name, \
         lock_overridden, 'city' FROM profile_change WHERE profile_id = $ID",
        if service.database.is_postgres() {
            "INSERT INTO feed_pending (changes) SELECT concat_ws(' ', organization_id, id, revision) FROM profile \
             WHERE id = $ID"
        } else {
            "INSERT INTO feed_pending (changes) SELECT hex(organization_id) || ' ' || hex(id) || ' ' || revision \
             FROM profile WHERE id = $ID"
        },
    ] {
        let ada = id(&ada);
        let ada =
            if service.database.is_postgres() { format!("'{ada}'") } else { format!("X'{}'", ada.replace('-', "")) };
        slow.execute_unprepared(&statement.replace("$ID", &ada)).await.expect("a statement that is taken");
    }
    let fast = async |messages: &mut Messages| {
        north.patch(&eve, json!({ "city": "London" })).await.expect("patched");
        assert_eq!(told(&change(messages).await).1, id(&eve));
    };
    if service.database.is_postgres() {
        fast(&mut messages).await;
        slow.commit().await.expect("a commit");
    } else {
        slow.commit().await.expect("a commit"); // SQLite has one writer: nobody else can commit before
    }
    assert_eq!(told(&change(&mut messages).await).1, id(&ada));
    if !service.database.is_postgres() {
        fast(&mut messages).await;
    }
}

/// The history after a restore is another one: a token of a change that it lacks must not go on in it.
#[tokio::test]
async fn after_a_restore_only_tokens_from_before_the_dump_go_on() {
    let database = Arc::new(Database::create());
    let (lost, dump, key) = {
        let mut service = Service::on(Arc::clone(&database), []);
        service.organization("north").await;
        let key = service.key("north", &["profiles.read", "profiles.write", "profiles.list"]);
        let north = service.client(&key).await;
        north.person(json!({})).await;
        let before = token_of_now(&service, &north).await;
        drop(north);
        service.signal("TERM");
        service.end().await;
        let dump = Arc::new(database.copy());
        let service = Service::on(Arc::clone(&database), []);
        let north = service.client(&key).await;
        north.person(json!({})).await;
        (token_of_now(&service, &north).await, (dump, before), key)
    };
    let (restored, before) = dump;
    let service = Service::on(restored, []);
    let north = service.client(&key).await;
    let resume = async |token: &str| north.stream(WATCH, json!({ "resumeToken": token })).await;
    assert_eq!(resume(&lost).await.err().expect("a refusal").reason, "RESUME_TOKEN_EXPIRED");
    let mut messages = resume(&before).await.expect("a stream");
    for _ in 0..2 {
        let eve = north.person(json!({})).await;
        assert_eq!(told(&change(&mut messages).await).1, id(&eve));
        assert_eq!(resume(&lost).await.err().expect("a refusal").reason, "RESUME_TOKEN_EXPIRED");
    }
}

/// The token of now, with every change in the feed.
async fn token_of_now(service: &Service, client: &Client) -> String {
    service.database.sequenced().await;
    let mut messages = watch(client, json!({ "skipExisting": true })).await;
    next(&mut messages).await["resumeToken"].as_str().expect("a token").to_owned()
}

/// As a failover does that loses what the old primary had acknowledged, under the stream.
#[tokio::test]
async fn an_open_stream_expires_where_its_change_is_not_there_any_more() {
    let (service, north) = client().await;
    let ada = north.person(json!({})).await;
    service.database.sequenced().await;
    let mut messages = watch(&north, json!({ "skipExisting": true })).await;
    next(&mut messages).await;
    for city in ["London", "Paris", "Rome"] {
        north.patch(&ada, json!({ "city": city })).await.expect("patched");
        change(&mut messages).await;
    }
    service.database.execute("DELETE FROM feed WHERE position > 2").await;
    north.patch(&ada, json!({ "city": "Oslo" })).await.expect("patched");
    let ended = loop {
        match timeout(SOON, messages.next()).await.expect("an end in time") {
            Ok(message) => assert_eq!(message.expect("a message")["kind"], "KIND_HEARTBEAT"),
            Err(ended) => break ended,
        }
    };
    assert_eq!((ended.code, ended.reason.as_str()), (Code::OutOfRange, "RESUME_TOKEN_EXPIRED"));
}

/// Each profile's revisions come in order, over kills and restarts of both replicas.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_kills_and_restarts_every_revision_comes_in_order() {
    let database = Arc::new(Database::create());
    let mut replicas = [Service::on(Arc::clone(&database), []), Service::on(Arc::clone(&database), [])];
    replicas[0].organization("north").await;
    let key = replicas[0].key("north", &["profiles.read", "profiles.write", "profiles.list"]);
    let mut token = String::new();
    let mut revisions = BTreeMap::<String, Vec<u64>>::new();
    for round in 0..4 {
        let (writer, reader) = (replicas[0].client(&key).await, replicas[1].client(&key).await);
        let mut messages = watch(&reader, json!({ "resumeToken": token })).await;
        let writing = tokio::spawn(async move {
            let ada = writer.person(json!({})).await;
            for number in 0.. {
                if writer.patch(&ada, json!({ "city": format!("City {round} {number}") })).await.is_err() {
                    break;
                }
            }
        });
        for _ in 0..40 {
            take(&mut messages, &mut token, &mut revisions).await;
        }
        replicas[round % 2].signal("KILL");
        replicas[round % 2].end().await;
        writing.abort();
        replicas[round % 2] = Service::on(Arc::clone(&database), []);
    }
    let stored = database.number("SELECT COUNT(*) AS number FROM profile_change").await;
    let stored = usize::try_from(stored).expect("a count");
    let reader = replicas[1].client(&key).await;
    let mut messages = watch(&reader, json!({ "resumeToken": token })).await;
    while revisions.values().map(|seen| seen.iter().collect::<BTreeSet<_>>().len()).sum::<usize>() < stored {
        take(&mut messages, &mut token, &mut revisions).await;
    }
    for seen in revisions.into_values() {
        let mut firsts: Vec<_> = Vec::new();
        for revision in seen {
            if !firsts.contains(&revision) {
                firsts.push(revision);
            }
        }
        assert!(firsts.is_sorted() && firsts[0] == 1, "{firsts:?}");
    }
}

/// Takes a message in, as a follower does.
async fn take(messages: &mut Messages, token: &mut String, revisions: &mut BTreeMap<String, Vec<u64>>) {
    let message = next(messages).await;
    message["resumeToken"].as_str().expect("a token").clone_into(token);
    let (kind, profile, revision, _) = told(&message);
    if matches!(kind.as_str(), "KIND_CREATED" | "KIND_CHANGED") {
        revisions.entry(profile).or_default().push(revision);
    }
}

/// Whoever has the sequencer's lock and does not go on loses it with its session.
#[tokio::test]
async fn a_sequencer_that_freezes_holds_the_feed_up_for_6_seconds_at_the_most() {
    let (service, north) = client().await;
    if !service.database.is_postgres() {
        return; // the one writer of SQLite is the lock
    }
    let ada = north.person(json!({})).await;
    service.database.sequenced().await;
    let mut messages = watch(&north, json!({ "skipExisting": true })).await;
    next(&mut messages).await;
    let connection = service.database.connect().await;
    let frozen = connection.begin().await.expect("a transaction");
    for statement in
        ["SET LOCAL idle_in_transaction_session_timeout = '5s'", "SELECT id FROM feed_sequencer FOR UPDATE"]
    {
        frozen.execute_unprepared(statement).await.expect("a statement that is taken");
    }
    let since = Instant::now();
    north.patch(&ada, json!({ "city": "London" })).await.expect("patched");
    assert_eq!(told(&change(&mut messages).await).1, id(&ada));
    let held = since.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(6)).contains(&held), "{held:?}");
    drop(frozen);
}
