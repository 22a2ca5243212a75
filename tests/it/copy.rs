//! `profile-service copy`: everything from one database into another, of either kind.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use chrono::{DateTime, NaiveDate, Utc};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend, QueryResult, Statement};
use serde_json::{Value as Json, json};
use uuid::Uuid;

use crate::harness::{Database, Messages, Service, client, program, until};

/// What a pipe holds on Linux, in bytes.
const PIPE: usize = 64 * 1024;

/// Two databases for each way that there is: from SQLite and to SQLite at least.
fn ways() -> Vec<(Arc<Database>, Database)> {
    let ways = [
        (Database::create(), Database::embedded()),
        (Database::embedded(), Database::create()),
        (Database::create(), Database::create()),
    ];
    let (new, both) = (ways.iter().any(|(from, _)| from.is_postgres()), ways.into_iter());
    both.take(if new { 3 } else { 1 }).map(|(from, to)| (Arc::new(from), to)).collect()
}

fn copy(from: &str, to: &str) -> Command {
    let mut command = program(["copy", "--from", from, "--to", to]);
    command.stdin(Stdio::null());
    command
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Copies, and answers what it says where it fails.
fn copied(from: &Database, to: &Database) -> Result<String, String> {
    let output = copy(&from.url(), &to.url()).output().expect("a program");
    match output.status.code() {
        Some(0) => Ok(String::from_utf8(output.stdout).expect("text")),
        Some(1) => Err(words(&output)),
        code => panic!("{code:?}: {}", words(&output)),
    }
}

/// Every table and every column of the real schema: what a migration adds is looked at without a line here.
#[tokio::test]
async fn every_table_has_the_same_rows_in_the_copy() {
    for (from, to) in ways() {
        people_with_a_past(&from).await;
        fill_empty_tables(&from).await;
        let printed = copied(&from, &to).expect("a copy");
        let (source, target) = (contents(&from).await, contents(&to).await);
        assert!(source.values().all(|rows| !rows.is_empty()));
        assert_eq!(source, target);
        let counts: Vec<_> = source.iter().map(|(table, rows)| format!("{table}\t{}\n", rows.len())).collect();
        assert_eq!(printed, format!("TABLE\tROWS\n{}", counts.concat()));
        // What the database numbers itself goes on behind what was copied.
        let last = to.number("SELECT MAX(id) AS number FROM feed_pending").await;
        to.execute("INSERT INTO feed_pending (changes) VALUES ('')").await;
        assert!(to.number("SELECT MAX(id) AS number FROM feed_pending").await > last);
        if let Some(file) = to.url().strip_prefix("sqlite://").and_then(|rest| rest.strip_suffix("?mode=rwc")) {
            assert_eq!(fs::metadata(file).expect("a file").permissions().mode() & 0o777, 0o600);
        }
    }
}

#[tokio::test]
async fn whoever_used_the_source_goes_on_with_the_copy() {
    for (from, to) in ways() {
        let Past { key, ada, request, page_token, resume_token } = people_with_a_past(&from).await;
        copied(&from, &to).expect("a copy");
        let service = Service::on(Arc::new(to), []);
        let north = service.client(&key).await;
        assert_eq!(north.get(&ada).await, Ok(ada.clone()));
        assert_eq!(north.changes(&ada).await.len(), 3);
        let locked = north.patch(&ada, json!({ "firstName": "Eve" })).await.expect_err("locked");
        assert_eq!(locked.reason, "DEMOGRAPHICS_LOCKED");
        // A request id is still remembered, with its payload.
        assert_eq!(north.call("ProfileService/CreateProfile", request.clone()).await, Ok(ada.clone()));
        let mut other = request;
        other["profile"]["city"] = json!("Rome");
        let reused = north.call("ProfileService/CreateProfile", other).await.expect_err("another payload");
        assert_eq!(reused.reason, "REQUEST_ID_REUSED");
        let number = json!({ "identifier": { "system": "mrn", "value": "A-1007" } });
        assert_eq!(north.call("ProfileQueryService/LookUpProfile", number).await, Ok(ada.clone()));
        // A page token is still one of this service's.
        let next = json!({ "pageSize": 1, "pageToken": page_token });
        let next = north.call("ProfileQueryService/ListProfiles", next).await.expect("the next page");
        assert_eq!(next["profiles"][0]["lastName"], "Turing");
        // A watcher misses nothing of before and nothing of now.
        let london = north.patch(&ada, json!({ "city": "London" })).await.expect("patched");
        let request = json!({ "resumeToken": resume_token });
        let mut messages = north.stream("ProfileQueryService/WatchProfiles", request).await.expect("a stream");
        for revision in ["2", "3", "4"] {
            let change = change(&mut messages).await;
            assert_eq!((&change["profileId"], &change["revision"]), (&ada["id"], &json!(revision)));
            assert_eq!(change["profile"], london);
        }
    }
}

#[tokio::test]
async fn a_source_that_has_gained_something_meanwhile_is_said_to_have() {
    let (service, north) = client().await;
    let ada = north.person(json!({})).await;
    north.report("c-1", &ada, "OPEN", "2026-01-01T00:00:00Z").await.expect("reported");
    let unused = service.client(&service.key("north", &["profiles.read"])).await;
    for (gain, table) in [
        (0, None), // a key's last use is nothing that is lost
        (1, Some("profile_change")),
        (2, Some("profile_case")),
        (3, Some("api_key")),
        (4, Some("organization")),
        (5, Some("erasure")),
    ] {
        let to = Database::create();
        // Its result has to wait until the pipe is read, and the source is looked at once more behind that.
        let (mut reader, mut pipe) = std::io::pipe().expect("a pipe");
        pipe.write_all(&vec![0; PIPE]).expect("a pipe that is full now");
        let mut command = copy(&service.database.url(), &to.url());
        let copying = command.stdout(pipe).stderr(Stdio::piped()).spawn().expect("a program");
        drop(command); // and with it our end of the pipe
        until("the copy is there", async || has_organizations(&to).await).await;
        match gain {
            0 => drop(unused.get(&ada).await.expect("a use")),
            1 => drop(north.patch(&ada, json!({ "city": "Paris" })).await.expect("patched")),
            2 => drop(north.report("c-1", &ada, "OPEN", "2026-01-02T00:00:00Z").await.expect("reported")),
            3 => drop(service.key("north", &["profiles.read"])),
            4 => drop(service.organization("south").await),
            _ => {
                let erase = json!({ "id": ada["id"], "reasonCode": "REASON_CODE_REQUEST_OF_PERSON" });
                north.call("SupportService/EraseProfile", erase).await.expect("erased");
            }
        }
        if gain == 0 {
            let used = "SELECT COUNT(*) AS number FROM api_key WHERE last_used_at IS NULL";
            until("the use is stored", async || service.database.number(used).await == 0).await;
        }
        reader.read_to_end(&mut Vec::new()).expect("all that it prints");
        let output = copying.wait_with_output().expect("an end");
        let said = words(&output);
        assert_eq!(output.status.code(), Some(table.map_or(0, |_| 1)), "{gain}: {said}");
        if let Some(table) = table {
            assert!(said.contains("what was written there since") && said.contains(table), "{gain}: {said}");
            assert!(said.contains("stop the service, empty"), "{gain}: {said}");
        }
    }
}

#[tokio::test]
async fn a_target_that_is_not_empty_is_left_as_it_is() {
    let from = Arc::new(Database::create());
    people_with_a_past(&from).await;
    let to = Database::create();
    copied(&from, &to).expect("a copy");
    to.execute("DELETE FROM seaql_migrations WHERE version NOT LIKE 'm20261122%'").await;
    let refused = copied(&from, &to).expect_err("it is not empty");
    assert!(refused.contains("is not empty, see its table api_key"), "{refused}");
    assert_eq!(to.number("SELECT COUNT(*) AS number FROM seaql_migrations").await, 1);

    let foreign = Database::create();
    foreign.execute("CREATE TABLE theirs (id INTEGER)").await;
    let refused = copied(&from, &foreign).expect_err("it is somebody else's");
    assert!(refused.contains("is not empty, see its table theirs"), "{refused}");
}

#[tokio::test]
async fn a_source_of_another_schema_is_refused_and_left_as_it_is() {
    for (statement, said) in [
        (
            "DELETE FROM seaql_migrations WHERE version LIKE '%feed'",
            "has an older schema: run `profile-service migrate`",
        ),
        ("INSERT INTO seaql_migrations VALUES ('m20990101_000001_later', 0)", "has the schema of a newer program"),
        ("DROP TABLE seaql_migrations", "is no database of this program"),
    ] {
        let from = Arc::new(Database::create());
        drop(Service::on(Arc::clone(&from), []));
        from.execute(statement).await;
        let (before, to) = (tables(&from.connect().await).await, Database::create());
        let refused = copied(&from, &to).expect_err("another schema");
        assert!(refused.contains(said), "{refused}");
        assert_eq!(tables(&from.connect().await).await, before);
    }
}

#[tokio::test]
async fn what_cannot_be_read_or_made_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| format!("sqlite://{}/{name}", directory.path().display());
    fs::write(directory.path().join("text.db"), "no database, but text".repeat(100)).expect("a file");
    fs::create_dir(directory.path().join("folder.db")).expect("a folder");
    let from = Database::embedded();
    drop(Service::on(Arc::new(from), []));
    let there = Arc::new(Database::embedded());
    drop(Service::on(Arc::clone(&there), []));
    let there = there.url();
    let gone = "postgres://ada:sesame@127.0.0.1:1/profiles";
    for (from, to, code, said) in [
        (path("none.db"), path("to.db"), 1, "there is no database"),
        (path("folder.db"), path("to.db"), 1, "cannot open sqlite://"),
        (path("text.db"), path("to.db"), 1, "file is not a database"),
        (there.clone(), path("folder.db"), 1, "cannot open sqlite://"),
        (there.clone(), path("no/to.db"), 1, "No such file or directory"),
        (there.clone(), gone.to_owned(), 1, "has not answered for 5 s"),
        (gone.to_owned(), path("to.db"), 1, "has not answered for 5 s"),
        (there.clone(), there.clone(), 2, "--from and --to are the same database"),
        (there.clone(), there.replace("/profiles.db", "/./profiles.db"), 2, "--from and --to are the same database"),
        (there.clone(), "sesame".to_owned(), 2, "--to: the database URL must be"),
        ("sesame".to_owned(), there.clone(), 2, "--from: the database URL must be"),
    ] {
        let output = copy(&from, &to).output().expect("a program");
        assert_eq!(output.status.code(), Some(code), "{from} {to}: {}", words(&output));
        assert!(words(&output).contains(said) && !words(&output).contains("sesame"), "{}", words(&output));
        assert!(!directory.path().join("to.db").exists(), "{from} {to}");
    }
}

#[tokio::test]
async fn a_copy_is_read_back_and_what_is_not_as_it_was_is_told() {
    let (from, to) = (Arc::new(Database::create()), Arc::new(Database::embedded()));
    people_with_a_past(&from).await;
    drop(Service::on(Arc::clone(&to), []));
    to.execute(
        "CREATE TRIGGER worse AFTER INSERT ON profile BEGIN UPDATE profile SET address = 'x' WHERE id = new.id; END",
    )
    .await;
    let refused = copied(&from, &to).expect_err("an address is another");
    assert!(refused.contains("is no true copy, do not use it: counts or sums differ in profile\n"), "{refused}");
}

#[tokio::test]
async fn a_disk_that_is_full_leaves_the_target_empty() {
    let from = Arc::new(Database::create());
    people_with_a_past(&from).await;
    many_more(&from, 2000).await;
    let to = Database::embedded();
    let program = program([]);
    // Room for the schema; a write past the limit is an error, as on a full disk, and not a signal.
    let limited = format!(
        "trap '' XFSZ; ulimit -f 800; exec {} copy --from '{}' --to '{}'",
        program.get_program().display(),
        from.url(),
        to.url()
    );
    let output = Command::new("sh").args(["-c", &limited]).output().expect("a program");
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(words(&output).contains("nothing was copied, sqlite://"), "{}", words(&output));
    copied(&from, &to).expect("there is room now");
}

/// What somebody knows who used a service.
struct Past {
    key: String,
    ada: Json,
    /// The request that made Ada.
    request: Json,
    /// Of a list behind its first profile.
    page_token: Json,
    /// From before the last two changes of Ada.
    resume_token: Json,
}

/// Makes what a service leaves: people with history, a case, keys, request ids and a feed.
async fn people_with_a_past(database: &Arc<Database>) -> Past {
    let mut service = Service::on(Arc::clone(database), []);
    service.organization("south").await.person(json!({ "email": "eve@example.com" })).await;
    service.run(["organization", "create", "north"]);
    let key = service.key("north", &["profiles.read", "profiles.write", "profiles.list", "support", "cases.report"]);
    let north = service.client(&key).await;
    let request = json!({
        "requestId": "5f0c1f0e",
        "profile": {
            "firstName": "Ada", "lastName": "Byron", "email": "ada@example.com", "phoneNumber": "+442079460000",
            "dob": "1995-12-10", "gender": "FEMALE", "address": "12 \u{5c71} 'Street' \"x\"\\ \u{1f600}",
            "identifiers": [{ "system": "mrn", "value": "A-1007" }],
        },
    });
    let mut ada = north.call("ProfileService/CreateProfile", request.clone()).await.expect("created");
    north.person(json!({ "firstName": "Alan", "lastName": "Turing" })).await;
    database.sequenced().await;
    let watch = json!({ "skipExisting": true });
    let mut messages = north.stream("ProfileQueryService/WatchProfiles", watch).await.expect("a stream");
    let resume_token = messages.next().await.expect("a message").expect("a heartbeat")["resumeToken"].clone();
    drop(messages);
    north.report("c-1", &ada, "ASSIGNED", "2026-01-01T00:00:00Z").await.expect("reported");
    ada = north.patch(&ada, json!({ "city": "Paris" })).await.expect("patched");
    let list = json!({ "pageSize": 1 });
    let list = north.call("ProfileQueryService/ListProfiles", list).await.expect("a list");
    assert_eq!(list["profiles"][0], ada);
    service.signal("TERM");
    service.end().await;
    Past { key, ada, request, page_token: list["nextPageToken"].clone(), resume_token }
}

/// The next message that is no heartbeat.
async fn change(messages: &mut Messages) -> Json {
    loop {
        let message = messages.next().await.expect("a message").expect("a stream that goes on");
        if message["kind"] != "KIND_HEARTBEAT" {
            return message;
        }
    }
}

/// People like those who are there.
pub async fn many_more(database: &Database, number: u32) {
    let id = if database.is_postgres() { "gen_random_uuid()" } else { "randomblob(16)" };
    database
        .execute(&format!(
            "INSERT INTO profile (id, organization_id, revision, locked, role, first_name, last_name, created_at, \
             updated_at, sort_name) SELECT {id}, organization_id, 1, locked, role, first_name, last_name, created_at, \
             updated_at, sort_name FROM profile, (WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s \
             WHERE n < {number}) SELECT n FROM s) numbers WHERE first_name = 'Ada'"
        ))
        .await;
}

async fn has_organizations(database: &Database) -> bool {
    let connection = database.connect().await;
    let there = connection.execute_unprepared("SELECT 1 FROM organization").await.is_ok();
    connection.close().await.expect("a connection that closes");
    there && database.number("SELECT COUNT(*) AS number FROM organization").await > 0
}

/// Columns by their tables, each with its type, but for the table of migrations.
async fn tables(connection: &DatabaseConnection) -> BTreeMap<String, Vec<(String, String)>> {
    let columns = if connection.get_database_backend() == DbBackend::Postgres {
        "SELECT table_name::text AS t, column_name::text AS c, data_type::text AS d FROM information_schema.columns \
         WHERE table_schema = 'public' ORDER BY table_name, column_name"
    } else {
        "SELECT t.name AS t, c.name AS c, lower(c.type) AS d FROM sqlite_master t JOIN pragma_table_info(t.name) c \
         WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite%' ORDER BY t.name, c.name"
    };
    let rows = connection.query_all_raw(Statement::from_string(connection.get_database_backend(), columns));
    let mut tables = BTreeMap::<_, Vec<_>>::new();
    for row in rows.await.expect("columns") {
        let [table, column, kind] = ["t", "c", "d"].map(|name| row.try_get::<String>("", name).expect("text"));
        if table != "seaql_migrations" {
            tables.entry(table).or_default().push((column, kind));
        }
    }
    tables
}

/// A row for each table that has none, of whatever its columns take.
async fn fill_empty_tables(database: &Database) {
    let connection = database.connect().await;
    for (table, columns) in tables(&connection).await {
        let values = columns.iter().map(|(_, kind)| match kind.as_str() {
            kind if kind.starts_with("uuid") && database.is_postgres() => "'01a1fe3c-5c7d-7a31-9d8e-3f2a1b0c4d5e'",
            kind if kind.starts_with("uuid") => "x'01a1fe3c5c7d7a319d8e3f2a1b0c4d5e'",
            kind if kind.starts_with("timestamp") => "'2026-11-22T10:00:00.123456+00:00'",
            kind if kind.starts_with("date") => "'1995-10-01'",
            "boolean" => "true",
            "bytea" => "'\\x00ff'",
            "blob" => "x'00ff'",
            kind if kind.contains("int") => "7",
            _ => "'text'",
        });
        let (names, values) = (columns.iter().map(|(name, _)| name.as_str()), values);
        let fill = format!(
            "INSERT INTO {table} ({}) SELECT {} WHERE NOT EXISTS (SELECT 1 FROM {table})",
            names.collect::<Vec<_>>().join(", "),
            values.collect::<Vec<_>>().join(", ")
        );
        connection.execute_unprepared(&fill).await.unwrap_or_else(|error| panic!("{fill}: {error}"));
    }
}

/// The rows of each table, as text that is the same on both databases.
async fn contents(database: &Database) -> BTreeMap<String, Vec<String>> {
    let connection = database.connect().await;
    let mut contents = BTreeMap::new();
    for (table, columns) in tables(&connection).await {
        let query = Statement::from_string(connection.get_database_backend(), format!("SELECT * FROM {table}"));
        let rows = connection.query_all_raw(query).await.expect("rows");
        let text = |row: &QueryResult| {
            let cells = columns.iter().map(|(column, kind)| format!("{column}={}", cell(row, column, kind)));
            cells.collect::<Vec<_>>().join(" ")
        };
        let mut rows: Vec<_> = rows.iter().map(text).collect();
        rows.sort();
        contents.insert(table, rows);
    }
    contents
}

fn cell(row: &QueryResult, column: &str, kind: &str) -> String {
    match kind {
        kind if kind.starts_with("uuid") => format!("{:?}", row.try_get::<Option<Uuid>>("", column).expect(column)),
        kind if kind.starts_with("timestamp") => {
            format!("{:?}", row.try_get::<Option<DateTime<Utc>>>("", column).expect(column))
        }
        kind if kind.starts_with("date") => {
            format!("{:?}", row.try_get::<Option<NaiveDate>>("", column).expect(column))
        }
        "boolean" => format!("{:?}", row.try_get::<Option<bool>>("", column).expect(column)),
        "bytea" | "blob" => format!("{:?}", row.try_get::<Option<Vec<u8>>>("", column).expect(column)),
        kind if kind.contains("int") => {
            let small = |_| row.try_get::<Option<i32>>("", column).map(|number| number.map(i64::from));
            format!("{:?}", row.try_get::<Option<i64>>("", column).or_else(small).expect(column))
        }
        _ => format!("{:?}", row.try_get::<Option<String>>("", column).expect(column)),
    }
}
