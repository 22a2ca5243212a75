//! The program: its flags, its log, its health, its beginning and its end.

use std::{
    fs,
    net::TcpListener,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::{Value as Json, json};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::harness::{Client, Database, Service, client, program, until};

#[test]
fn what_goes_wrong_at_the_start_is_one_sentence_and_an_exit_code() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    for (arguments, code, words) in [
        (vec!["--listen", "nowhere"], 2, "invalid value 'nowhere' for '--listen"),
        (vec!["--listen", "no.such.name.invalid:0"], 1, "profile-service: cannot listen on no.such.name.invalid:0: "),
        (vec!["--max-in-flight", "0"], 2, "invalid value '0' for '--max-in-flight"),
        (vec!["--no-such-flag"], 2, "unexpected argument '--no-such-flag'"),
        (vec!["--database-url", "mysql://root:sesame@localhost/x"], 2, "profile-service: the database URL must be"),
        (vec!["--database-url", "sqlite::memory:"], 2, "profile-service: the database URL must be"),
        (vec!["--listen", &taken], 1, "profile-service: cannot listen on 127.0.0.1:"),
        (vec!["--database-url", "sqlite:///no/such/directory/profiles.db"], 1, "profile-service: cannot open sqlite:"),
        (
            vec!["--listen", "127.0.0.1:0", "--database-url", "postgres://u:sesame@127.0.0.1:1/profiles"],
            1,
            "profile-service: postgres://127.0.0.1:1/profiles has not answered for 5 s: error communicating with database: \
             Connection refused",
        ),
        (
            vec!["key", "create", "--organization", "x", "--name", "x", "--scope", "everything"],
            2,
            "[possible values: profiles.read, profiles.write, cases.report, support, profiles.list, privacy]",
        ),
    ] {
        let (output, directory) = in_an_empty_directory(program([]).args(&arguments));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(code), &b""[..]), "{arguments:?}: {stderr}");
        assert!(stderr.contains(words), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("sesame"));
        drop(directory);
    }
}

#[test]
fn commands_say_what_is_missing_or_there_already() {
    let service = Service::start();
    let url = service.database.url();
    let run = |arguments: &[&str]| program([]).args(arguments).env("PROFILE_DATABASE_URL", &url).output();
    for (arguments, code, words) in [
        (vec!["organization", "create", "north"], 0, ""),
        (vec!["organization", "create", " north "], 1, "there is an organization \"north\" already"),
        (vec!["organization", "create", " "], 2, "a name is required"),
        (
            vec!["key", "create", "--organization", "south", "--name", "x", "--scope", "support"],
            1,
            "there is no organization \"south\"",
        ),
        (vec!["key", "list", "--organization", "south"], 1, "there is no organization \"south\""),
        (vec!["key", "revoke", "0000000000000000"], 1, "there is no key \"0000000000000000\""),
        (vec!["key", "create", "--organization", "north", "--name", "x"], 2, "--scope <SCOPE>"),
        (vec!["migrate"], 0, ""),
    ] {
        let output = run(&arguments).expect("a program");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(words), "{arguments:?}: {stderr}");
    }
    let list = run(&["organization", "list"]).expect("a program").stdout;
    let list = String::from_utf8(list).expect("text");
    assert_eq!(
        list.lines().map(|line| line.split('\t').nth(1).expect("a name")).collect::<Vec<_>>(),
        ["NAME", "north"]
    );
}

#[test]
fn the_version_has_the_commit() {
    let output = program(["--version"]).output().expect("a program");
    let version = String::from_utf8(output.stdout).expect("text");
    let commit = version.trim().strip_prefix(concat!("profile-service ", env!("CARGO_PKG_VERSION"), " ("));
    assert!(commit.is_some_and(|commit| commit.len() > 1 && commit.ends_with(')')), "{version}");
}

#[tokio::test]
async fn the_first_start_on_the_embedded_database_shows_a_key_that_works_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut first = Service::embedded(directory.path());
    let shown = first.printed();
    let key = shown.split_whitespace().find(|word| word.starts_with("ps_")).expect("a key").to_owned();
    assert!(shown.contains(&format!("{} profiles.v1.ProfileService/CreateProfile", first.address)), "{shown}");
    first.client(&key).await.person(json!({})).await;
    first.signal("TERM");
    assert_eq!(first.end().await.0, Some(0));

    let second = Service::embedded(directory.path());
    assert_eq!(second.printed(), "");
    second.client(&key).await.person(json!({})).await;
}

#[test]
fn it_has_no_huge_pages_whatever_the_system_gives_to_others() {
    let service = Service::start();
    let status = fs::read_to_string(format!("/proc/{}/status", service.process())).expect("its status");
    assert!(status.lines().any(|line| line == "THP_enabled:\t0"), "{status}");
}

#[tokio::test]
async fn it_is_serving_once_the_database_answers() {
    let service = Service::start();
    let mut health = HealthClient::new(service.channel().await);
    for name in ["", "profiles.v1.ProfileService", "profiles.v1.CaseService", "profiles.v1.SupportService", "liveness"]
    {
        let request = HealthCheckRequest { service: name.to_owned() };
        let mut watch = health.watch(request).await.expect(name).into_inner();
        while watch.message().await.expect("a status").expect("an open stream").status() != ServingStatus::Serving {}
    }
}

#[tokio::test]
async fn several_programs_may_start_at_once_on_one_database() {
    let database = Arc::new(Database::create());
    let starts: Vec<_> = (0..4)
        .map(|_| {
            let database = Arc::clone(&database);
            std::thread::spawn(move || Service::on(database, []))
        })
        .collect();
    let services: Vec<_> = starts.into_iter().map(|start| start.join().expect("a service")).collect();
    let north = services[0].organization("north").await;
    let person = north.person(json!({})).await;
    let key = services[1].key("north", &["profiles.read"]);
    for service in &services {
        assert_eq!(service.client(&key).await.get(&person).await, Ok(person.clone()));
    }
}

#[tokio::test]
async fn a_signal_is_heard_while_another_program_brings_the_schema_up_to_date() {
    let database = Database::create();
    if !database.is_postgres() {
        println!("nothing to do: SQLite waits for 2 s at the most");
        return;
    }
    let connection = database.connect().await;
    let other = connection.begin().await.expect("a transaction");
    other.execute_unprepared("SELECT pg_advisory_xact_lock(x'70726f66696c6573'::bigint)").await.expect("the lock");
    let mut starting = program(["serve", "--listen", "127.0.0.1:0"]);
    starting.env("PROFILE_DATABASE_URL", database.url()).stderr(Stdio::piped());
    let starting = starting.spawn().expect("a program");
    let waiting = "SELECT COUNT(*) AS number FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until("it waits", async || database.number(waiting).await > 0).await;
    let kill = format!("kill -TERM {}", starting.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    let output = starting.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("stopped by a signal before it served"));
    other.rollback().await.expect("a rollback");
}

#[tokio::test]
async fn each_call_leaves_one_line_with_nothing_of_the_person() {
    let (mut service, north) = client().await;
    let person =
        north.person(json!({ "email": "ada@example.com", "phoneNumber": "+15550001", "city": "Marylebone" })).await;
    let key = service.key("north", &["profiles.read", "profiles.write"]);
    let metadata = vec![("cv-api-key", key.clone()), ("x-request-id", "trace-1".to_owned())];
    let caller = Client::with_metadata(service.channel().await, metadata);
    caller.get(&person).await.expect("the profile");
    caller.update(json!({ "email": "Nobody@example.com", "city": "Marylebone" })).await.expect_err("nobody");
    caller
        .create(json!({ "firstName": "Ada", "lastName": "Byron", "email": "ada@example.com" }))
        .await
        .expect_err("taken");

    service.signal("TERM");
    let (_, log) = service.end().await;
    let calls: Vec<Json> = log.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let calls: Vec<_> = calls.iter().filter(|line| line["span"]["request_id"] == "trace-1").collect();
    assert_eq!(calls.len(), 3, "{log:?}");
    let lookup = key.split('_').nth(1).expect("a key");
    for call in &calls {
        assert_eq!((&call["message"], &call["span"]["key_id"]), (&json!("call"), &json!(lookup)));
        assert!(call["duration_us"].is_u64());
    }
    let told = |field: &str| calls.iter().map(|call| call["span"][field].clone()).collect::<Vec<_>>();
    assert_eq!(calls.iter().map(|call| &call["code"]).collect::<Vec<_>>(), ["Ok", "NotFound", "AlreadyExists"]);
    assert_eq!(told("reason"), [Json::Null, json!("USER_NOT_FOUND"), json!("EMAIL_IN_USE")]);
    assert_eq!(told("profile_id")[..2], [person["id"].clone(), Json::Null]);

    let secret = key.rsplit_once('_').expect("a key").1;
    for word in ["Ada", "Byron", "example.com", "5550001", "Marylebone", secret] {
        assert!(!log.iter().any(|line| line.contains(word)), "{word} is in the log");
    }
}

#[tokio::test]
async fn the_line_of_a_call_has_the_profile_whoever_finds_it_and_none_that_does_not_exist() {
    let (mut service, north) = client().await;
    let create =
        json!({ "requestId": "r", "profile": { "firstName": "Ada", "lastName": "Byron", "email": "ada@example.com" } });
    let ada = north.call("ProfileService/CreateProfile", create.clone()).await.expect("a new profile");
    north.call("ProfileService/CreateProfile", create).await.expect("a repeat");
    north.update(json!({ "email": "ada@example.com", "city": "London" })).await.expect("updated");
    north
        .create(json!({ "firstName": "Eve", "lastName": "King", "email": "ada@example.com" }))
        .await
        .expect_err("taken");
    service.signal("TERM");
    let (_, log) = service.end().await;
    let lines = log.iter().map(|line| serde_json::from_str::<Json>(line).expect("JSON"));
    let ids: Vec<_> =
        lines.filter(|line| line["message"] == "call").map(|line| line["span"]["profile_id"].clone()).collect();
    assert_eq!(ids, [ada["id"].clone(), ada["id"].clone(), ada["id"].clone(), Json::Null]);
}

#[tokio::test]
async fn a_request_id_is_echoed_and_made_where_there_is_none_that_can_be_logged() {
    let (service, _north) = client().await;
    let channel = service.channel().await;
    for (sent, echoed) in
        [(Some("trace-1"), true), (None, false), (Some("ada@example.com"), false), (Some("a b"), false)]
    {
        let mut request = tonic::Request::new(HealthCheckRequest::default());
        if let Some(id) = sent {
            request.metadata_mut().insert("x-request-id", id.parse().expect("metadata"));
        }
        let answer = HealthClient::new(channel.clone()).check(request).await.expect("health");
        let id = answer.metadata().get("x-request-id").expect("an id").to_str().expect("text").to_owned();
        assert_eq!(sent == Some(id.as_str()), echoed);
        assert!(echoed || uuid::Uuid::parse_str(&id).is_ok());
    }
}

#[tokio::test]
async fn a_signal_drains_and_ends_with_success_even_with_an_open_health_watch() {
    for signal in ["TERM", "INT"] {
        let (mut service, north) = client().await;
        north.person(json!({})).await;
        let mut watch = HealthClient::new(service.channel().await)
            .watch(HealthCheckRequest::default())
            .await
            .expect("a watch")
            .into_inner();
        service.signal(signal);
        let mut last = None;
        while let Ok(Some(answer)) = watch.message().await {
            last = Some(answer.status());
        }
        assert_eq!(last, Some(ServingStatus::NotServing));
        let (code, log) = service.end().await;
        assert_eq!(code, Some(0));
        assert!(log.last().is_some_and(|line| line.contains("drained")), "{log:?}");
    }
}

/// Runs a command where there is no database yet.
fn in_an_empty_directory(command: &mut Command) -> (Output, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    (command.current_dir(directory.path()).output().expect("a program"), directory)
}
