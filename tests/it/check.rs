//! `check`: what is wrong before it is served.

use std::{fs, process::Output};

use serde_json::Value as Json;

use crate::harness::{
    Service, program,
    tls::{Authority, SERVER, TlsFiles},
};

/// Runs `check`, and answers its exit code and the status and detail of each thing.
fn check(url: &str, arguments: &[String]) -> (Option<i32>, Vec<(String, String, String)>) {
    let mut command = program(["check", "--output", "json", "--listen", "127.0.0.1:0"]);
    let command = command.args(arguments).env("PROFILE_DATABASE_URL", url);
    let Output { status, stdout, stderr } = command.output().expect("a program");
    let found: Json =
        serde_json::from_slice(&stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&stderr)));
    let text = |found: &Json, field: &str| found[field].as_str().expect("text").to_owned();
    let found = found.as_array().expect("a list").iter();
    (status.code(), found.map(|found| (text(found, "check"), text(found, "status"), text(found, "detail"))).collect())
}

/// The status and the detail of one thing.
fn of<'a>(found: &'a [(String, String, String)], check: &str) -> (&'a str, &'a str) {
    let (_, status, detail) =
        found.iter().find(|found| found.0 == check).unwrap_or_else(|| panic!("{check}: {found:?}"));
    (status, detail)
}

#[tokio::test]
async fn what_can_be_served_is_ok_and_what_ends_soon_is_warned_of() {
    let service = Service::start();
    let url = service.database.url();
    service.run(["organization", "create", "north"]);
    let (code, found) = check(&url, &[]);
    assert_eq!(code, Some(0), "{found:?}");
    let checks: Vec<_> = found.iter().map(|(check, status, _)| (check.as_str(), status.as_str())).collect();
    let all = ["configuration", "open files", "TLS", "database", "schema", "keys"];
    assert_eq!(checks, all.map(|check| (check, "ok")));

    let authority = Authority::new("servers");
    let files = TlsFiles::of(&authority.issue_for(SERVER, 20));
    let key = |name: &str, expires: &str| {
        let key = service.run([
            "key",
            "create",
            "--organization",
            "north",
            "--name",
            name,
            "--scope",
            "support",
            "--expires",
            expires,
        ]);
        key.split('_').nth(1).expect("a lookup id").to_owned()
    };
    let (soon, later, revoked) = (key("soon", "20d"), key("later", "40d"), key("revoked", "20d"));
    service.run(["key", "revoke", &revoked]);
    let (code, found) = check(&url, &files.flags());
    assert_eq!(code, Some(0), "{found:?}");
    assert_eq!(of(&found, "TLS").0, "warning");
    let (status, detail) = of(&found, "keys");
    assert_eq!(status, "warning");
    assert!(detail.starts_with(&format!("1 end within 30 days: {soon} (soon) on 20")), "{detail}");
    assert!(!detail.contains(&later));
}

#[tokio::test]
async fn what_would_keep_it_from_serving_is_failed_and_all_of_it_is_told() {
    let files = TlsFiles::of(&Authority::new("servers").issue(SERVER));
    files.write("key", "no key");
    let arguments = [&files.flags()[..], &["--insecure-listen".to_owned()]].concat();
    let (code, found) = check("postgres://u:sesame@127.0.0.1:1/profiles", &arguments);
    assert_eq!(code, Some(1));
    for (check, words) in [
        ("configuration", "choose one"),
        ("TLS", "key has no private key in PEM"),
        ("database", "postgres://127.0.0.1:1/profiles has not answered for 5 s"),
    ] {
        let (status, detail) = of(&found, check);
        assert_eq!(status, "failed");
        assert!(detail.contains(words) && !detail.contains("sesame"), "{detail}");
    }
    let (_, found) = check("mysql://root:sesame@localhost/x", &[]);
    assert_eq!(of(&found, "database").0, "failed");
    let everywhere = ["--listen", "0.0.0.0:0"].map(str::to_owned);
    let mut command = program(["check"]);
    let said = command.args(everywhere).current_dir(tempfile::tempdir().expect("a directory").path()).output();
    let said = String::from_utf8(said.expect("a program").stdout).expect("text");
    assert!(said.contains("failed\tconfiguration\t0.0.0.0:0 is no address of this machine alone"), "{said}");
}

#[tokio::test]
async fn nothing_is_made_or_changed() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("profiles.db");
    let (code, found) = check(&format!("sqlite://{}?mode=rwc", file.display()), &[]);
    assert_eq!((code, of(&found, "database").0), (Some(0), "warning"));
    assert!(!fs::exists(&file).expect("an answer"));

    let mut service = Service::start();
    let older = "SELECT COUNT(*) AS number FROM seaql_migrations";
    service.signal("TERM");
    service.end().await;
    service.database.execute("DELETE FROM seaql_migrations WHERE version LIKE '%rate_disabled'").await;
    let before = service.database.number(older).await;
    let (code, found) = check(&service.database.url(), &[]);
    assert_eq!(
        (code, of(&found, "schema")),
        (Some(0), ("warning", "is older: serve brings it up to date at its start"))
    );
    assert!(found.iter().all(|(check, ..)| check != "keys"), "{found:?}");
    assert_eq!(service.database.number(older).await, before);
}
