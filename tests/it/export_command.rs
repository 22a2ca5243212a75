//! `profile-service export` and `profile-service backup`.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use serde_json::{Value as Json, json};

use crate::{
    copy::many_more,
    harness::{Database, Service, client, program},
};

fn on(service: &Service, arguments: &[&str]) -> Command {
    let mut command = program([]);
    command.args(arguments).env("PROFILE_DATABASE_URL", service.database.url()).stdin(Stdio::null());
    command
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).expect("a file").permissions().mode() & 0o777
}

#[tokio::test]
async fn an_export_has_a_line_for_each_profile_of_the_organization_as_it_is_read() {
    let (service, north) = client().await;
    service.organization("south").await.person(json!({ "firstName": "Eve" })).await;
    let ada =
        json!({ "dob": "1995-12-10", "city": "\u{1f600}", "identifiers": [{ "system": "mrn", "value": "A-1007" }] });
    let ada = north.person(ada).await;
    north.report("c-1", &ada, "ASSIGNED", "2026-01-01T00:00:00Z").await.expect("reported");
    let (ada, alan) = (north.get(&ada).await.expect("Ada"), north.person(json!({ "firstName": "Alan" })).await);
    let lines =
        |text: &str| text.lines().map(|line| serde_json::from_str::<Json>(line).expect("JSON")).collect::<Vec<_>>();
    let export = ["export", "--organization", "north"];
    assert_eq!(lines(&service.run(export)), [ada.clone(), alan.clone()]);

    many_more(&service.database, 1200).await; // more than two pages
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("north.jsonl");
    let path = file.to_str().expect("a path");
    assert_eq!(service.run(["export", "--organization", "north", "--output", path]), "");
    let written = fs::read_to_string(&file).expect("a file");
    assert_eq!((mode(&file), written.lines().count()), (0o600, 1202));
    let mut ids: Vec<_> = lines(&written).iter().map(|line| line["id"].to_string()).collect();
    assert!(lines(&written).contains(&ada) && lines(&written).contains(&alan));
    assert!(ids.is_sorted());
    ids.dedup();
    assert_eq!(ids.len(), 1202);

    let refused = on(&service, &["export", "--organization", "north", "--output", path]).output().expect("a program");
    assert_eq!(refused.status.code(), Some(1));
    assert!(words(&refused).contains(&format!("{path} is there already")), "{}", words(&refused));
    assert_eq!(fs::read_to_string(&file).expect("a file"), written);
}

#[tokio::test]
async fn an_export_that_is_not_complete_says_what_is_missing() {
    let (service, north) = client().await;
    let ada = north.person(json!({})).await;
    many_more(&service.database, 1200).await;
    let full = File::options().write(true).open("/dev/full").expect("a device");
    let output = on(&service, &["export", "--organization", "north"]).stdout(full).output().expect("a program");
    assert_eq!(output.status.code(), Some(1));
    let said = "the export is not complete: 0 of 1201 profiles are in it, those with ids above \
                00000000-0000-0000-0000-000000000000 are missing: No space left on device";
    assert!(words(&output).contains(said), "{}", words(&output));

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("north.jsonl");
    let program = program([]);
    let program = program.get_program().display();
    // Room for a page of 500 and not for all.
    let limited =
        format!("trap '' XFSZ; ulimit -f 300; exec {program} export --organization north --output {}", file.display());
    let mut command = Command::new("sh");
    let output = command.args(["-c", &limited]).env("PROFILE_DATABASE_URL", service.database.url()).output();
    let output = output.expect("a program");
    assert_eq!(output.status.code(), Some(1));
    let written = fs::read_to_string(&file).expect("a file");
    let last: Json = serde_json::from_str(written.lines().nth(499).expect("a page")).expect("JSON");
    let said = format!(
        "500 of 1201 profiles are in it, those with ids above {} are missing",
        last["id"].as_str().expect("an id")
    );
    assert!(words(&output).contains(&said), "{}", words(&output));
    assert!(!words(&output).contains(ada["firstName"].as_str().expect("a name")));

    for (arguments, said) in [
        (&["--organization", "south"][..], "there is no organization \"south\""),
        (&["--organization", "north", "--output", "/nowhere/x"], "cannot make /nowhere/x: No such file or directory"),
        (&["--organization", "north", "--output", "/tmp"], "/tmp is there already"),
    ] {
        let output = on(&service, &[&["export"], arguments].concat()).output().expect("a program");
        assert_eq!(output.status.code(), Some(1), "{}", words(&output));
        assert!(words(&output).contains(said), "{}", words(&output));
    }
}

#[tokio::test]
async fn an_export_that_nobody_reads_any_more_ends_well() {
    let (service, north) = client().await;
    north.person(json!({})).await;
    many_more(&service.database, 3000).await; // more than a pipe holds
    let mut command = on(&service, &["export", "--organization", "north"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("a program");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    lines.next().expect("a line").expect("text");
    drop(lines);
    assert_eq!(child.wait().expect("its end").code(), Some(0));
}

#[tokio::test]
async fn a_backup_is_a_database_with_all_that_was_there() {
    let (from, directory) = (Arc::new(Database::embedded()), tempfile::tempdir().expect("a directory"));
    let service = Service::on(Arc::clone(&from), []);
    let north = service.organization("north").await;
    let ada = north.person(json!({})).await;
    let key = service.key("north", &["profiles.read"]);
    let file = directory.path().join("profiles.db");
    let backup = ["backup", file.to_str().expect("a path")];
    assert_eq!(service.run(backup), ""); // while it is served
    assert_eq!(mode(&file), 0o600);
    let refused = on(&service, &backup).output().expect("a program");
    assert_eq!(refused.status.code(), Some(1));
    assert!(words(&refused).contains("is there already"), "{}", words(&refused));

    let restored = Service::on(Arc::new(Database::Sqlite { directory }), []);
    assert_eq!(restored.client(&key).await.get(&ada).await, Ok(ada));
}

#[tokio::test]
async fn a_backup_does_not_bring_the_schema_up_to_date() {
    let (from, directory) = (Arc::new(Database::embedded()), tempfile::tempdir().expect("a directory"));
    drop(Service::on(Arc::clone(&from), []));
    from.execute("DELETE FROM seaql_migrations").await;
    let file = directory.path().join("profiles.db");
    let backup = program(["backup", file.to_str().expect("a path"), "--database-url", &from.url()]).output();
    assert_eq!(backup.expect("a program").status.code(), Some(0));
    for database in [from, Arc::new(Database::Sqlite { directory })] {
        assert_eq!(database.number("SELECT COUNT(*) AS number FROM seaql_migrations").await, 0);
    }
}

#[tokio::test]
async fn half_a_backup_is_none() {
    let (from, directory) = (Arc::new(Database::embedded()), tempfile::tempdir().expect("a directory"));
    drop(Service::on(Arc::clone(&from), []));
    let file = directory.path().join("profiles.db");
    let program = program([]);
    let limited =
        format!("trap '' XFSZ; ulimit -f 100; exec {} backup {}", program.get_program().display(), file.display());
    let mut command = Command::new("sh");
    let output = command.args(["-c", &limited]).env("PROFILE_DATABASE_URL", from.url()).output().expect("a program");
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains("was not backed up to"), "{}", words(&output));
    assert!(!file.exists());
}

#[test]
fn a_backup_of_postgresql_is_left_to_postgresql() {
    let url = "postgres://ada:sesame@db:5433/profiles";
    let output = program(["backup", "/tmp/profiles.dump", "--database-url", url]).output().expect("a program");
    assert_eq!(output.status.code(), Some(1));
    let command = "pg_dump --format=custom --file=/tmp/profiles.dump --dbname=postgres://db:5433/profiles";
    assert!(words(&output).contains(command) && !words(&output).contains("sesame"), "{}", words(&output));
}
