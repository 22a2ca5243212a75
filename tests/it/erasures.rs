//! What is left of erased people: in dumps, in restored backups, and in the pages of a file.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

use futures_util::{StreamExt as _, stream};
use serde_json::{Value as Json, json};

use crate::harness::{Client, Database, SCOPES, Service, client, program};

const MONDAY: &str = "2026-01-05T10:00:00Z";

/// What every value of a person who is to be erased begins with.
const CANARY: &str = "canary";

/// How many people are erased.
const ERASED: usize = 1000;

/// How many calls are made at once.
const AT_ONCE: usize = 16;

/// A person with a canary in every value that can have one, and a history of them.
async fn canary(north: &Client, number: usize) -> Json {
    let text = |what: &str| format!("{CANARY} {what} {number}");
    let fields = json!({ "firstName": text("first"), "lastName": text("last"), "address": text("address"),
        "address2": text("address2"), "city": text("city"), "email": format!("{CANARY}{number}@example.com"),
        "identifiers": [{ "system": "mrn", "value": text("identifier") }] });
    let person = json!({ "requestId": format!("remembered {number}"), "profile": fields });
    let person = north.call("ProfileService/CreateProfile", person).await.expect("a new profile");
    north.report(&text("case"), &person, "ASSIGNED", MONDAY).await.expect("reported");
    let correct = json!({ "profile": { "id": person["id"], "city": text("new city") }, "reason": text("reason"),
        "ticket": text("ticket"), "requestId": format!("remembered {number}") });
    north.call("SupportService/CorrectProfile", correct).await.expect("corrected")
}

/// People of an organization, who were all changed by somebody who has a canary for a name.
async fn canaries(service: &Service, organization: &str, numbers: std::ops::Range<usize>) -> Vec<Json> {
    let key = service.key(organization, &SCOPES);
    let metadata = vec![("cv-api-key", key), ("x-actor", format!("{CANARY}-actor"))];
    let acting = Client::with_metadata(service.channel().await, metadata);
    stream::iter(numbers).map(|number| canary(&acting, number)).buffer_unordered(AT_ONCE).collect().await
}

async fn erase(north: &Client, people: &[Json]) {
    let erasures = stream::iter(people).map(async |person| {
        let erase = json!({ "id": person["id"], "reasonCode": "REASON_CODE_LEGAL_ORDER", "evenIfLocked": true });
        north.call("SupportService/EraseProfile", erase).await.expect("erased");
    });
    erasures.buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// Runs the program on this database.
fn run<const N: usize>(database: &Database, arguments: [&str; N]) -> Output {
    program(arguments).env("PROFILE_DATABASE_URL", database.url()).output().expect("a program")
}

/// What a command prints that succeeds.
pub fn printed<const N: usize>(database: &Database, arguments: [&str; N]) -> String {
    let output = run(database, arguments);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Why a command ends with 1.
fn failed<const N: usize>(database: &Database, arguments: [&str; N]) -> String {
    let output = run(database, arguments);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
    String::from_utf8(output.stderr).expect("text")
}

/// All that the database holds: a dump of it, or the bytes of its file and its log.
pub fn everything(database: &Database) -> Vec<u8> {
    match database {
        Database::Sqlite { directory } => {
            let files = fs::read_dir(directory.path()).expect("a directory");
            files.flat_map(|file| fs::read(file.expect("a file").path()).expect("bytes")).collect()
        }
        Database::Postgres { .. } => {
            let dump = Command::new("pg_dump").arg(database.url()).output().expect("pg_dump is on the PATH");
            assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
            dump.stdout
        }
    }
}

/// The canaries in these bytes, each once.
fn found(bytes: &[u8]) -> BTreeSet<String> {
    let starts = bytes.windows(CANARY.len()).enumerate().filter(|(_, window)| *window == CANARY.as_bytes());
    starts.map(|(at, _)| String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 24)]).into_owned()).collect()
}

async fn stop(mut service: Service) {
    service.signal("TERM");
    service.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_forgets_everybody_again_who_was_erased_since() {
    let database = Arc::new(Database::create());
    let service = Service::on(Arc::clone(&database), []);
    let north = service.organization("north").await;
    let key = service.key("north", &["profiles.read", "support", "profiles.list"]);
    let people = canaries(&service, "north", 0..ERASED).await;
    let kept = north.person(json!({ "lastName": "King" })).await;
    stop(service).await;
    let restored = Arc::new(database.copy());

    let service = Service::on(Arc::clone(&database), []);
    let south = service.organization("south").await;
    let later = canaries(&service, "south", ERASED..ERASED + 3).await;
    let north = service.client(&service.key("north", &["privacy"])).await;
    erase(&north, &people).await;
    erase(&south, &later).await;
    drop((north, south));
    stop(service).await;
    let exported = printed(&database, ["erasures", "export"]);
    assert_eq!((exported.lines().count(), found(exported.as_bytes())), (ERASED + 3, BTreeSet::new()));
    let line: Json = serde_json::from_str(exported.lines().next().expect("a line")).expect("JSON");
    let members: Vec<_> = line.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(members, ["erase_time", "kind", "organization_id", "profile_id", "reason_code"]);
    assert_eq!((&line["kind"], &line["reason_code"]), (&json!("erasure"), &json!("REASON_CODE_LEGAL_ORDER")));

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("erasures.jsonl");
    fs::write(&file, &exported).expect("a file");
    let file = file.to_str().expect("a path");
    assert!(found(&everything(&restored)).len() > ERASED, "the backup has them");
    let said = printed(&restored, ["erasures", "replay", "--dry-run", file]);
    assert_eq!(said, "1003 erasures: 1000 would be erased, 0 are already, 3 not known would be remembered\n");
    assert_eq!(restored.number("SELECT COUNT(*) AS number FROM erasure").await, 0);
    let said = printed(&restored, ["erasures", "replay", file]);
    assert_eq!(said, "1003 erasures: 1000 erased, 0 were already, 3 not known are remembered\n");
    assert_eq!(printed(&restored, ["erasures", "export"]), exported, "the next export is complete");
    let before = restored.number("SELECT COUNT(*) AS number FROM profile_change").await;
    let said = printed(&restored, ["erasures", "replay", file]);
    assert_eq!(said, "1003 erasures: 0 erased, 1003 were already, 0 not known are remembered\n");
    assert_eq!(restored.number("SELECT COUNT(*) AS number FROM profile_change").await, before);

    for database in [&database, &restored] {
        if !database.is_postgres() {
            printed(database, ["compact"]);
        }
        let everything = everything(database);
        assert_eq!(found(&everything), BTreeSet::new());
        assert!(everything.windows(12).any(|bytes| bytes == b"remembered 1"), "request ids are still remembered");
    }
    let service = Service::on(Arc::clone(&restored), []);
    let north = service.client(&key).await;
    north.get(&kept).await.expect("nobody else is erased");
    assert_eq!(north.get(&people[0]).await.expect_err("erased").reason, "PROFILE_NOT_FOUND");
    let change = north.changes(&people[0]).await.remove(0);
    let erase_time = exported.lines().find(|line| line.contains(people[0]["id"].as_str().expect("an id")));
    let line: Json = serde_json::from_str(erase_time.expect("a line")).expect("JSON");
    assert_eq!((&change["rpc"], &change["keyId"]), (&json!("erasures replay"), &json!("command-line")));
    assert_eq!((&change["reason"], &change["changeTime"]), (&line["reason_code"], &line["erase_time"]));
    assert_eq!((&change["revision"], &change["lockOverridden"]), (&json!("4"), &json!(true)));
    restored.sequenced().await;
    let erasures = "SELECT COUNT(*) AS number FROM feed f JOIN profile_change c ON c.profile_id = f.profile_id \
                    AND c.revision = f.revision WHERE c.rpc = 'erasures replay'";
    assert_eq!(restored.number(erasures).await, 1000);
}

#[tokio::test]
async fn a_file_with_anything_else_erases_nobody() {
    let (service, north) = client().await;
    let ada = north.person(json!({})).await;
    let organization = service.run(["organization", "list"]);
    let organization = organization.lines().nth(1).and_then(|line| line.split('\t').next()).expect("an id").to_owned();
    let line = json!({ "kind": "erasure", "organization_id": organization, "profile_id": ada["id"],
        "erase_time": "2026-01-05T10:00:00.000001Z", "reason_code": "REASON_CODE_RETENTION" });
    let with = |name: &str, value: Json| {
        let mut line = line.clone();
        line[name] = value;
        line.to_string()
    };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("erasures.jsonl");
    let path = file.to_str().expect("a path");
    let replay = ["erasures", "replay", path];
    for other in [
        with("kind", json!("profile")),
        with("first_name", json!("Ada")),
        with("profile_id", json!("Ada")),
        with("erase_time", json!("monday")),
        with("reason_code", json!("REASON_CODE_UNSPECIFIED")),
        "{}".to_owned(),
        "Ada".to_owned(),
        "\u{0}".to_owned(),
    ] {
        fs::write(&file, format!("{line}\n\n{other}\n{line}\n{other}")).expect("a file");
        let said = failed(&service.database, replay);
        assert!(said.contains("nothing was erased: 2 lines of"), "{said}");
        assert!(said.contains("(lines 3, 5)") && !said.contains("Ada"), "{said}");
    }
    for (bytes, words) in
        [(&b""[..], "has no erasures"), (b"\xff\xfe", "are no erasures"), (b" \r\n\r\n", "has no erasures")]
    {
        fs::write(&file, bytes).expect("a file");
        let said = failed(&service.database, replay);
        assert!(said.contains(words), "{said}");
    }
    let there = directory.path().to_str().expect("a path");
    assert!(failed(&service.database, ["erasures", "replay", there]).contains("cannot be read: Is a directory"));
    assert!(failed(&service.database, ["erasures", "replay", "/nowhere"]).contains("No such file"));
    north.get(&ada).await.expect("nobody was erased");

    fs::write(&file, format!("\u{feff}\r\n{line}\r\n\n{line}")).expect("a file");
    assert!(printed(&service.database, replay).starts_with("2 erasures: 1 erased, 1 were already"));
    assert_eq!(north.get(&ada).await.expect_err("erased").reason, "PROFILE_NOT_FOUND");
    let kept = north.changes(&ada).await;
    assert_eq!(kept.len(), 2);
    let exported: Json = serde_json::from_str(&service.run(["erasures", "export"])).expect("JSON");
    assert_eq!(exported, line, "the erase time is kept");
}

/// How many people are erased from a file.
const FROM_A_FILE: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_holds_no_erased_person_once_it_is_compacted_and_hardly_any_before() {
    let (service, north) = client().await;
    let database = Arc::clone(&service.database);
    if database.is_postgres() {
        let said = failed(&database, ["compact"]);
        assert!(said.contains("compact is for an embedded database"), "{said}");
        return;
    }
    let people = canaries(&service, "north", 0..FROM_A_FILE).await;
    erase(&north, &people).await;
    let kept = north.person(json!({ "city": "here it stays" })).await;
    // Served, with writes and reads meanwhile.
    let writing = tokio::spawn(async move {
        let mut written = 0;
        for number in 0..100 {
            match north.patch(&kept, json!({ "address": format!("{number}") })).await {
                Ok(_) => written += 1,
                Err(refused) => assert_eq!(refused.reason, "TRANSACTION_CONFLICT"),
            }
            north.get(&kept).await.expect("reads go on");
        }
        (written, north.changes(&kept).await.len())
    });
    let said = tokio::task::block_in_place(|| printed(&database, ["compact"]));
    let (written, changes) = writing.await.expect("writes");
    assert_eq!(written, changes - 1);
    let sizes: Vec<u64> = said.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(sizes[1] < sizes[0], "{said}");
    assert_eq!(found(&everything(&database)), BTreeSet::new());
    assert!(everything(&database).windows(13).any(|bytes| bytes == b"here it stays"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_erased_is_overwritten_on_its_page() {
    let (service, north) = client().await;
    let database = Arc::clone(&service.database);
    let Database::Sqlite { directory } = &*database else {
        println!("nothing to do: PostgreSQL has VACUUM");
        return;
    };
    let people = canaries(&service, "north", 0..FROM_A_FILE).await;
    erase(&north, &people).await;
    drop(north);
    stop(service).await; // which empties the log beside the file
    let left = found(&fs::read(file(directory.path())).expect("a file"));
    let people: BTreeSet<_> = left.iter().filter_map(|canary| canary.split_whitespace().last()).collect();
    assert!(people.len() < FROM_A_FILE / 10, "{left:?}");
}

fn file(directory: &Path) -> std::path::PathBuf {
    directory.join("profiles.db")
}

#[tokio::test]
async fn a_file_of_a_program_that_left_what_was_deleted_is_to_be_compacted_once() {
    let database = Arc::new(Database::create());
    if database.is_postgres() {
        println!("nothing to do: PostgreSQL has VACUUM");
        return;
    }
    let warns = async || {
        let mut service = Service::on(Arc::clone(&database), []);
        service.signal("TERM");
        let (_, log) = service.end().await;
        log.iter().any(|line| line.contains("run profile-service compact once"))
    };
    assert!(!warns().await, "a new file is clean");
    database.execute("PRAGMA user_version = 0").await;
    assert!(warns().await && warns().await);
    printed(&database, ["compact"]);
    assert!(!warns().await);
}
