//! A migration that does not get to its end: nothing of it is left, and the next try makes it.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use sea_orm::{ConnectionTrait as _, DatabaseTransaction, TransactionTrait as _};
use tokio::time::timeout;

use crate::harness::{Before, Database, Service, program, until};

/// A trigger that keeps whoever fires it, in the middle of a transaction.
struct Trap<'a> {
    database: &'a Database,
    table: &'static str,
    /// What PostgreSQL's trigger waits for.
    held: Option<DatabaseTransaction>,
}

impl<'a> Trap<'a> {
    /// Keeps the first one who does this, such as `INSERT`, to a row for which this holds.
    async fn set(database: &'a Database, event: &str, table: &'static str, holds: &str) -> Self {
        let row = if event == "INSERT" { "NEW" } else { "OLD" };
        let trigger = format!("CREATE TRIGGER trap BEFORE {event} ON {table} FOR EACH ROW WHEN ({row}.{holds})");
        if !database.is_postgres() {
            // Its rows go to the log beside the file, with whatever the transaction has changed so far.
            for statement in [
                "CREATE TABLE trapped (bytes BLOB)",
                "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
                &format!("{trigger} BEGIN INSERT INTO trapped SELECT randomblob(1000) FROM endless; END"),
            ] {
                database.execute(statement).await;
            }
            return Self { database, table, held: None };
        }
        for statement in [
            "CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END'",
            &format!("{trigger} EXECUTE FUNCTION trap()"),
        ] {
            database.execute(statement).await;
        }
        let held = database.connect().await.begin().await.expect("a transaction");
        held.execute_unprepared("SELECT pg_advisory_xact_lock(1)").await.expect("a lock");
        Self { database, table, held: Some(held) }
    }

    /// Waits until somebody is in it.
    async fn sprung(&self) {
        until("a migration is in the trap", async || match self.database {
            Database::Sqlite { directory } => {
                let log = fs::metadata(directory.path().join("profiles.db-wal"));
                log.is_ok_and(|log| log.len() > 1 << 20)
            }
            Database::Postgres { .. } => {
                let waiting = "SELECT COUNT(*) AS number FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
                               WHERE d.datname = current_database() AND locktype = 'advisory' AND NOT granted";
                self.database.number(waiting).await == 1
            }
        })
        .await;
    }

    /// Takes it away, once the database has noticed that whoever was in it is gone.
    async fn remove(self) {
        let rest: &[&str] = match self.held {
            Some(held) => {
                held.rollback().await.expect("a rollback");
                &["DROP FUNCTION trap"]
            }
            None => &["DROP VIEW endless", "DROP TABLE trapped"],
        };
        let on = if self.database.is_postgres() { format!("ON {}", self.table) } else { String::new() };
        self.database.execute(&format!("DROP TRIGGER trap {on}")).await;
        for statement in rest {
            self.database.execute(statement).await;
        }
    }
}

/// The names of the migrations since the first.
fn later_migrations() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/migration");
    let names = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut names: Vec<_> =
        names.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect();
    names.retain(|name| name.starts_with("m20") && !name.ends_with("_initial"));
    names.sort_unstable();
    names
}

/// Begins to bring the schema up to date.
fn migrate(database: &Database) -> Child {
    let mut command = program(["migrate"]);
    command.env("PROFILE_DATABASE_URL", database.url()).stdin(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("a program")
}

#[tokio::test]
async fn a_migration_that_is_killed_is_undone_and_made_by_the_next_start() {
    let before = Before::restore().await;
    let database = &before.database;
    let (rows, schema) = (before.rows().await, before.schema().await);
    let records =
        later_migrations().into_iter().map(|name| ("INSERT", "seaql_migrations", format!("version = '{name}'")));
    // Also in the middle of its statements, where the names of all people are folded.
    let folding = ("UPDATE", "profile", "last_name = 'Freed'".to_owned());
    for (event, table, holds) in records.chain([folding]) {
        let trap = Trap::set(database, event, table, &holds).await;
        let mut migrating = migrate(database);
        trap.sprung().await;
        migrating.kill().expect("a kill");
        migrating.wait().expect("an end");
        trap.remove().await;
        assert_eq!(before.schema().await, schema, "{holds}");
        assert_eq!(before.rows().await, rows, "{holds}");
    }
    let service = Service::on(Arc::clone(database), []);
    assert_eq!(before.rows().await, rows);
    before.is_answered_again_by(&service).await;
}

/// Such as a dump, which has the table until its end.
#[tokio::test]
async fn a_migration_that_waits_for_a_table_in_use_keeps_nobody_else_from_it() {
    let before = Before::restore().await;
    let database = &before.database;
    if !database.is_postgres() {
        return;
    }
    let dumping = database.connect().await.begin().await.expect("a transaction");
    dumping.execute_unprepared("LOCK TABLE profile IN ACCESS SHARE MODE").await.expect("a lock");
    let mut migrating = migrate(database);
    for _ in 0..2 {
        until("the migration waits for the table", async || {
            let waiting = "SELECT COUNT(*) AS number FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
                           WHERE d.datname = current_database() AND relation = 'profile'::regclass AND NOT granted";
            database.number(waiting).await == 1
        })
        .await;
        let reading = database.number("SELECT COUNT(*) AS number FROM profile");
        let people = timeout(Duration::from_secs(4), reading).await.expect("the table in time");
        assert_eq!(people, i64::try_from(before.list("people").len()).expect("a number"));
    }
    assert_eq!(migrating.try_wait().expect("a child"), None);
    dumping.rollback().await.expect("a rollback");
    assert!(migrating.wait().expect("an end").success());
    before.is_answered_again_by(&Service::on(Arc::clone(database), [])).await;
}

#[tokio::test]
async fn migrations_that_are_killed_while_they_are_written_to_the_file_are_made_by_the_next_start() {
    let before = Before::restore().await;
    if before.database.is_postgres() {
        return;
    }
    let (rows, mut killed) = (before.rows().await, 0);
    // Past the limit, in blocks of 512 bytes, the system kills the program as it writes: it has no time to tidy up.
    for blocks in (72..).step_by(24) {
        let limited = format!("ulimit -f {blocks}; exec {} migrate", program([]).get_program().display());
        let mut command = Command::new("sh");
        command.args(["-c", &limited]).env("PROFILE_DATABASE_URL", before.database.url());
        let output = command.output().expect("a program");
        if output.status.success() {
            break;
        }
        assert!(output.status.signal().is_some(), "{}", String::from_utf8_lossy(&output.stderr));
        killed += 1;
    }
    assert!(killed > 5, "{killed}");
    let service = Service::on(Arc::clone(&before.database), []);
    assert_eq!(before.rows().await, rows);
    before.is_answered_again_by(&service).await;
}
