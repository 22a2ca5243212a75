//! A pooler between the program and PostgreSQL, and sessions that are not as they were set.

use std::{
    fs::{self, Permissions},
    net::{TcpListener, TcpStream},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tempfile::TempDir;
use tonic::Code;

use crate::harness::{Database, Service, program, until};

/// A `PgBouncer` before the server of a database. It is killed when it is dropped.
struct PgBouncer {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl PgBouncer {
    /// Starts in a mode of its pools, unless there is none on this machine, or no PostgreSQL that it could stand before.
    async fn start(database: &Database, mode: &str) -> Option<Self> {
        if !database.is_postgres() || Command::new("pgbouncer").arg("--version").output().is_err() {
            println!("nothing to do: there is no PostgreSQL, or no PgBouncer (apt install pgbouncer)");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("a directory of mine");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let url = database.url();
        let (credentials, server) =
            url.strip_prefix("postgres://").and_then(|rest| rest.split_once('@')).expect("a URL");
        let user = credentials.replacen(':', " password=", 1);
        let (host, server_port) = server.split_once('/').expect("a database").0.split_once(':').expect("a port");
        let file = directory.path().join("pgbouncer.ini");
        let settings = format!(
            "[databases]\n* = host={host} port={server_port} user={user}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n"
        );
        fs::write(&file, settings).expect("a file");
        let mut command = Command::new("pgbouncer");
        if fs::metadata(directory.path()).expect("a directory").uid() == 0 {
            command.args(["-u", "postgres"]); // it does not run as root
        }
        let child = command.arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a PgBouncer");
        let bouncer = Self { child, port, _directory: directory };
        until("PgBouncer listens", async || TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
        Some(bouncer)
    }

    /// The URL of the database through it.
    fn url(&self, database: &Database) -> String {
        let name = database.url().rsplit_once('/').expect("a name").1.to_owned();
        format!("postgres://postgres@127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn behind_a_pooler_in_session_mode_all_is_as_without_it() {
    let database = Arc::new(Database::create());
    let Some(pooler) = PgBouncer::start(&database, "session").await else { return };
    let mut service = Service::by_url(Arc::clone(&database), &pooler.url(&database), []);
    let north = service.organization("north").await;
    let ada = north.person(json!({})).await;
    let held = database.hold().await;
    let began = Instant::now();
    let refused = north.patch(&ada, json!({ "city": "London" })).await.expect_err("its row is locked");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Aborted, "TRANSACTION_CONFLICT"));
    assert!((1500..2600).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    held.release().await;
    north.patch(&ada, json!({ "city": "London" })).await.expect("its row is free");
    assert_eq!(north.get(&ada).await.expect("a profile")["city"], "London");
    service.signal("TERM");
    let (code, log) = service.end().await;
    let warned: Vec<_> = log.iter().filter(|line| line.contains("does not hold")).collect();
    assert_eq!((code, warned), (Some(0), Vec::new()));
}

#[tokio::test]
async fn a_pooler_that_shares_connections_out_by_transactions_is_refused_at_the_start() {
    for mode in ["transaction", "statement"] {
        let database = Database::create();
        let Some(pooler) = PgBouncer::start(&database, mode).await else { return };
        for _ in 0..3 {
            let Output { status, stderr, .. } = program(["serve", "--listen", "127.0.0.1:0"])
                .env("PROFILE_DATABASE_URL", pooler.url(&database))
                .output()
                .expect("a program");
            let said = String::from_utf8_lossy(&stderr);
            assert_eq!(status.code(), Some(1), "{mode}: {said}");
            assert!(said.contains("session mode"), "{mode}: {said}");
        }
    }
}

#[tokio::test]
async fn a_setting_that_does_not_hold_is_a_warning_with_its_name() {
    let database = Arc::new(Database::create());
    if !database.is_postgres() {
        println!("nothing to do: SQLite has no sessions");
        return;
    }
    // A server that tells of one setting what it likes.
    let name = database.url().rsplit_once('/').expect("a name").1.to_owned();
    database
        .execute(&format!(
            "CREATE FUNCTION public.current_setting(text, boolean) RETURNS text LANGUAGE sql AS \
             $$SELECT CASE $1 WHEN 'lock_timeout' THEN '0' ELSE pg_catalog.current_setting($1, $2) END$$; \
             ALTER DATABASE {name} SET search_path = public, pg_catalog"
        ))
        .await;
    let mut service = Service::on(database, []);
    let north = service.organization("north").await;
    north.person(json!({})).await;
    service.signal("TERM");
    let (_, log) = service.end().await;
    let warned: Vec<_> = log.iter().filter(|line| line.contains("does not hold")).collect();
    assert!(matches!(warned[..], [line] if line.contains("\"lock_timeout\"") && line.contains("WARN")), "{warned:?}");
}

#[tokio::test]
async fn the_options_of_the_url_go_before_the_settings_of_the_program() {
    let database = Arc::new(Database::create());
    if !database.is_postgres() {
        println!("nothing to do: SQLite has no options");
        return;
    }
    let url = format!("{}?options=-c%20lock_timeout%3D300ms", database.url());
    let service = Service::by_url(Arc::clone(&database), &url, []);
    let north = service.organization("north").await;
    let ada = north.person(json!({})).await;
    let held = database.hold().await;
    let began = Instant::now();
    let refused = north.patch(&ada, json!({ "city": "London" })).await.expect_err("its row is locked");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Aborted, "TRANSACTION_CONFLICT"));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    held.release().await;
}
