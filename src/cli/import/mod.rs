//! `import`: the profiles of a file, through the one write.
//!
//! Lines are judged on a thread of their own and stored in the order of the file, some hundred in a transaction. How far
//! the import has come is stored with them, so that one which ends early goes on there, and stores nobody twice.

mod errors;
mod file;
mod judge;
mod upsert;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use sea_orm::DbBackend;
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, sleep},
};

use self::{
    errors::{Errors, Failed, Violation},
    file::{Survey, survey},
    judge::{Chunk, Judge, Judged, Said, violations},
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
    clock,
    entity::import_progress,
    error::{Error, Result},
    profile::change::{Author, Change, Target},
    store::{self, Store},
    write::batch::{Batch, LARGEST_GROUP},
};

/// How many chunks of lines wait to be stored.
const WAITING: usize = 2;

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
    let mut import = Import { store, author, judge, dry_run, progress, errors, bar, count: Count::default() };
    let read = import.all(path.clone(), done).await?;
    let Import { store, errors, count, progress, bar, .. } = import;
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
    store: Store,
    author: Author,
    judge: Judge,
    dry_run: bool,
    progress: import_progress::Model,
    errors: Errors,
    bar: Progress,
    count: Count,
}

impl Import {
    /// Stores the lines behind the first `done`, and answers the SHA-256 of the file as it was read meanwhile.
    async fn all(&mut self, path: PathBuf, done: u64) -> Result<String, Failure> {
        let (sender, mut chunks) = mpsc::channel(WAITING);
        let judge = Judge { upsert_by: self.judge.upsert_by.clone(), file: self.judge.file.clone() };
        let judging = tokio::spawn(blocking(move || judge.judge(&path, done, &sender)));
        while let Some(chunk) = chunks.recv().await {
            let begun = Instant::now();
            self.store(&chunk).await?;
            self.bar.advance(chunk.lines);
            if self.store.backend() == DbBackend::Sqlite {
                sleep(begun.elapsed()).await; // others want SQLite's one writer too
            }
        }
        judging.await.map_err(|_| Failure::failed("reading the file has panicked"))?
    }

    /// Stores a chunk, again where another write was in the way.
    async fn store(&mut self, chunk: &Chunk) -> Result<(), Failure> {
        for attempt in 1.. {
            match self.attempt(chunk).await {
                Ok(()) => return Ok(()),
                Err(Stop::Error(error)) if attempt < ATTEMPTS && is_passing(&error) => sleep(BACKOFF).await,
                Err(Stop::Error(error)) => {
                    let cause = Failure::from(error).sentence;
                    return Err(self.ended(&cause));
                }
                Err(Stop::Failure(cause)) => return Err(self.ended(&cause)),
            }
        }
        Ok(())
    }

    fn ended(&self, cause: &str) -> Failure {
        let lines = self.progress.lines;
        Failure::failed(format!("{cause}. {lines} lines are done; the same command goes on behind them"))
    }

    async fn attempt(&mut self, chunk: &Chunk) -> Result<(), Stop> {
        let mut batch = Batch::begin(&self.store).await?;
        let ended = self.fill(&mut batch, chunk).await;
        let (count, by) = match ended {
            Ok(count) => (count, i64::try_from(chunk.lines).unwrap_or(i64::MAX)),
            Err(stop) => {
                batch.rollback().await;
                return Err(stop);
            }
        };
        if self.dry_run {
            batch.rollback().await;
        } else {
            batch.commit().await?;
            self.progress.lines += by;
        }
        self.count.add(count);
        Ok(())
    }

    /// Writes a chunk, keeps the lines that fail, and moves the progress.
    async fn fill(&mut self, batch: &mut Batch, chunk: &Chunk) -> Result<Count, Stop> {
        let (mut count, mut failed) = (Count::default(), Vec::new());
        let mut rest: Vec<_> = chunk.judged.iter().collect();
        while !rest.is_empty() {
            let next = together(&rest);
            let done = self.write(batch, &rest[..next], &mut count, &mut failed).await?;
            rest.drain(..done);
        }
        count.failed = failed.len() as u64;
        let kept = self.errors.write(&failed);
        kept.map_err(|error| Stop::Failure(format!("cannot write {}: {error}", self.errors.path().display())))?;
        let by = i64::try_from(chunk.lines).unwrap_or(i64::MAX);
        if !self.dry_run && !store::import::advance(batch.connection(), &self.progress, by).await? {
            return Err(Stop::Failure("another import of this file is under way".to_owned()));
        }
        Ok(count)
    }

    /// Writes lines, and answers how many of them are done.
    async fn write(
        &self,
        batch: &mut Batch,
        lines: &[&Judged],
        count: &mut Count,
        failed: &mut Vec<Failed>,
    ) -> Result<usize, Stop> {
        let keys: Vec<_> = lines
            .iter()
            .filter_map(|line| match &line.said {
                Ok(Said::Upsert { key, .. }) => Some(key.clone()),
                Ok(Said::Create(_)) | Err(_) => None,
            })
            .collect();
        let found = match &self.judge.upsert_by {
            Some(by) => by.find(batch.connection(), self.author.organization_id, &keys).await?,
            None => HashMap::new(),
        };
        let mut changes = Vec::with_capacity(lines.len());
        // Of each line the revision that was found, or why there is no change.
        let mut outcomes: Vec<Result<Option<i64>, Vec<Violation>>> = Vec::with_capacity(lines.len());
        for line in lines {
            let (change, revision) = match &line.said {
                Ok(Said::Create(change)) => (Ok(change.clone()), None),
                Ok(Said::Upsert { key, patch, profile }) => match found.get(key) {
                    Some((id, revision)) => (Ok(Change { target: Target::Id(*id), ..patch.clone() }), Some(*revision)),
                    None => (self.judge.create(line.number, (**profile).clone()), None),
                },
                Err(violations) => (Err(violations.clone()), None),
            };
            outcomes.push(change.map(|change| {
                changes.push(Change { validate_only: self.dry_run, ..change });
                revision
            }));
        }
        let mut results = if changes.is_empty() {
            Vec::new().into_iter()
        } else {
            batch.write(&self.author, &changes, clock::now()).await?.into_iter()
        };
        let mut done = 0;
        for (line, outcome) in lines.iter().zip(outcomes) {
            match outcome {
                Err(violations) => failed.push(line.failed(violations)),
                Ok(before) => match results.next() {
                    None => break,
                    Some(Ok(written)) => match before {
                        None => count.created += 1,
                        Some(revision) if written.revision() == Some(revision) => count.unchanged += 1,
                        Some(_) => count.changed += 1,
                    },
                    Some(Err(error)) => match violations(&error) {
                        violations if violations.is_empty() => return Err(error.into()),
                        violations => failed.push(line.failed(violations)),
                    },
                },
            }
            done += 1;
        }
        Ok(done)
    }
}

/// How many of these lines can be written together: one with the key of an earlier one has to see it stored.
fn together(lines: &[&Judged]) -> usize {
    let mut keys = HashSet::new();
    let is_new = |line: &&&Judged| match &line.said {
        Ok(Said::Upsert { key, .. }) => keys.insert(key.clone()),
        Ok(Said::Create(_)) | Err(_) => true,
    };
    lines.iter().take(LARGEST_GROUP).take_while(is_new).count()
}

/// Why a chunk is not stored.
enum Stop {
    Error(Error),
    Failure(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
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
    spawn_blocking(work).await.map_err(|_| Failure::failed("reading the file has panicked"))?.map_err(Failure::failed)
}
