//! The commands: what they make, print and refuse, and what they never show.

use std::{
    fs::{self, File},
    io::Write as _,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    process::{Command, ExitStatus, Output, Stdio},
};

use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Client, Database, Service, client, program};

/// What a pipe holds on Linux, in bytes.
const PIPE: usize = 64 * 1024;

#[test]
fn a_key_that_cannot_be_printed_is_not_stored() {
    let service = Service::start();
    service.run(["organization", "create", "north"]);
    let create = ["key", "create", "--organization", "north", "--name", "n", "--scope", "support"];
    let make =
        |arguments: &[&str]| program([]).args(arguments).stdout(full()).on(&service).output().expect("a program");
    let output = make(&create);
    assert_eq!((output.status.code(), output.stderr.ends_with(b"\n")), (Some(1), true));
    assert!(words(&output).contains("the result cannot be printed: No space left on device"), "{}", words(&output));
    assert_eq!(keys(&service), 0);

    let key = service.run(create);
    assert_eq!(make(&["key", "rotate", &key]).status.code(), Some(1));
    assert_eq!(keys(&service), 1);
    assert_eq!(make(&["key", "list", "--organization", "north"]).status.code(), Some(1));
    assert_eq!(make(&["organization", "create", "south"]).status.code(), Some(1));
    assert!(!service.run(["organization", "list"]).contains("south"));
}

#[test]
fn a_first_start_that_cannot_print_its_key_makes_none() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut first = program(["--listen", "127.0.0.1:0"]);
    let output = first.current_dir(directory.path()).stdout(full()).output().expect("a program");
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains("the result cannot be printed"), "{}", words(&output));
    let second = Service::embedded(directory.path());
    assert!(second.printed().contains("ps_"), "{}", second.printed());
}

#[test]
fn nobody_waits_for_a_key_whose_printing_waits_for_a_pipe() {
    let service = Service::start();
    service.run(["organization", "create", "north"]);
    let (_reader, mut pipe) = std::io::pipe().expect("a pipe");
    pipe.write_all(&vec![0; PIPE]).expect("a pipe that is full now");
    let mut stuck = program(["key", "create", "--organization", "north", "--name", "n", "--scope", "support"]);
    let output = stuck.on(&service).stdout(pipe).stderr(Stdio::piped()).spawn().expect("a program");
    let output = output.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains("the result was not printed within 2 s"), "{}", words(&output));
    assert_eq!(keys(&service), 0);
}

#[tokio::test]
async fn a_name_has_one_key_that_works_until_it_is_rotated() {
    let (service, north) = client().await;
    let person = north.person(json!({})).await;
    let create = [
        "key",
        "create",
        "--organization",
        "north",
        "--name",
        "billing",
        "--scope",
        "profiles.read",
        "--expires",
        "1h",
    ];
    let old = service.run(create);
    let refused = program(create).on(&service).output().expect("a program");
    assert_eq!(refused.status.code(), Some(1));
    assert!(words(&refused).contains(&format!("profile-service key rotate {}", lookup(&old))), "{}", words(&refused));

    let new = service.run(["key", "rotate", lookup(&old)]);
    for key in [&old, &new] {
        service.client(key).await.get(&person).await.expect("both work");
    }
    let list = service.run(["key", "list", "--organization", "north"]);
    let row = |key: &str| {
        let row = list.lines().find(|line| line.starts_with(lookup(key))).expect("its row");
        row.split('\t').map(str::to_owned).collect::<Vec<_>>()
    };
    let (old_row, new_row) = (row(&old), row(&new));
    assert_eq!(old_row[1..3], new_row[1..3]);
    let lifetime = |row: &[String]| {
        let [made, end] = [&row[3], &row[4]].map(|time| time.parse::<chrono::DateTime<chrono::Utc>>().expect("a time"));
        end - made
    };
    assert_eq!((lifetime(&old_row), lifetime(&new_row)), (chrono::TimeDelta::hours(1), chrono::TimeDelta::hours(1)));

    service.run(["key", "revoke", &old]);
    assert_eq!(program(["key", "rotate", &old]).on(&service).output().expect("a program").status.code(), Some(1));
    service.run(["key", "revoke", lookup(&new)]);
    service.run(create);
}

#[test]
fn two_keys_of_one_name_that_are_made_at_once_are_one() {
    let service = Service::start();
    service.run(["organization", "create", "north"]);
    let create = ["key", "create", "--organization", "north", "--name", "n", "--scope", "support"];
    let running: Vec<_> = (0..4)
        .map(|_| program(create).on(&service).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a program"))
        .collect();
    let made = running.into_iter().filter_map(|mut child| child.wait().ok()).filter(ExitStatus::success).count();
    assert_eq!((made, keys(&service)), (1, 1));
}

#[test]
fn no_command_shows_a_secret_that_it_was_given() {
    let service = Service::start();
    service.run(["organization", "create", "north"]);
    let key = service.run(["key", "create", "--organization", "north", "--name", "n", "--scope", "support"]);
    let secret = key.rsplit_once('_').expect("a key").1;
    let unknown = format!("ps_0000000000000000_{secret}");
    let url = "postgres://ada:sesame@127.0.0.1:1/profiles";
    for (arguments, code) in [
        (&["key", "revoke", &unknown][..], 1),
        (&["key", "revoke", secret], 2),
        (&["key", "revoke", url], 2),
        (&["key", "rotate", &unknown], 1),
        (&["key", &key], 2),
        (&["key", "revoke", &key, &key], 2),
        (&["migrate", url], 2),
        (&[url], 2),
        (&["--listen", url], 2),
        (&["key", "list", "--organization", "north", "--database-connections", url], 2),
        (&["organization", "list", "--databse-url=postgres://ada:sesame@127.0.0.1:1/profiles"], 2),
        (&["organization", "list", "--database-url", "postgres://ada:ses@me@127.0.0.1:1/profiles"], 2),
        (&["organization", "list", "--database-url", "postgres://ada@127.0.0.1:1/profiles?pasword=sesame"], 1),
    ] {
        let output = program([]).args(arguments).env("RUST_LOG", "info,sqlx=trace").on(&service).output();
        let output = output.expect("a program");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", words(&output));
        for word in ["sesame", "ses@", secret] {
            assert!(!words(&output).contains(word), "{arguments:?}: {}", words(&output));
        }
    }
    service.run(["key", "revoke", &key]);
}

#[test]
fn a_password_that_is_not_percent_encoded_is_refused_with_the_remedy() {
    for password in ["ses/same", "ses@same", "ses?same", "ses#same"] {
        let url = format!("postgres://ada:{password}@127.0.0.1:1/profiles");
        let output = program(["migrate", "--database-url", &url]).output().expect("a program");
        let said = words(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("must be percent-encoded") && !said.contains("same") && !said.contains("ada"), "{said}");
    }
}

#[test]
fn durations_have_ranges() {
    for arguments in [
        &["--max-connection-age", "550000000000y"][..],
        &["--max-connection-age", "0s"],
        &["--drain-timeout", "2d"],
        &["key", "create", "--organization", "x", "--name", "x", "--scope", "support", "--expires", "0s"],
        &["key", "create", "--organization", "x", "--name", "x", "--scope", "support", "--expires", "0d"],
        &["key", "create", "--organization", "x", "--name", "x", "--scope", "support", "--expires", "101y"],
    ] {
        let output = program([]).args(arguments).output().expect("a program");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", words(&output));
        assert!(words(&output).contains("it must be "), "{}", words(&output));
    }
}

#[test]
fn only_serve_makes_a_database() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = fs::canonicalize(directory.path()).expect("a path").join("profiles.db");
    for arguments in [
        &["migrate"][..],
        &["organization", "create", "north"],
        &["organization", "list"],
        &["key", "list", "--organization", "north"],
        &["key", "create", "--organization", "north", "--name", "n", "--scope", "support"],
        &["key", "rotate", "0000000000000000"],
        &["key", "revoke", "0000000000000000"],
    ] {
        let mut command = program([]);
        let output = command.args(arguments).current_dir(directory.path()).output().expect("a program");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(words(&output).contains(&format!("there is no database {}", file.display())), "{}", words(&output));
        assert!(!file.exists());
    }
    let _service = Service::embedded(directory.path());
    assert!(file.exists());
}

#[tokio::test]
async fn the_files_of_a_database_are_their_owners_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let service = Service::embedded(directory.path());
    let shown = service.printed();
    let key = shown.split_whitespace().find(|word| word.starts_with("ps_")).expect("a key");
    service.client(key).await.person(json!({})).await;
    for name in ["profiles.db", "profiles.db-wal", "profiles.db-shm"] {
        let mode = fs::metadata(directory.path().join(name)).expect(name).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_start_says_why_postgresql_does_not_let_it_in() {
    // A server that answers every connection with this error, as PostgreSQL words it.
    let refusal = |code: &str, message: &str| {
        let fields = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0Fauth.c\0L329\0Rauth_failed\0\0");
        let mut bytes = vec![b'E'];
        bytes.extend(u32::try_from(fields.len() + 4).expect("a length").to_be_bytes());
        bytes.extend(fields.into_bytes());
        bytes
    };
    for (code, message, expected) in [
        ("28P01", "password authentication failed for user \"ada\"", "cannot open postgres://"),
        ("57P03", "the database system is starting up", "has not answered for 5 s: the database system is starting up"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let answer = refusal(code, message);
        let server = tokio::spawn(async move {
            loop {
                let (mut peer, _) = listener.accept().await.expect("a connection");
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut start = [0; 8];
                    let _ = peer.read_exact(&mut start).await;
                    let _ = peer.write_all(&answer).await;
                    let _ = peer.shutdown().await;
                });
            }
        });
        let url = format!("postgres://ada:sesame@{address}/profiles?sslmode=disable");
        let run = move || program(["migrate", "--database-url", &url]).output().expect("a program");
        let output = tokio::task::spawn_blocking(run).await.expect("an end");
        let said = words(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected) && said.ends_with(&format!(": {message}\n")), "{said}");
        server.abort();
    }
}

#[tokio::test]
async fn a_name_is_listened_on_at_all_its_addresses_and_the_log_names_the_database() {
    let mut service = Service::on(Database::create().into(), ["--listen", "localhost:0"]);
    let url = service.database.url();
    let port = service.address.rsplit_once(':').expect("a port").1.to_owned();
    for address in tokio::net::lookup_host(format!("localhost:{port}")).await.expect("addresses") {
        if TcpListener::bind((address.ip(), 0)).is_ok() {
            tokio::net::TcpStream::connect(address).await.expect("a connection");
        }
    }
    service.signal("TERM");
    let (_, log) = service.end().await;
    let listening = log.iter().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    let listening = listening.filter(|line| line["message"] == "listening").collect::<Vec<_>>();
    assert!(!listening.is_empty(), "{log:?}");
    for line in listening {
        let place = line["database"].as_str().expect("a database").to_owned();
        assert!(url.starts_with(&place) || place.starts_with("postgres://"), "{place}");
        assert!(line["address"].as_str().is_some_and(|address| address.ends_with(&port)), "{line}");
    }
}

#[test]
fn help_breaks_at_words() {
    let mut help = program(["--help"]);
    let output = help.env("COLUMNS", "80").output().expect("a program");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[tokio::test]
async fn scopes_may_be_separated_by_commas() {
    let (service, north) = client().await;
    let person = north.person(json!({})).await;
    let create = ["key", "create", "--organization", "north", "--name", "n", "--scope", "profiles.read,profiles.write"];
    let both: Client = service.client(&service.run(create)).await;
    both.get(&person).await.expect("the profile");
    both.patch(&person, json!({ "city": "London" })).await.expect("patched");
}

/// A device that takes nothing.
fn full() -> File {
    File::options().write(true).open("/dev/full").expect("a device")
}

/// How many keys the organization has.
fn keys(service: &Service) -> usize {
    service.run(["key", "list", "--organization", "north"]).lines().count() - 1
}

fn lookup(key: &str) -> &str {
    key.split('_').nth(1).expect("a key")
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A command that works on the database of a service.
trait On {
    fn on(&mut self, service: &Service) -> &mut Command;
}

impl On for Command {
    fn on(&mut self, service: &Service) -> &mut Command {
        self.env("PROFILE_DATABASE_URL", service.database.url())
    }
}
