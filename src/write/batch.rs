//! Changes of a command, many in one transaction: loaded with their rows locked, decided and saved as those of calls are.

use chrono::{DateTime, Utc};
use sea_orm::{DbBackend, Statement};
use tokio::time::{error::Elapsed, timeout};

use super::{
    attempt::rows,
    load::{self, Wanted},
};
pub use crate::profile::group::Rows;
use crate::{
    error::{Error, Result},
    profile::{
        change::{Author, Change, Written},
        group::{Group, Saving, Step},
    },
    store::{self, PinnedConnection, Store, failure::uncommitted},
};

/// How many changes should be decided and saved together at the most. Nobody waits for the first of them, so there are
/// more than of calls.
pub const LARGEST_GROUP: usize = 250;

/// A transaction of a command. What is not committed is rolled back.
pub struct Batch {
    store: Store,
    connection: PinnedConnection,
}

impl Batch {
    /// Begins the transaction. On SQLite it has the one writer until it ends.
    pub async fn begin(store: &Store) -> Result<Self> {
        let mut connection = store.write_connection().await?;
        connection.begin().await?;
        if connection.backend() == DbBackend::Postgres {
            // All is found by keys, but a plan made for a small table would read all of it, and go on when it has grown.
            let plans = "SET LOCAL enable_seqscan = off";
            connection.fetch(Statement::from_string(DbBackend::Postgres, plans)).await?;
        }
        Ok(Self { store: store.clone(), connection })
    }

    /// The connection of the transaction, for what is to be read and saved with the changes.
    pub const fn connection(&mut self) -> &mut PinnedConnection {
        &mut self.connection
    }

    /// Loads what the changes need to be decided, with the rows of their profiles locked.
    pub async fn load(&mut self, author: &Author, changes: &[Change]) -> Result<Rows> {
        let wanted = Wanted::of(changes.iter().map(|change| (author, change)));
        timeout(self.store.write_timeout(), load::load_locked(&mut self.connection, &wanted)).await.map_err(late)?
    }

    /// Decides changes in their order, on what was loaded for them, and saves what they leave. New profiles need nothing to
    /// be loaded: the unique indexes then judge their addresses and identifiers, and one that is taken fails all of them.
    /// Answers what became of the first changes, at least of one: those behind have to see these saved.
    pub async fn write(
        &mut self,
        author: &Author,
        changes: &[Change],
        rows: Rows,
        now: DateTime<Utc>,
    ) -> Result<Vec<Result<Written>>> {
        let mut group = Group::new(rows);
        let mut results = Vec::with_capacity(changes.len());
        for change in changes {
            match group.decide(author, change, now) {
                Step::Later => break,
                Step::Decided { result, .. } => results.push(result),
            }
        }
        let saving = group.into_saving();
        timeout(self.store.write_timeout(), save(&mut self.connection, &saving)).await.map_err(late)??;
        Ok(results)
    }

    /// Commits all that was written.
    pub async fn commit(mut self) -> Result<()> {
        self.store.check_file()?;
        self.connection.commit().await.map_err(uncommitted)
    }

    /// Takes all of it back.
    pub async fn rollback(mut self) {
        self.connection.rollback().await;
    }
}

fn late(_: Elapsed) -> Error {
    Error::DatabaseUnavailable("the database has not answered in time".to_owned())
}

async fn save(connection: &mut PinnedConnection, saving: &Saving) -> Result<()> {
    // A command has no request ids and reports no cases, and an erasure goes its own way.
    let Saving { created, updated, claims: _, cases: _, erased: _ } = saving;
    if !created.is_empty() {
        store::save::create(connection, &rows(created)).await?;
    }
    if !updated.is_empty() && store::save::update(connection, &rows(updated)).await?.len() < updated.len() {
        return Err(Error::Internal("a locked row was changed by somebody else".to_owned()));
    }
    Ok(())
}
