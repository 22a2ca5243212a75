//! `import`: the profiles of a file, through the one write.
//!
//! Lines are judged on a thread of their own and stored in the order of the file, some hundred in a transaction. How far
//! the import has come is stored with them, so that one which ends early goes on there, and stores nobody twice.

pub mod errors;
pub mod file;
mod fill;
pub mod judge;
pub mod upsert;

use std::{collections::VecDeque, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use sea_orm::DbBackend;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep},
};

use self::{
    errors::{Errors, Failed},
    file::{Survey, survey},
    fill::{Filled, Filling, Stop},
    judge::{Chunk, Judge},
    upsert::UpsertBy,
};
use super::{
    Failure, author,
    database::DatabaseArgs,
    organization::{checked_name, named},
    print,
    progress::Progress,
};
use crate::{
    entity::import_progress,
    error::{Error, Result},
    store,
    write::batch::Batch,
};

/// How many chunks of lines wait to be stored.
const WAITING: usize = 2;

/// How many chunks of new people are filled at once on PostgreSQL, each in a transaction of its own.
const WIDTH: usize = 2;

/// How many chunks are looked up and stored one after the other once one has failed: where one address is taken, more are.
const CAREFUL: u32 = 16;

/// How often lines are stored again that another write was in the way of, and how long they wait before that.
const ATTEMPTS: u32 = 20;
const BACKOFF: Duration = Duration::from_millis(50);

/// How many characters of the file's SHA-256 the history keeps.
const FILE: usize = 16;

/// What to import.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The organization's name.
    #[arg(long)]
    organization: String,
    /// The file: a profile a line, in the contract's JSON. Lines that fail are kept in FILE.errors.jsonl.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Judge each line against the database alone, and store nothing. Lines that would fail are in
    /// FILE.dry-run.errors.jsonl.
    #[arg(long)]
    dry_run: bool,
    /// Change whom a line finds by this, as far as it says, and add its identifiers: `email`, `phone_number` or
    /// `identifier:SYSTEM`. Without it each line creates a profile.
    #[arg(long, value_name = "KEY")]
    upsert_by: Option<UpsertBy>,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Imports the file, from where an earlier import of it has ended.
pub async fn run(args: ImportArgs) -> Result<(), Failure> {
    let ImportArgs { organization, file: path, dry_run, upsert_by, database } = args;
    let name = checked_name(&organization)?;
    let surveyed = path.clone();
    let Survey { sha256, lines } = blocking(move || survey(&surveyed)).await?;
    let store = database.open().await?;
    let organization = named(&store, &name).await?.id;
    let mut progress = import_progress::Model {
        organization_id: organization,
        file_sha256: sha256.clone(),
        upsert_by: upsert_by.as_ref().map(ToString::to_string).unwrap_or_default(),
        lines: 0,
    };
    if !dry_run {
        progress.lines = store::import::lines(&mut store.write_connection().await?, &progress).await?;
    }
    if store::erasure::is_any(&store, organization).await? {
        tracing::warn!("people of the organization have been erased: a file from before that would bring them back");
    }
    let done = u64::try_from(progress.lines).unwrap_or_default();
    // What an import has left is not a dry run's to replace.
    let end = if dry_run { ".dry-run.errors.jsonl" } else { ".errors.jsonl" };
    let errors = Errors::beside(&path, end, done > 0);
    let errors = errors.map_err(|error| Failure::failed(format!("cannot begin a file of errors: {error}")))?;
    let author = author(organization);
    let judge = Judge { upsert_by, file: sha256.chars().take(FILE).collect() };
    let bar = Progress::begin(if dry_run { "judging" } else { "importing" }, "lines", done, lines);
    let filling = Arc::new(Filling { store: store.clone(), author, judge, dry_run });
    let mut import = Import { filling, progress, errors, bar, count: Count::default(), careful: 0 };
    let read = import.all(path.clone(), done).await?;
    let Import { filling: _, progress, errors, bar, count, careful: _ } = import;
    drop(bar);
    store.close().await;
    if read != sha256 {
        return Err(Failure::failed(format!(
            "{} has changed while it was read: {} of its lines are stored",
            path.display(),
            progress.lines
        )));
    }
    print(&count.sentence(lines - done, done, dry_run))?;
    if count.failed == 0 {
        return Ok(());
    }
    Err(Failure::failed(format!("{} lines failed, which are in {}", count.failed, errors.path().display())))
}

/// What became of lines.
#[derive(Clone, Copy, Default)]
struct Count {
    created: u64,
    changed: u64,
    unchanged: u64,
    failed: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        let Self { created, changed, unchanged, failed } = other;
        self.created += created;
        self.changed += changed;
        self.unchanged += unchanged;
        self.failed += failed;
    }

    fn sentence(self, lines: u64, done: u64, dry_run: bool) -> String {
        let Self { created, changed, unchanged, failed } = self;
        let before = if done > 0 { format!(" after {done} that were done before") } else { String::new() };
        let numbers = format!("{created} created, {changed} changed, {unchanged} unchanged, {failed} failed");
        if dry_run {
            let found = changed + unchanged;
            return format!(
                "{lines} lines judged, each against the database alone, and nothing stored: {created} would be created, \
                 {found} are there, {failed} would fail"
            );
        }
        format!("{lines} lines{before}: {numbers}")
    }
}

struct Import {
    filling: Arc<Filling>,
    progress: import_progress::Model,
    errors: Errors,
    bar: Progress,
    count: Count,
    /// How many of the next chunks are looked up and stored one after the other, since one before them has failed.
    careful: u32,
}

/// A chunk that is being filled into a transaction of its own.
struct Underway {
    chunk: Arc<Chunk>,
    filled: JoinHandle<Result<Filled, Stop>>,
}

impl Import {
    /// Stores the lines behind the first `done`, and answers the SHA-256 of the file as it was read meanwhile.
    async fn all(&mut self, path: PathBuf, done: u64) -> Result<String, Failure> {
        let (sender, mut chunks) = mpsc::channel(WAITING);
        let filling = Arc::clone(&self.filling);
        let judging = tokio::spawn(blocking(move || filling.judge.judge(&path, done, &sender)));
        let mut underway = VecDeque::new();
        loop {
            let next = if underway.is_empty() { chunks.recv().await } else { chunks.try_recv().ok() };
            if let Some(chunk) = next {
                underway.push_back(self.begin(Arc::new(chunk)));
                if underway.len() < self.width() {
                    continue;
                }
            }
            let Some(Underway { chunk, filled }) = underway.pop_front() else { break };
            let begun = Instant::now();
            match self.end(&chunk, filled.await.unwrap_or_else(|_| Err(Stop::Failure(panicked().sentence)))).await {
                Ok(()) => {}
                Err(stop) => self.again(&chunk, stop, &mut underway).await?,
            }
            self.bar.advance(chunk.lines);
            if self.filling.store.backend() == DbBackend::Sqlite {
                sleep(begun.elapsed()).await; // others want SQLite's one writer too
            }
        }
        judging.await.map_err(|_| panicked())?
    }

    /// How many chunks are filled at once: new people in two transactions, so that PostgreSQL and this program both work.
    /// Lines that change somebody have to see all lines before them stored.
    fn width(&self) -> usize {
        let is_alone = self.careful > 0 || self.filling.is_alone();
        if is_alone { 1 } else { WIDTH }
    }

    fn begin(&mut self, chunk: Arc<Chunk>) -> Underway {
        let (filling, looks_up) = (Arc::clone(&self.filling), self.careful > 0);
        self.careful = self.careful.saturating_sub(1);
        let taken = Arc::clone(&chunk);
        Underway { chunk, filled: tokio::spawn(async move { filling.fill(&taken, looks_up).await }) }
    }

    /// Stores a chunk again where another write was in the way, which may be one of those that are under way behind it.
    async fn again(
        &mut self,
        chunk: &Arc<Chunk>,
        mut stop: Stop,
        underway: &mut VecDeque<Underway>,
    ) -> Result<(), Failure> {
        let mut behind = Vec::new();
        for Underway { chunk, filled } in underway.drain(..) {
            if let Ok(Ok(filled)) = filled.await {
                filled.batch.rollback().await;
            }
            behind.push(chunk);
        }
        for attempt in 1.. {
            match stop {
                Stop::Error(error) if attempt < ATTEMPTS && is_passing(&error) => {}
                Stop::Error(error) => return Err(self.ended(&Failure::from(error).sentence)),
                Stop::Failure(cause) => return Err(self.ended(&cause)),
            }
            if attempt > 1 {
                sleep(BACKOFF).await;
            }
            let filled = self.filling.fill(chunk, true).await;
            match self.end(chunk, filled).await {
                Ok(()) => break,
                Err(again) => stop = again,
            }
        }
        self.careful = CAREFUL;
        underway.extend(behind.into_iter().map(|chunk| self.begin(chunk)));
        Ok(())
    }

    fn ended(&self, cause: &str) -> Failure {
        let lines = self.progress.lines;
        Failure::failed(format!("{cause}. {lines} lines are done; the same command goes on behind them"))
    }

    /// Keeps the lines that have failed, moves the progress, and commits.
    async fn end(&mut self, chunk: &Chunk, filled: Result<Filled, Stop>) -> Result<(), Stop> {
        let Filled { mut batch, count, failed } = filled?;
        let by = i64::try_from(chunk.lines).unwrap_or(i64::MAX);
        if let Err(stop) = self.advance(&mut batch, &failed, by).await {
            batch.rollback().await;
            return Err(stop);
        }
        if self.filling.dry_run {
            batch.rollback().await;
        } else {
            batch.commit().await?;
            self.progress.lines += by;
        }
        self.count.add(count);
        Ok(())
    }

    async fn advance(&mut self, batch: &mut Batch, failed: &[Failed], by: i64) -> Result<(), Stop> {
        let kept = self.errors.write(failed);
        kept.map_err(|error| Stop::Failure(format!("cannot write {}: {error}", self.errors.path().display())))?;
        if !self.filling.dry_run && !store::import::advance(batch.connection(), &self.progress, by).await? {
            return Err(Stop::Failure("another import of this file is under way".to_owned()));
        }
        Ok(())
    }
}

/// Whether another write was in the way, which the next attempt sees.
const fn is_passing(error: &Error) -> bool {
    matches!(
        error,
        Error::TransactionConflict { .. } | Error::EmailInUse | Error::PhoneNumberInUse | Error::IdentifierInUse
    )
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, Failure> {
    spawn_blocking(work).await.map_err(|_| panicked())?.map_err(Failure::failed)
}

fn panicked() -> Failure {
    Failure::failed("a part of the import has panicked")
}
