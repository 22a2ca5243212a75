//! `profile-service import`: the profiles of a file.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::harness::{Client, Database, Service, client, program, until};

/// A file of lines, and its import into the organization `north`.
struct File {
    _directory: TempDir,
    path: PathBuf,
}

impl File {
    fn of(content: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("people.jsonl");
        fs::write(&path, content).expect("a file");
        Self { _directory: directory, path }
    }

    fn lines(lines: &[Json]) -> Self {
        Self::of(&lines.iter().map(Json::to_string).collect::<Vec<_>>().join("\n"))
    }

    /// Of many people who have nothing but a name and an e-mail.
    fn people(number: i64) -> Self {
        Self::lines(&(0..number).map(person).collect::<Vec<_>>())
    }

    fn command(&self, service: &Service, arguments: &[&str]) -> Command {
        let mut command = program(["import", "--organization", "north"]);
        command.arg(&self.path).args(arguments).env("PROFILE_DATABASE_URL", service.database.url());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn import(&self, service: &Service, arguments: &[&str]) -> (Option<i32>, String) {
        ended(&self.command(service, arguments).output().expect("a program"))
    }

    /// One that has stored lines, and has more to store.
    async fn under_way(&self, service: &Service) -> Child {
        let importing = self.command(service, &[]).spawn().expect("a program");
        until("lines are stored", async || done(&service.database).await > 0).await;
        importing
    }

    fn errors(&self) -> Self {
        Self { _directory: tempfile::tempdir().expect("a directory"), path: beside(&self.path) }
    }

    /// The lines that failed: their numbers, and of each violation its field and its reason.
    fn failed(&self) -> Vec<(u64, Vec<String>)> {
        let text = fs::read_to_string(beside(&self.path)).expect("a file of errors");
        let lines = text.lines().map(|line| serde_json::from_str::<Json>(line).expect("JSON"));
        let told = |violation: &Json| {
            let text = |member: &str| violation[member].as_str().expect("text").to_owned();
            assert!(!text("description").is_empty());
            format!("{} {}", text("field"), text("reason"))
        };
        lines
            .map(|line| {
                let violations = line["violations"].as_array().expect("violations");
                (line["line"].as_u64().expect("a number"), violations.iter().map(told).collect())
            })
            .collect()
    }
}

fn beside(path: &Path) -> PathBuf {
    format!("{}.errors.jsonl", path.display()).into()
}

fn ended(output: &Output) -> (Option<i32>, String) {
    let [out, error] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    (output.status.code(), out + &error)
}

fn person(number: i64) -> Json {
    json!({ "firstName": "Ada", "lastName": format!("Byron{number}"), "email": format!("p{number}@example.com") })
}

async fn done(database: &Database) -> i64 {
    database.number("SELECT COALESCE(MAX(lines), 0) AS number FROM import_progress").await
}

async fn people(database: &Database) -> i64 {
    database.number("SELECT COUNT(*) AS number FROM profile").await
}

async fn history(database: &Database) -> i64 {
    database.number("SELECT COUNT(*) AS number FROM profile_change").await
}

async fn by_email(support: &Client, email: &str) -> Json {
    support.call("SupportService/FindProfile", json!({ "email": email })).await.expect("a profile")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_line_becomes_a_profile_with_its_line_in_the_history_and_a_second_run_makes_nobody_twice() {
    let (service, north) = client().await;
    let identifiers = json!([{ "system": "mrn", "value": "7" }]);
    let file = File::of(&format!(
        "\u{feff}{}\r\n\r\n  \n{}",
        json!({ "id": "x", "etag": "y", "role": "ADMIN", "firstName": "Ada", "lastName": "Byron", "dob": "1985-12-10",
                "email": "Ada@Example.com", "identifiers": identifiers }),
        person(2),
    ));
    assert_eq!(
        file.import(&service, &[]),
        (Some(0), "4 lines: 2 created, 0 changed, 0 unchanged, 0 failed\n".to_owned())
    );
    assert!(!beside(&file.path).exists());
    let ada = by_email(&north, "ada@example.com").await;
    assert_eq!((&ada["dob"], &ada["role"], &ada["identifiers"]), (&json!("1985-12-10"), &json!("USER"), &identifiers));
    let change = &north.changes(&ada).await[0];
    assert_eq!((&change["rpc"], &change["keyId"]), (&json!("import"), &json!("command-line")));
    let reason = change["reason"].as_str().expect("a reason");
    let hash = reason.strip_prefix("sha256:").and_then(|reason| reason.strip_suffix(" line 1")).expect(reason);
    assert_eq!(hash.len(), 16);
    service.database.sequenced().await; // the service that runs beside it puts them into the feed
    let again = "0 lines after 4 that were done before: 0 created, 0 changed, 0 unchanged, 0 failed\n";
    assert_eq!(file.import(&service, &[]), (Some(0), again.to_owned()));
    assert_eq!(people(&service.database).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_line_fails_alone_and_its_file_can_be_mended_and_imported() {
    let (service, north) = client().await;
    north.person(json!({ "email": "taken@example.com" })).await;
    let file = File::lines(&[
        person(1),
        json!("no object"),
        json!({ "firstName": "Ada", "state": "NYC", "dob": "2999-01-01" }),
        json!({ "firstName": "Ada", "lastName": "Byron", "nickname": "A" }),
        json!({ "firstName": "Ada", "lastName": "Byron", "email": "taken@example.com" }),
        json!({ "firstName": "Ada", "lastName": "Byron", "city": "x".repeat(70_000) }),
        person(2),
    ]);
    let (code, said) = file.import(&service, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("7 lines: 2 created, 0 changed, 0 unchanged, 5 failed"), "{said}");
    assert!(said.contains("5 lines failed, which are in "), "{said}");
    let failed: Vec<_> = file.failed().into_iter().map(|(line, told)| format!("{line}: {}", told.join(", "))).collect();
    assert_eq!(
        failed,
        [
            "2:  INVALID_JSON",
            "3: last_name REQUIRED, dob INVALID_DATE_OF_BIRTH, state INVALID_STATE",
            "4:  INVALID_JSON",
            "5: email EMAIL_IN_USE",
            "6:  TOO_LONG",
        ]
    );
    assert_eq!(fs::metadata(beside(&file.path)).expect("a file").permissions().mode() & 0o777, 0o600);

    let errors = file.errors();
    let mended = fs::read_to_string(&errors.path)
        .expect("text")
        .replace("taken@", "free@")
        .replace("\"nickname\":\"A\"", "\"city\":\"A\"");
    fs::write(&errors.path, mended).expect("a file");
    let (_, said) = errors.import(&service, &[]);
    assert!(said.contains("5 lines: 2 created, 0 changed, 0 unchanged, 3 failed"), "{said}");
    assert_eq!(by_email(&north, "free@example.com").await["lastName"], "Byron");
    assert_eq!(people(&service.database).await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_changes_whom_its_key_finds_in_the_order_of_the_file_and_creates_nobody_twice() {
    let (service, north) = client().await;
    let pair = |value: &str| json!({ "system": "mrn", "value": value });
    north
        .person(json!({ "firstName": "Ada", "email": "ada@example.com", "city": "London", "identifiers": [pair("1")] }))
        .await;
    let file = File::lines(&[
        json!({ "email": "ADA@example.com", "state": "NY", "identifiers": [pair("2")] }),
        json!({ "email": "eve@example.com", "firstName": "Eve", "lastName": "Noel" }),
        json!({ "email": "eve@example.com", "city": "Paris" }),
        json!({ "email": "eve@example.com", "city": "Rome" }),
        json!({ "firstName": "Nobody", "lastName": "Knows" }),
        json!({ "email": "new@example.com" }),
    ]);
    let (code, said) = file.import(&service, &["--upsert-by", "email"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("6 lines: 1 created, 3 changed, 0 unchanged, 2 failed"), "{said}");
    let required = |fields: &[&str]| fields.iter().map(|field| format!("{field} REQUIRED")).collect::<Vec<_>>();
    assert_eq!(file.failed(), [(5, required(&["email"])), (6, required(&["first_name", "last_name"]))]);
    let ada = by_email(&north, "ada@example.com").await;
    assert_eq!((&ada["city"], &ada["state"], &ada["etag"]), (&json!("London"), &json!("NY"), &json!("\"2\"")));
    assert_eq!(ada["identifiers"], json!([pair("1"), pair("2")]));
    let eve = by_email(&north, "eve@example.com").await;
    assert_eq!((&eve["city"], &eve["etag"]), (&json!("Rome"), &json!("\"3\"")));

    let file = File::lines(&[
        json!({ "identifiers": [pair("2")], "city": "Oslo" }),
        json!({ "identifiers": [pair("2"), pair("3")] }),
        json!({ "identifiers": [{ "system": "crm", "value": "2" }] }),
    ]);
    let (_, said) = file.import(&service, &["--upsert-by", "identifier:mrn"]);
    assert!(said.contains("3 lines: 0 created, 1 changed, 0 unchanged, 2 failed"), "{said}");
    assert_eq!(
        file.failed(),
        [(2, vec!["identifiers TOO_MANY".to_owned()]), (3, vec!["identifiers REQUIRED".to_owned()])]
    );
    let phone = json!({ "phoneNumber": "+1 555 123 4567", "firstName": "Eva", "lastName": "Noel" });
    let file = File::lines(&[phone.clone(), json!({ "phoneNumber": "+15551234567", "firstName": "Evi" })]);
    let (code, said) = file.import(&service, &["--upsert-by", "phone_number"]);
    assert_eq!((code, said.as_str()), (Some(0), "2 lines: 1 created, 1 changed, 0 unchanged, 0 failed\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_of_a_file_with_a_few_changed_lines_writes_a_row_of_history_for_each_of_them() {
    let (service, _north) = client().await;
    let mut lines: Vec<_> = (0..1000).map(person).collect();
    let (code, said) = File::lines(&lines).import(&service, &["--upsert-by", "email"]);
    assert_eq!(code, Some(0), "{said}");
    for line in lines.iter_mut().step_by(100) {
        line["city"] = json!("Paris");
    }
    let before = history(&service.database).await;
    let (code, said) = File::lines(&lines).import(&service, &["--upsert-by", "email"]);
    assert_eq!((code, said.as_str()), (Some(0), "1000 lines: 0 created, 10 changed, 990 unchanged, 0 failed\n"));
    assert_eq!(history(&service.database).await - before, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_case_has_locked_does_not_change() {
    let (service, north) = client().await;
    let ada = north.person(json!({ "firstName": "Ada", "lastName": "Byron", "email": "ada@example.com" })).await;
    north.report("case", &ada, "ASSIGNED", "2026-01-01T00:00:00Z").await.expect("reported");
    let file = File::lines(&[
        json!({ "email": "ada@example.com", "firstName": "Eva", "lastName": "Noel" }),
        json!({ "email": "ada@example.com", "firstName": "Ada", "city": "Paris" }),
    ]);
    let (_, said) = file.import(&service, &["--upsert-by", "email"]);
    assert!(said.contains("2 lines: 0 created, 1 changed, 0 unchanged, 1 failed"), "{said}");
    let locked = ["first_name", "last_name"].map(|field| format!("{field} DEMOGRAPHICS_LOCKED"));
    assert_eq!(file.failed(), [(1, locked.to_vec())]);
    assert_eq!(north.get(&ada).await.expect("a profile")["city"], "Paris");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_imported_brings_nobody_back_and_another_one_warns() {
    const WARNING: &str = "people of the organization have been erased";
    let (service, north) = client().await;
    let file = File::lines(&[person(1)]);
    let (_, said) = file.import(&service, &[]);
    assert!(!said.contains(WARNING), "{said}");
    let ada = by_email(&north, "p1@example.com").await;
    let privacy = service.client(&service.key("north", &["privacy"])).await;
    let erase = json!({ "id": ada["id"], "reasonCode": "REASON_CODE_RETENTION" });
    privacy.call("SupportService/EraseProfile", erase).await.expect("erased");
    let (code, said) = file.import(&service, &[]);
    assert!(code == Some(0) && said.contains(WARNING), "{said}");
    assert_eq!(people(&service.database).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_says_what_would_fail_and_stores_nothing() {
    let (service, north) = client().await;
    north.person(json!({ "email": "p1@example.com" })).await;
    let file = File::lines(&[person(1), person(2), json!({ "firstName": "" })]);
    let (code, said) = file.import(&service, &["--dry-run"]);
    assert_eq!(code, Some(1), "{said}");
    let sentence = "3 lines judged, each against the database alone, and nothing stored: 1 would be created, 0 are there, \
                    2 would fail";
    assert!(said.contains(sentence), "{said}");
    let failed = format!("{}.dry-run.errors.jsonl", file.path.display());
    assert_eq!(fs::read_to_string(failed).expect("a file of errors").lines().count(), 2);
    assert!(!beside(&file.path).exists());
    assert_eq!(people(&service.database).await, 1);
    assert_eq!((history(&service.database).await, done(&service.database).await), (1, 0));
}

/// More than a few transactions.
const MANY: i64 = 4000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_was_killed_goes_on_and_makes_nobody_twice() {
    let (service, _north) = client().await;
    let file = File::people(MANY);
    let mut killed = file.under_way(&service).await;
    killed.kill().expect("killed");
    killed.wait().expect("its end");
    let before = done(&service.database).await;
    assert!(0 < before && before < MANY, "{before}");
    assert_eq!(people(&service.database).await, before);
    let (code, said) = file.import(&service, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with(&format!("{} lines after {before} that were done before", MANY - before)), "{said}");
    assert_eq!((people(&service.database).await, history(&service.database).await), (MANY, MANY));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_imports_of_a_file_one_ends_with_1_where_the_other_has_moved_on() {
    let (service, _north) = client().await;
    let file = File::people(MANY);
    let importing = file.under_way(&service).await;
    service.database.execute("UPDATE import_progress SET lines = lines + 500").await; // as another one would
    let (code, said) = ended(&importing.wait_with_output().expect("its end"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another import of this file is under way"), "{said}");
    assert_eq!(people(&service.database).await, done(&service.database).await - 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_while_it_is_imported_ends_it_with_1() {
    let (service, _north) = client().await;
    let file = File::people(MANY);
    let importing = file.under_way(&service).await;
    let mut changing = OpenOptions::new().append(true).open(&file.path).expect("a file");
    writeln!(changing, "{}", person(MANY)).expect("a line");
    let (code, said) = ended(&importing.wait_with_output().expect("its end"));
    assert_eq!(code, Some(1), "{said}");
    let lines = done(&service.database).await;
    assert!(said.contains(&format!("has changed while it was read: {lines} of its lines are stored")), "{said}");
}

#[tokio::test]
async fn what_is_no_file_of_json_lines_says_so() {
    let (service, _north) = client().await;
    for (content, words) in [
        ("", "is empty"),
        ("\n \r\n", "is empty"),
        ("first_name,last_name\nAda,Byron\n", "has no JSON lines"),
        ("[{\"firstName\":\"Ada\"}]", "has no JSON lines"),
    ] {
        let (code, said) = File::of(content).import(&service, &[]);
        assert!(code == Some(1) && said.contains(words), "{content}: {said}");
    }
    let file = File::of("{}");
    let directory = File { path: file.path.parent().expect("a directory").to_owned(), ..File::of("") };
    for (file, arguments, code, words) in [
        (&directory, &[][..], 1, "is not a file"),
        (&file.errors(), &[], 1, "No such file"),
        (&file, &["--upsert-by", "name"], 2, "it is `email`, `phone_number` or `identifier:SYSTEM`"),
        (&file, &["--upsert-by", "identifier:A B"], 2, "the system must be"),
        (&file, &["--organization", "south"], 2, "cannot be used multiple times"),
    ] {
        let (ended, said) = file.import(&service, arguments);
        assert!(ended == Some(code) && said.contains(words), "{words}: {said}");
    }
    let elsewhere = program(["import", "--organization", "south"])
        .arg(&file.path)
        .stdin(Stdio::null())
        .env("PROFILE_DATABASE_URL", service.database.url())
        .output()
        .expect("a program");
    assert!(ended(&elsewhere).1.contains("there is no organization \"south\""));
}

/// A line that fails and cannot be kept does not count as done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_errors_that_cannot_be_written_ends_it_with_1() {
    let (service, _north) = client().await;
    let file = File::lines(&[person(1), json!({})]);
    fs::create_dir(beside(&file.path)).expect("a directory in its place");
    let (code, said) = file.import(&service, &[]);
    assert!(code == Some(1) && said.contains("cannot begin a file of errors"), "{said}");

    let file = File::lines(
        &(0..MANY).map(|number| if number < MANY - 1 { person(number) } else { json!({}) }).collect::<Vec<_>>(),
    );
    let mut killed = file.under_way(&service).await;
    killed.kill().expect("killed");
    killed.wait().expect("its end");
    std::os::unix::fs::symlink("/dev/full", beside(&file.path)).expect("a full disk");
    let (code, said) = file.import(&service, &[]);
    let lines = done(&service.database).await;
    assert!(lines < MANY && code == Some(1), "{lines} {said}");
    let words =
        format!("No space left on device (os error 28). {lines} lines are done; the same command goes on behind them");
    assert!(said.contains(&words), "{said}");
    assert_eq!(people(&service.database).await, lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_lines_that_want_one_address_the_first_of_the_file_has_it_however_far_they_are_apart() {
    let (service, support) = client().await;
    let mut lines: Vec<_> = (0..2_000).map(person).collect();
    for line in [400, 501, 999, 1_501] {
        lines[line]["email"] = json!("wanted@example.com"); // in transactions that may be filled at once
    }
    lines[1_999]["email"] = json!("p1000@example.com");
    let file = File::lines(&lines);
    let (code, said) = file.import(&service, &[]);
    assert_eq!(code, Some(1), "{said}");
    let taken = |number| (number, vec!["email EMAIL_IN_USE".to_owned()]);
    assert_eq!(file.failed(), [502, 1_000, 1_502, 2_000].map(taken));
    assert_eq!(by_email(&support, "wanted@example.com").await["lastName"], "Byron400");
    assert_eq!(people(&service.database).await, 1_996);
}
