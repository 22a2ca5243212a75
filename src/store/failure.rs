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
    use super::*;

    #[test]
    fn every_code_of_the_contract_has_its_meaning() {
        let meaning = |code: &str| match by_code(code, String::new()) {
            Error::TransactionConflict { retryable: true, .. } => "tried again",
            Error::TransactionConflict { retryable: false, .. } => "aborted",
            Error::DatabaseUnavailable(_) => "away",
            _ => "ours",
        };
        for (codes, expected) in [
            (&["40001", "40P01", "0A000", "5", "6", "261", "517"][..], "tried again"),
            (&["55P03"], "aborted"),
            (
                &["08000", "08006", "57P01", "57P02", "57P03", "57014", "53300", "40003", "25006", "25P03", "25P04"],
                "away",
            ),
            (&["8", "10", "13", "14", "778"], "away"),
            (&["", "1", "19", "22P02", "23502", "42P01", "57000", "XX000"], "ours"),
        ] {
            for code in codes {
                assert_eq!(meaning(code), expected, "{code}");
            }
        }
    }
}
