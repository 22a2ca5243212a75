//! A session with PostgreSQL: how it is set, and that it is one. A pooler on the way may take both from us.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use sea_orm::sqlx::{
    self, AssertSqlSafe, Connection as _, PgPool, Row as _,
    postgres::{PgConnectOptions, PgConnection},
};
use tokio::time::timeout;

use super::{READ_ONLY, failure::failure};
use crate::error::{Error, Result};

/// What is set, unless the URL's own `options` say otherwise.
const SETTINGS: [(&str, &str); 4] = [
    ("default_transaction_isolation", "read committed"),
    ("statement_timeout", "3s"),
    ("lock_timeout", "2s"),
    ("idle_in_transaction_session_timeout", "5s"),
];

/// How long a second session is waited for: a server or a pooler may have no more than one for us.
const SECOND_SESSION: Duration = Duration::from_secs(1);

/// How often two sessions are asked in turn who serves them: a pooler may hand out its connections in turn as well.
const ROUNDS: usize = 3;

/// Which process of the server serves a session, and since when: ids are used again, and replicas have the same ones.
const SERVED_BY: &str = "SELECT pg_backend_pid(), \
     (SELECT backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid())";

/// How the sessions with a server are set.
#[derive(Debug)]
pub struct Session {
    settings: Vec<Setting>,
}

#[derive(Debug)]
struct Setting {
    name: &'static str,
    value: String,
    /// Whether the last new session has kept it: a warning is written once.
    holds: AtomicBool,
}

impl Session {
    /// As we need them, but for what the URL's `options` say, such as `-c lock_timeout=1s`.
    pub fn new(options: &str) -> Self {
        let setting = |(name, ours): (&'static str, &str)| {
            let value = given(options, name).unwrap_or_else(|| ours.to_owned());
            Setting { name, value, holds: AtomicBool::new(true) }
        };
        Self { settings: SETTINGS.map(setting).into() }
    }

    /// Sets a new session by statements, since poolers refuse or drop the options of a connection, and reads the settings
    /// back. What does not hold is a warning.
    ///
    /// # Errors
    ///
    /// Fails where the connection breaks, and where its server takes no writes.
    pub async fn set(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let statements: Vec<_> = self.settings.iter().map(Setting::statement).collect();
        match sqlx::raw_sql(AssertSqlSafe(statements.join("; "))).execute(&mut *connection).await {
            Err(sqlx::Error::Database(_)) => {
                // A server that does not know one of them has refused all.
                for statement in statements {
                    match sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *connection).await {
                        Ok(_) | Err(sqlx::Error::Database(_)) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        let values: Vec<_> =
            self.settings.iter().map(|setting| format!("current_setting('{}', true)", setting.name)).collect();
        let read = format!("SELECT {}, current_setting('transaction_read_only', true)", values.join(", "));
        let row = sqlx::raw_sql(AssertSqlSafe(read)).fetch_one(connection).await?;
        for (index, setting) in self.settings.iter().enumerate() {
            setting.compare(row.try_get::<Option<String>, _>(index)?.as_deref());
        }
        match row.try_get::<Option<String>, _>(self.settings.len())?.as_deref() {
            Some("off") => Ok(()),
            _ => Err(sqlx::Error::Protocol(READ_ONLY.to_owned())),
        }
    }

    /// Finds out whether a pooler shares the server's connections out by transactions.
    ///
    /// # Errors
    ///
    /// Fails where two sessions that live at the same time are served by one process of the server, or one session by two.
    pub async fn check_pooler(&self, pool: &PgPool, options: &PgConnectOptions) -> Result<()> {
        let mut first = pool.acquire().await.map_err(|error| Error::DatabaseUnavailable(error.to_string()))?;
        let second = async {
            let mut second = PgConnection::connect_with(options).await?;
            self.set(&mut second).await?;
            Ok::<_, sqlx::Error>(second)
        };
        let mut second = timeout(SECOND_SESSION, second).await.ok().and_then(Result::ok);
        let (mut serve_first, mut serve_second) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            serve_first.extend(served_by(&mut first).await?);
            if let Some(second) = &mut second {
                serve_second.extend(served_by(second).await?);
            }
        }
        if let Some(second) = second {
            let _ = second.close().await;
        }
        serve_first.dedup();
        serve_second.dedup();
        if serve_first.len() <= 1
            && serve_second.len() <= 1
            && serve_first.iter().all(|one| !serve_second.contains(one))
        {
            return Ok(());
        }
        Err(Error::Internal(
            "sessions share their connections to the server, as behind a pooler in transaction mode, where settings and \
             prepared statements do not hold: let the pooler work in session mode (PgBouncer: pool_mode = session), or \
             connect without it"
                .to_owned(),
        ))
    }
}

impl Setting {
    fn statement(&self) -> String {
        format!("SET {} = '{}'", self.name, self.value.replace('\'', "''"))
    }

    /// Warns where a session has another value, once until one has it again.
    fn compare(&self, actual: Option<&str>) {
        let holds = actual.is_some_and(|actual| is_same(&self.value, actual));
        if self.holds.swap(holds, Relaxed) && !holds {
            let (setting, wanted, actual) = (self.name, self.value.as_str(), actual.unwrap_or("unknown"));
            tracing::warn!(setting, wanted, actual, "a setting does not hold in sessions with the database");
        }
    }
}

/// Whether the server of a connection takes writes: a standby and a demoted primary do not.
pub async fn is_writable(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let row = sqlx::raw_sql("SHOW transaction_read_only").fetch_one(connection).await?;
    Ok(row.try_get::<String, _>(0)? == "off")
}

/// The process of the server that serves this session, unless it is one of those that have none.
async fn served_by(connection: &mut PgConnection) -> Result<Option<(i32, Option<String>)>> {
    let served_by = async {
        let row = sqlx::raw_sql(SERVED_BY).fetch_one(connection).await?;
        sqlx::Result::Ok((row.try_get(0)?, row.try_get(1)?))
    };
    let (process, since) = served_by.await.map_err(failure)?;
    Ok((process > 0).then_some((process, since)))
}

/// The value that the options of a session, such as `-c lock_timeout=1s`, give to a setting. The last one counts.
fn given(options: &str, name: &str) -> Option<String> {
    let mut words = vec![String::new()];
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => words.last_mut()?.extend(characters.next()),
            ' ' => words.push(String::new()),
            _ => words.last_mut()?.push(character),
        }
    }
    let mut settings =
        words.iter().filter_map(|word| word.trim_start_matches("--").trim_start_matches("-c").split_once('='));
    settings.rfind(|(given, _)| *given == name).map(|(_, value)| value.to_owned())
}

/// Whether both are the same value of a setting: servers write a time in units of their own.
fn is_same(wanted: &str, actual: &str) -> bool {
    match (milliseconds(wanted), milliseconds(actual)) {
        (Some(wanted), Some(actual)) => wanted == actual,
        _ => wanted.eq_ignore_ascii_case(actual),
    }
}

fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_a_url_go_before_ours() {
        for (options, value) in [
            ("-c lock_timeout=1s", Some("1s")),
            ("-c geqo=off -c lock_timeout=1s", Some("1s")),
            ("--lock_timeout=1s", Some("1s")),
            ("-clock_timeout=1s -c lock_timeout=4s", Some("4s")),
            ("-c lock_timeout=1\\ s", Some("1 s")),
            ("-c deadlock_timeout=1s", None),
            ("-c lock_timeout", None),
            ("", None),
        ] {
            assert_eq!(given(options, "lock_timeout").as_deref(), value, "{options}");
        }
    }

    #[test]
    fn a_time_is_the_same_in_any_unit() {
        for (wanted, actual) in [("3s", "3000"), ("3s", "3000ms"), ("60 s", "1min"), ("1h", "60min"), ("off", "OFF")] {
            assert!(is_same(wanted, actual), "{wanted} {actual}");
        }
        for (wanted, actual) in [("3s", "0"), ("3s", "3min"), ("read committed", "serializable"), ("3s", "")] {
            assert!(!is_same(wanted, actual), "{wanted} {actual}");
        }
    }
}
