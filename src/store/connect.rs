//! How the database is reached: its URL, its connections, and how their sessions are set.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{self, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sea_orm::{
    ConnectOptions, Database, DbErr, RuntimeErr,
    sqlx::{
        self, ConnectOptions as _, Connection as _, PgPool,
        postgres::{PgConnectOptions, PgConnection},
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
    },
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    ACQUIRE_TIMEOUT, DatabaseFile, Store, Writers,
    failure::failure,
    session::{Session, is_writable},
    unanswered::Unanswered,
};
use crate::error::{Error, Result};

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

/// How long a connection to PostgreSQL lives at the most: what a server gives to new sessions alone reaches all in that time.
const LIFETIME: Duration = Duration::from_mins(30);

/// Where the database is. Shows no password.
#[derive(Clone, Debug)]
pub struct DatabaseUrl {
    url: SecretString,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// A file, by its whole path, and whether it is made where there is none.
    File { path: PathBuf, create: bool },
    /// A server and its database.
    Server(String),
}

/// Why a text is no URL of a database. No part of the text is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error(
        "the database URL must be sqlite://PATH?mode=rwc (a file) or postgres://USER:PASSWORD@HOST:PORT/DATABASE; \
         special characters of a password must be percent-encoded"
    )]
    Form,
    #[error(
        "the database URL is ambiguous: / @ ? and # in its user or password must be percent-encoded, as %2F %40 %3F \
         and %23"
    )]
    Unescaped,
}

impl DatabaseUrl {
    /// Reads the URL of a SQLite file or of a PostgreSQL database.
    ///
    /// # Errors
    ///
    /// Says what a URL must look like where it is neither, or where a password is not percent-encoded.
    pub fn parse(url: &SecretString) -> Result<Self, UrlError> {
        let text = url.expose_secret();
        let place = if text.starts_with("sqlite:") {
            file(text)
        } else if let Some(rest) = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
            if is_ambiguous(rest) {
                return Err(UrlError::Unescaped);
            }
            text.parse::<PgConnectOptions>().ok().map(|options| {
                let database = options.get_database().unwrap_or_default();
                Place::Server(format!("postgres://{}:{}/{database}", options.get_host(), options.get_port()))
            })
        } else {
            None
        };
        place.map(|place| Self { url: url.clone(), place }).ok_or(UrlError::Form)
    }

    /// The file of this machine that the database is, if it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match &self.place {
            Place::File { path, create: _ } => Some(path),
            Place::Server(_) => None,
        }
    }

    /// The same database, whose file is made where there is none.
    pub(crate) fn creating(mut self) -> Self {
        if let Place::File { path: _, create } = &mut self.place {
            *create = true;
        }
        self
    }

    /// Whether both are one database, as far as the URLs tell.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self.file(), other.file()) {
            (Some(one), Some(other)) => {
                one == other
                    || fs::canonicalize(one).is_ok_and(|one| fs::canonicalize(other).is_ok_and(|other| one == other))
            }
            _ => self.url.expose_secret() == other.url.expose_secret(),
        }
    }

    /// Asks a server whether it lets us in: a pool hides why not.
    ///
    /// # Errors
    ///
    /// Fails where the server cannot be reached or refuses, and says why.
    pub(crate) async fn probe(&self) -> Result<()> {
        if self.file().is_some() {
            return Ok(());
        }
        let options = for_poolers(self.url.expose_secret().parse().map_err(refused)?);
        let connecting = async { PgConnection::connect_with(&options).await?.close().await };
        match timeout(ACQUIRE_TIMEOUT, connecting).await {
            Ok(answer) => answer.map_err(refused),
            Err(_) => Err(Error::DatabaseUnavailable(format!("no answer within {} s", ACQUIRE_TIMEOUT.as_secs()))),
        }
    }
}

/// Why a server did not let us in, in its own words, without the place in its sources.
fn refused(error: sqlx::Error) -> Error {
    let cause = error.as_database_error().map_or_else(|| error.to_string(), |refusal| refusal.message().to_owned());
    match Error::from(DbErr::Conn(RuntimeErr::SqlxError(error.into()))) {
        Error::DatabaseUnavailable(_) => Error::DatabaseUnavailable(cause),
        _ => Error::Internal(cause),
    }
}

/// The file of an SQLite URL, if it is one. Without a file each pooled connection would have a database of its own.
fn file(url: &str) -> Option<Place> {
    let options = url.parse::<SqliteConnectOptions>().ok()?;
    let name = options.get_filename().to_str()?;
    if name.is_empty() || name.contains(":memory:") || name.starts_with("file:") {
        return None;
    }
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    if parameters.contains("mode=memory") {
        return None;
    }
    let create = parameters.split('&').any(|parameter| parameter == "mode=rwc");
    Some(Place::File { path: path::absolute(name).ok()?, create })
}

/// Whether it cannot be told where the password of a URL ends, from what follows its scheme (RFC 3986 section 3).
fn is_ambiguous(rest: &str) -> bool {
    let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    authority.matches('@').count() > 1 || behind.contains(['@', '#'])
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File { path, create: _ } => write!(f, "sqlite://{}", path.display()),
            Place::Server(place) => f.write_str(place),
        }
    }
}

impl Store {
    /// Opens the database with at most `connections` to PostgreSQL; SQLite has one writer and readers apart.
    ///
    /// # Errors
    ///
    /// Fails where the database cannot be reached or refuses.
    pub async fn connect(url: &DatabaseUrl, connections: u32) -> Result<Self> {
        let DatabaseUrl { url, place } = url;
        let url = url.expose_secret();
        let (reader, writer, writers, reads, write_timeout, unanswered) = if let Place::File { path, create } = place {
            if *create {
                make(path).map_err(|error| Error::DatabaseUnavailable(error.to_string()))?;
            }
            let writer = Database::connect(sqlite(url, 1, "off")).await?;
            let reader = Database::connect(sqlite(url, SQLITE_READERS, "on")).await?;
            let writers = Writers { groups: 1, locked: 0, connections: 1 };
            (reader, writer, writers, SQLITE_READERS as usize, SQLITE_WRITE_TIMEOUT, None)
        } else {
            let options = for_poolers(url.parse().map_err(refused)?);
            let session = Arc::new(Session::new(options.get_options().unwrap_or_default()));
            let pool = Database::connect(postgres(url, connections, &session)).await?;
            session.check_pooler(pool.get_postgres_connection_pool(), &options).await?;
            check_encoding(pool.get_postgres_connection_pool()).await?;
            let writers = Writers::on_postgres(connections as usize);
            let reads = (connections as usize - writers.connections).max(1);
            let unanswered = Unanswered::new(pool.get_postgres_connection_pool().clone(), options);
            (pool.clone(), pool, writers, reads, POSTGRES_WRITE_TIMEOUT, Some(unanswered))
        };
        let file = match place {
            Place::File { path, create: _ } => Some(Arc::new(DatabaseFile::at(path)?)),
            Place::Server(_) => None,
        };
        let permits = |number| Arc::new(Semaphore::new(number));
        Ok(Self {
            reader,
            writer,
            write_permits: permits(writers.connections),
            read_permits: permits(reads),
            long_permits: permits((reads / 2).max(1)),
            writers,
            write_timeout,
            unanswered,
            waiting: Arc::default(),
            file,
        })
    }
}

impl Writers {
    /// With so many connections to PostgreSQL: a quarter of them, or one where there are two or three, is left to reads, and
    /// of more than three of the others one to the feed's sequencer, so that locked rows do not hold it up.
    fn on_postgres(all: usize) -> Self {
        let connections = all - all.div_ceil(4).min(all - 1);
        let groups = if connections > 2 { 2 } else { 1 };
        Self { groups, locked: connections.saturating_sub(groups + 1).max(1), connections }
    }
}

/// Makes the file of a database, unless it is there, so that nobody but its owner reads it. SQLite gives the mode to the
/// files that it makes beside it.
fn make(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

fn postgres(url: &str, connections: u32, session: &Arc<Session>) -> ConnectOptions {
    let mut options = quiet(url, connections);
    options.map_sqlx_postgres_opts(for_poolers);
    // A connection to a server that has been demoted is closed. The pool itself would wait for ever for a dead connection
    // that is given back, and never make another one.
    let session = Arc::clone(session);
    options.map_sqlx_postgres_pool_opts(move |pool| {
        let session = Arc::clone(&session);
        pool.after_connect(move |connection, _| {
            let session = Arc::clone(&session);
            Box::pin(async move { session.set(connection).await })
        })
        .after_release(|connection, _| {
            Box::pin(async {
                let answer = timeout(ACQUIRE_TIMEOUT, is_writable(connection)).await;
                answer.unwrap_or(Err(sqlx::Error::PoolTimedOut))
            })
        })
    });
    let lifetime = LIFETIME.mul_f64(rand::random_range(0.8..=1.0)); // replicas renew theirs at different times
    options.max_lifetime(lifetime);
    options
}

/// How a connection begins: with nothing that `PgBouncer` refuses. The digits of floating-point numbers, of which the tables
/// have none, are PostgreSQL's default anyway.
fn for_poolers(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name("profile-service").extra_float_digits(None).disable_statement_logging()
}

/// Refuses a database that cannot hold every character of a name.
async fn check_encoding(pool: &PgPool) -> Result<()> {
    let encoding = sqlx::query_scalar("SHOW server_encoding").fetch_one(pool).await;
    let encoding: String = encoding.map_err(|error| Error::from(failure(error)))?;
    if encoding == "UTF8" {
        return Ok(());
    }
    Err(Error::Internal(format!(
        "its encoding is {encoding}, which cannot hold every name: make a database with \
         createdb --encoding=UTF8 --template=template0 NAME"
    )))
}

fn sqlite(url: &str, connections: u32, query_only: &'static str) -> ConnectOptions {
    let mut options = quiet(url, connections);
    options.map_sqlx_sqlite_opts(move |options| {
        options
            .create_if_missing(false) // it was made before: one that was deleted meanwhile is not to be another one
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(ACQUIRE_TIMEOUT)
            .pragma("query_only", query_only)
            .pragma("secure_delete", "on") // what is deleted or overwritten is overwritten on its page
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
            ("sqlite:///var/lib/profiles.db", Some("sqlite:///var/lib/profiles.db")),
            ("sqlite:///var/lib/profiles.db?mode=rwc", Some("sqlite:///var/lib/profiles.db")),
            ("postgres://ada:sesame@db:5433/profiles", Some("postgres://db:5433/profiles")),
            ("postgresql://ada:sesame@db/profiles?sslmode=require", Some("postgres://db:5432/profiles")),
            ("postgres://ada:ses%40me%2F%3F%23@db/profiles", Some("postgres://db:5432/profiles")),
            ("postgres:///profiles?host=/run/postgresql&password=sesame", Some("postgres://localhost:5432/profiles")),
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
        let here = DatabaseUrl::parse(&"sqlite://profiles.db?mode=rwc".into()).expect("a URL").to_string();
        assert!(here.starts_with("sqlite:///") && here.ends_with("/profiles.db"), "{here}");
    }

    #[test]
    fn a_password_that_is_not_percent_encoded_is_refused() {
        for password in ["ses/me", "ses@me", "ses?me", "ses#me", "/", "@", "?", "#", "a/b@c?d#e", "?host=x&y", "1/x"] {
            for rest in ["db:5433/profiles", "db", "[::1]:5432/profiles?sslmode=require"] {
                let url = format!("postgres://ada:{password}@{rest}");
                assert_eq!(DatabaseUrl::parse(&url.as_str().into()).err(), Some(UrlError::Unescaped), "{url}");
            }
        }
    }

    #[test]
    fn reads_always_have_a_connection_and_a_locked_row_never_takes_the_last_one_of_writes() {
        let shares: Vec<_> = [1, 2, 3, 4, 16]
            .map(Writers::on_postgres)
            .map(|Writers { groups, locked, connections }| (groups, locked, connections))
            .into();
        assert_eq!(shares, [(1, 1, 1), (1, 1, 1), (1, 1, 2), (2, 1, 3), (2, 9, 12)]);
    }
}
