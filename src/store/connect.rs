//! How the database is reached: its URL, its connections, and how their sessions are set.

use std::{fmt, sync::Arc, time::Duration};

use sea_orm::{
    ConnectOptions, Database,
    sqlx::{
        self, Connection as _,
        postgres::PgConnectOptions,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
    },
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{sync::Semaphore, time::timeout};

use super::{ACQUIRE_TIMEOUT, Store, Writers};
use crate::error::Result;

/// How long a write may take on PostgreSQL, from its arrival on: longer than a lock is waited for, and then the database
/// is frozen or has more to do than it can.
const POSTGRES_WRITE_TIMEOUT: Duration = Duration::from_millis(2500);

/// How long a write may take on SQLite, which is a file and never away: its deadline comes before.
const SQLITE_WRITE_TIMEOUT: Duration = Duration::from_mins(1);

/// SQLite connections that read.
const SQLITE_READERS: u32 = 4;

/// A connection that was idle for longer is tried before it is used: after a restart of the database those that are not
/// tried cost a call each, and are soon used up.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(1);

/// How a session with PostgreSQL is set, unless the URL's own `options` say otherwise.
const SESSION: [(&str, &str); 4] = [
    ("default_transaction_isolation", "read committed"),
    ("statement_timeout", "3s"),
    ("lock_timeout", "2s"),
    ("idle_in_transaction_session_timeout", "5s"),
];

/// Where the database is. Shows no password.
#[derive(Clone, Debug)]
pub struct DatabaseUrl {
    url: SecretString,
    place: String,
}

impl DatabaseUrl {
    /// Reads the URL of a SQLite file or of a PostgreSQL database.
    ///
    /// # Errors
    ///
    /// Says what a URL must look like where it is neither.
    pub fn parse(url: &SecretString) -> Result<Self, &'static str> {
        let text = url.expose_secret();
        let place = if text.starts_with("sqlite:") {
            let file = text.parse::<SqliteConnectOptions>().ok().filter(|options| {
                // Without a file each pooled connection would have a database of its own.
                let file = options.get_filename().to_string_lossy().into_owned();
                !(file.is_empty() || file.contains(":memory:") || file.starts_with("file:"))
            });
            file.filter(|_| !text.contains("mode=memory")).map(|_| text.to_owned())
        } else if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            text.parse::<PgConnectOptions>().ok().map(|options| {
                let database = options.get_database().unwrap_or_default();
                format!("postgres://{}:{}/{database}", options.get_host(), options.get_port())
            })
        } else {
            None
        };
        place.map(|place| Self { url: url.clone(), place }).ok_or(
            "the database URL must be sqlite://PATH?mode=rwc (a file) or postgres://USER:PASSWORD@HOST:PORT/DATABASE",
        )
    }

    /// Whether the database is a file of this machine.
    pub(crate) fn is_file(&self) -> bool {
        self.place.starts_with("sqlite:")
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl Store {
    /// Opens the database with at most `connections` to PostgreSQL; SQLite has one writer and readers apart.
    ///
    /// # Errors
    ///
    /// Fails where the database cannot be reached or refuses.
    pub async fn connect(url: &DatabaseUrl, connections: u32) -> Result<Self> {
        let file = url.is_file();
        let url = url.url.expose_secret();
        let (reader, writer, writers, write_timeout, permits) = if file {
            let writer = Database::connect(sqlite(url, 1, "off")).await?;
            let reader = Database::connect(sqlite(url, SQLITE_READERS, "on")).await?;
            (reader, writer, Writers { groups: 1, locked: 0 }, SQLITE_WRITE_TIMEOUT, 1)
        } else {
            let pool = Database::connect(postgres(url, connections)).await?;
            let (writers, permits) = writers(connections as usize);
            (pool.clone(), pool, writers, POSTGRES_WRITE_TIMEOUT, permits)
        };
        let (write_permits, waiting) = (Arc::new(Semaphore::new(permits)), Arc::default());
        Ok(Self { reader, writer, write_permits, writers, write_timeout, waiting })
    }
}

/// How many workers write with so many connections to PostgreSQL, and how many of these they may take: a quarter, or one
/// where there are two or three, is left to reads.
fn writers(connections: usize) -> (Writers, usize) {
    let permits = connections - connections.div_ceil(4).min(connections - 1);
    let groups = if permits > 2 { 2 } else { 1 };
    (Writers { groups, locked: permits.saturating_sub(groups).max(1) }, permits)
}

fn postgres(url: &str, connections: u32) -> ConnectOptions {
    let mut options = quiet(url, connections);
    options.map_sqlx_postgres_opts(|options| {
        let given = options.get_options().unwrap_or_default().to_owned();
        let ours = SESSION.into_iter().filter(|(name, _)| !names(&given, name));
        options.application_name("profile-service").options(ours)
    });
    // The pool itself would wait for ever for a dead connection that is given back, and never have its place again.
    options.map_sqlx_postgres_pool_opts(|pool| {
        pool.after_release(|connection, _| {
            Box::pin(async {
                let answer = timeout(ACQUIRE_TIMEOUT, connection.ping()).await;
                answer.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map(|()| true)
            })
        })
    });
    options
}

/// Whether the options of a session, such as `-c lock_timeout=1s`, set this one.
fn names(options: &str, name: &str) -> bool {
    let words = options.split([' ', '=']);
    words.map(|word| word.trim_start_matches("--").trim_start_matches("-c")).any(|word| word == name)
}

fn sqlite(url: &str, connections: u32, query_only: &'static str) -> ConnectOptions {
    let mut options = quiet(url, connections);
    options.map_sqlx_sqlite_opts(move |options| {
        options
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(ACQUIRE_TIMEOUT)
            .pragma("query_only", query_only)
    });
    options
}

/// No statement in the log: statements are about persons.
fn quiet(url: &str, connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire_if_idle_for(TEST_AFTER_IDLE)
        .sqlx_logging(false)
        .record_stmt_in_spans(false);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_file_or_a_server_and_shows_no_password() {
        for (url, shown) in [
            ("sqlite://profiles.db?mode=rwc", Some("sqlite://profiles.db?mode=rwc")),
            ("sqlite:///var/lib/profiles.db", Some("sqlite:///var/lib/profiles.db")),
            ("postgres://ada:sesame@db:5433/profiles", Some("postgres://db:5433/profiles")),
            ("postgresql://ada:sesame@db/profiles?sslmode=require", Some("postgres://db:5432/profiles")),
            ("sqlite::memory:", None),
            ("sqlite://:memory:", None),
            ("sqlite://%3Amemory%3A", None),
            ("sqlite://x?mode=memory", None),
            ("sqlite://", None),
            ("sqlite://?mode=rwc", None),
            ("mysql://ada:sesame@db/profiles", None),
            ("", None),
        ] {
            let parsed = DatabaseUrl::parse(&url.into()).ok();
            assert_eq!(parsed.as_ref().map(ToString::to_string).as_deref(), shown, "{url}");
            assert!(!format!("{parsed:?}").contains("sesame"));
        }
    }

    #[test]
    fn only_the_whole_name_of_an_option_is_that_option() {
        for options in
            ["-c lock_timeout=1s", "-c geqo=off -c lock_timeout=1s", "--lock_timeout=1s", "-clock_timeout=1s"]
        {
            assert!(names(options, "lock_timeout"), "{options}");
        }
        assert!(!names("-c deadlock_timeout=1s", "lock_timeout"));
    }
}
