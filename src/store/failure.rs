//! What a database's error means to the service.

use std::sync::Arc;

use sea_orm::{
    ConnAcquireErr, DbErr, RuntimeErr, SqlErr,
    sqlx::{self, postgres::PgDatabaseError},
};

use crate::error::Error;

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        classify(&error)
    }
}

/// The error that a caller is to see.
fn classify(error: &DbErr) -> Error {
    let cause = cause(error);
    match error {
        DbErr::ConnectionAcquire(ConnAcquireErr::Timeout | ConnAcquireErr::ConnectionClosed) => {
            Error::DatabaseUnavailable(cause)
        }
        DbErr::Conn(RuntimeErr::SqlxError(driver))
        | DbErr::Exec(RuntimeErr::SqlxError(driver))
        | DbErr::Query(RuntimeErr::SqlxError(driver)) => match driver.as_ref() {
            sqlx::Error::Database(refusal) => {
                unique_violation(error).unwrap_or_else(|| by_code(&refusal.code().unwrap_or_default(), cause))
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Error::DatabaseUnavailable(cause),
            _ => Error::Internal(cause),
        },
        _ => Error::Internal(cause),
    }
}

/// Classes of SQLSTATE whose messages tell of connections, locks and resources, and hold no value of a row.
const ABOUT_NO_ROW: [&str; 8] = ["08", "28", "3D", "40", "53", "55", "57", "58"];

/// What went wrong, for the log: neither a value of a row, which PostgreSQL's messages may hold, nor a line of its source.
/// Of the other errors those of the driver have none in their `Display`; `Debug` would.
fn cause(error: &DbErr) -> String {
    let (DbErr::Conn(RuntimeErr::SqlxError(driver))
    | DbErr::Exec(RuntimeErr::SqlxError(driver))
    | DbErr::Query(RuntimeErr::SqlxError(driver))) = error
    else {
        return match error {
            // They quote what they could not read.
            DbErr::Type(_) | DbErr::Json(_) | DbErr::TryIntoErr { .. } => {
                "a stored value is none of its column's type".to_owned()
            }
            _ => error.to_string(),
        };
    };
    let sqlx::Error::Database(refusal) = driver.as_ref() else { return driver.to_string() };
    let code = refusal.code().unwrap_or_default();
    if refusal.try_downcast_ref::<PgDatabaseError>().is_none() {
        format!("{} (SQLite code {code})", refusal.message())
    } else if ABOUT_NO_ROW.iter().any(|class| code.starts_with(class)) {
        format!("{} (SQLSTATE {code})", refusal.message())
    } else {
        format!("SQLSTATE {code} {}", refusal.constraint().unwrap_or_default()).trim_end().to_owned()
    }
}

/// The error of a statement that the driver ran for us.
pub fn failure(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}

/// The error of a statement that saves: where its answer was lost, nobody knows whether the database has carried it out.
/// Any refusal means that nothing was saved.
pub fn unsaved(error: DbErr) -> Error {
    let refused = match &error {
        DbErr::Conn(RuntimeErr::SqlxError(driver))
        | DbErr::Exec(RuntimeErr::SqlxError(driver))
        | DbErr::Query(RuntimeErr::SqlxError(driver)) => match driver.as_ref() {
            sqlx::Error::Database(refusal) => !ends_the_session(&refusal.code().unwrap_or_default()),
            _ => false,
        },
        _ => false,
    };
    match Error::from(error) {
        Error::DatabaseUnavailable(cause) if !refused => Error::OutcomeUnknown(cause),
        error => error,
    }
}

/// The error of a commit: where its answer was lost, or a file could not be written, nobody knows what was saved.
pub fn uncommitted(error: DbErr) -> Error {
    match Error::from(error) {
        Error::DatabaseUnavailable(cause) => Error::OutcomeUnknown(cause),
        error => error,
    }
}

/// Whether PostgreSQL has ended the session, perhaps in the middle of a commit: classes 08 and 57P0, and 40003, or since
/// its transaction was idle for too long.
fn ends_the_session(code: &str) -> bool {
    code.len() == 5
        && (code.starts_with("08") || code.starts_with("57P0") || matches!(code, "40003" | "25P03" | "25P04"))
}

/// Whether a session of PostgreSQL is to be closed: it has ended, its server takes no writes any more (25006), or it has a
/// statement that was planned for another schema (0A000).
pub fn spoils_the_session(code: &str) -> bool {
    ends_the_session(code) || matches!(code, "25006" | "0A000")
}

/// The e-mail, phone number or identifier that someone else has, or what two writes stored first at the same moment: the
/// second finds it when it tries again. PostgreSQL names the index, SQLite the column.
fn unique_violation(error: &DbErr) -> Option<Error> {
    let Some(SqlErr::UniqueConstraintViolation(message)) = error.sql_err() else { return None };
    if message.contains("profile_email_key") || message.contains("profile.email") {
        Some(Error::EmailInUse)
    } else if message.contains("profile_phone_number_key") || message.contains("profile.phone_number") {
        Some(Error::PhoneNumberInUse)
    } else if message.contains("profile_identifier") {
        Some(Error::IdentifierInUse)
    } else if message.contains("write_request") || message.contains("profile_case") {
        let cause = "another write was first with the same request id or case".to_owned();
        Some(Error::TransactionConflict { cause, retryable: true })
    } else {
        None
    }
}

/// By SQLSTATE (PostgreSQL, five characters) or by result code (SQLite, a number whose low byte is the primary code).
fn by_code(code: &str, cause: String) -> Error {
    match code {
        // 0A000: a kept statement was planned for another schema; nothing was executed, and another session plans it anew.
        "40001" | "40P01" | "0A000" => Error::TransactionConflict { cause, retryable: true },
        "55P03" => Error::TransactionConflict { cause, retryable: false },
        "57014" | "53300" | "25006" => Error::DatabaseUnavailable(cause),
        _ if ends_the_session(code) => Error::DatabaseUnavailable(cause),
        _ => match code.parse::<u32>().map(|code| code & 0xff) {
            // SQLITE_BUSY, SQLITE_LOCKED
            Ok(5 | 6) if code.len() < 5 => Error::TransactionConflict { cause, retryable: true },
            // SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN
            Ok(8 | 10 | 13 | 14) if code.len() < 5 => Error::DatabaseUnavailable(cause),
            _ => Error::Internal(cause),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, error::Error as StdError, io};

    use sea_orm::{
        ConnectionTrait as _, Database,
        sqlx::error::{DatabaseError, ErrorKind},
    };

    use super::*;

    /// A database's refusal by its code alone.
    #[derive(Debug, thiserror::Error)]
    #[error("refused")]
    struct Refusal(&'static str);

    impl DatabaseError for Refusal {
        fn message(&self) -> &'static str {
            "refused"
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    fn refusal(code: &'static str) -> DbErr {
        failure(sqlx::Error::Database(Box::new(Refusal(code))))
    }

    fn cut() -> DbErr {
        failure(io::Error::from(io::ErrorKind::ConnectionReset).into())
    }

    fn meaning(error: &Error) -> &'static str {
        match error {
            Error::TransactionConflict { retryable: true, .. } => "tried again",
            Error::TransactionConflict { retryable: false, .. } => "aborted",
            Error::DatabaseUnavailable(_) => "away",
            Error::OutcomeUnknown(_) => "unknown",
            Error::EmailInUse | Error::PhoneNumberInUse | Error::IdentifierInUse => "taken",
            _ => "ours",
        }
    }

    #[test]
    fn every_code_of_the_contract_has_its_meaning() {
        for (codes, expected) in [
            (&["40001", "40P01", "0A000", "5", "6", "261", "517"][..], "tried again"),
            (&["55P03"], "aborted"),
            (
                &["08000", "08006", "57P01", "57P02", "57P03", "57014", "53300", "40003", "25006", "25P03", "25P04"],
                "away",
            ),
            (&["8", "10", "13", "14", "778"], "away"),
            (&["", "1", "19", "22P02", "23502", "42P01", "57000", "XX000"], "ours"),
            // Their low bytes are those of codes of SQLite: 5 and 8.
            (&["42501", "22024"], "ours"),
        ] {
            for code in codes {
                for of in [DbErr::Conn, DbErr::Exec, DbErr::Query] {
                    let DbErr::Query(refused) = refusal(code) else { panic!("another error") };
                    assert_eq!(meaning(&of(refused).into()), expected, "{code}");
                }
            }
        }
    }

    #[test]
    fn a_database_that_gives_no_connection_or_no_answer_is_away() {
        for error in [
            DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
            DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
            cut(),
            failure(sqlx::Error::Protocol("cut".to_owned())),
            failure(sqlx::Error::PoolTimedOut),
            failure(sqlx::Error::PoolClosed),
            failure(sqlx::Error::WorkerCrashed),
        ] {
            assert_eq!(meaning(&error.into()), "away");
        }
        assert_eq!(meaning(&failure(sqlx::Error::RowNotFound).into()), "ours");
        assert_eq!(meaning(&DbErr::Custom("a fault".to_owned()).into()), "ours");
    }

    #[test]
    fn only_a_refusal_tells_that_nothing_was_saved_and_of_a_commit_not_even_that() {
        for (error, save, commit) in [
            (cut(), "unknown", "unknown"),
            (DbErr::ConnectionAcquire(ConnAcquireErr::Timeout), "unknown", "unknown"),
            (refusal("57P01"), "unknown", "unknown"), // the session has ended
            (refusal("57014"), "away", "unknown"),    // cancelled
            (refusal("13"), "away", "unknown"),       // the disk is full
            (refusal("40001"), "tried again", "tried again"),
            (refusal("23502"), "ours", "ours"),
        ] {
            for of in [DbErr::Conn, DbErr::Exec, DbErr::Query] {
                let error = match &error {
                    DbErr::Query(of_driver) => of(of_driver.clone()),
                    other => other.clone(),
                };
                assert_eq!((meaning(&unsaved(error.clone())), meaning(&uncommitted(error))), (save, commit));
            }
        }
    }

    #[test]
    fn a_session_that_has_ended_or_cannot_write_or_has_old_plans_is_closed() {
        let codes = ["08006", "57P01", "40003", "25P03", "25P04", "25006", "0A000"];
        assert!(codes.iter().all(|code| spoils_the_session(code)));
        assert!(!["", "5", "13", "08", "40001", "57014", "53300", "23505"].iter().any(|code| spoils_the_session(code)));
    }

    #[tokio::test]
    async fn who_was_first_is_told_by_the_index() {
        let db = Database::connect("sqlite::memory:").await.expect("a database");
        let run = async |sql: &str| db.execute_unprepared(sql).await.map_err(Error::from);
        for (table, column, expected) in [
            ("profile", "email", "taken"),
            ("profile", "phone_number", "taken"),
            ("profile_identifier", "value", "taken"),
            ("write_request", "request_id", "tried again"),
            ("profile_case", "case_id", "tried again"),
            ("organization", "name", "ours"),
        ] {
            run(&format!("DROP TABLE IF EXISTS {table}")).await.expect("no table");
            run(&format!("CREATE TABLE {table} ({column} UNIQUE)")).await.expect("a table");
            let insert = format!("INSERT INTO {table} ({column}) VALUES ('x')");
            run(&insert).await.expect("the first");
            let error = run(&insert).await.expect_err("the second");
            assert_eq!(meaning(&error), expected, "{error}");
            assert_eq!(matches!(error, Error::EmailInUse), column == "email");
            assert_eq!(matches!(error, Error::PhoneNumberInUse), column == "phone_number");
        }
    }

    #[test]
    fn a_cause_holds_no_value_of_a_row() {
        for (error, expected) in [
            (DbErr::Type("ada@example.com".to_owned()), "a stored value is none of its column's type"),
            (DbErr::Json("ada@example.com".to_owned()), "a stored value is none of its column's type"),
            (DbErr::Custom("a fault".to_owned()), "Custom Error: a fault"),
            (refusal("13"), "refused (SQLite code 13)"),
            (failure(sqlx::Error::PoolClosed), "attempted to acquire a connection on a closed pool"),
        ] {
            assert_eq!(cause(&error), expected);
            assert!(Error::from(error).cause().is_some_and(|cause| cause == expected));
        }
    }
}
