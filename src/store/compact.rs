//! Compacting an embedded database: what was deleted or overwritten leaves its file.
//!
//! `secure_delete` overwrites it where it stood; but where a page was split, a part of it may have stayed in the other half.

use std::{
    env, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::statvfs;
use sea_orm::{DbBackend, Statement};
use tokio::time::{Instant, sleep};

use super::{COMMAND_TIMEOUT, PinnedConnection, Store};
use crate::{
    error::{Error, Result},
    migration::COMPACTED,
};

/// How long after a try for the file the next one comes.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// Whether the file may still hold what was deleted or overwritten by a program that left it there.
pub async fn is_due(store: &Store) -> Result<bool> {
    if store.backend() != DbBackend::Sqlite {
        return Ok(false);
    }
    let mut connection = store.read_connection().await?;
    Ok(number(&mut connection, "PRAGMA user_version", "user_version").await? != Some(COMPACTED))
}

/// Writes the file anew, and answers its size before and after. It may be served meanwhile: reads go on, writes wait.
pub async fn compact(store: &Store, file: &Path) -> Result<(u64, u64)> {
    let before = size(file)?;
    check_room(file, before)?;
    let mut connection = store.write_connection().await?;
    let since = Instant::now();
    while let Err(error) = run(&mut connection, "VACUUM").await {
        match error {
            Error::TransactionConflict { .. } if since.elapsed() < COMMAND_TIMEOUT => {}
            Error::DatabaseUnavailable(cause) => {
                return Err(Error::DatabaseUnavailable(format!("the file is as it was: {cause}")));
            }
            error => return Err(error),
        }
    }
    run(&mut connection, &format!("PRAGMA user_version = {COMPACTED}")).await?;
    // The log beside the file has what was there before, until it is emptied.
    let since = Instant::now();
    while number(&mut connection, "PRAGMA wal_checkpoint(TRUNCATE)", "busy").await? != Some(0) {
        if since.elapsed() > COMMAND_TIMEOUT {
            let cause = "the file is compacted, but its -wal is in use: run it again when less is read".to_owned();
            return Err(Error::TransactionConflict { cause, retryable: false });
        }
        sleep(TRY_AGAIN).await;
    }
    Ok((before, size(file)?))
}

async fn run(connection: &mut PinnedConnection, sql: &str) -> Result<()> {
    connection.fetch(Statement::from_string(DbBackend::Sqlite, sql)).await?;
    Ok(())
}

async fn number(connection: &mut PinnedConnection, sql: &str, column: &str) -> Result<Option<i32>> {
    let rows = connection.fetch(Statement::from_string(DbBackend::Sqlite, sql)).await?;
    rows.first().map(|row| row.try_get("", column).map_err(Error::from)).transpose()
}

/// Fails where there is no room: the new file goes through the log beside the old one, and is made as a temporary file.
fn check_room(file: &Path, size: u64) -> Result<()> {
    let beside = file.parent().unwrap_or(file);
    let temporary = temporary_directory();
    let device =
        |directory: &Path| fs::metadata(directory).map(|metadata| metadata.dev()).map_err(|error| unreadable(&error));
    let needed = if device(beside)? == device(&temporary)? { 2 * size } else { size };
    for (directory, needed) in [(beside, needed), (&temporary, size)] {
        let room = statvfs(directory).map_err(|error| unreadable(&error.into()))?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        if free < needed {
            let directory = directory.display();
            return Err(Error::DatabaseUnavailable(format!(
                "compacting needs {needed} bytes in {directory}, where {free} are free"
            )));
        }
    }
    Ok(())
}

/// Where SQLite makes its temporary files (its documentation, section "Temporary File Storage Locations").
fn temporary_directory() -> PathBuf {
    let set = ["SQLITE_TMPDIR", "TMPDIR"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    let known = ["/var/tmp", "/usr/tmp", "/tmp"].map(PathBuf::from);
    set.chain(known).find(|directory| directory.is_dir()).unwrap_or_else(|| PathBuf::from("."))
}

fn size(file: &Path) -> Result<u64> {
    fs::metadata(file).map(|metadata| metadata.len()).map_err(|error| unreadable(&error))
}

fn unreadable(error: &io::Error) -> Error {
    Error::DatabaseUnavailable(error.to_string())
}
