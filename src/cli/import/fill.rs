//! From a chunk of lines to a transaction that has them, decided but not committed.

use std::collections::{HashMap, HashSet};

use sea_orm::DbBackend;

use super::{
    Count,
    errors::{Failed, Violation},
    judge::{Chunk, Judge, Judged, Said, violations},
};
use crate::{
    clock,
    error::{Error, Result},
    profile::change::{Author, Change, Target},
    store::Store,
    write::batch::{Batch, LARGEST_GROUP, Rows},
};

/// How chunks are filled.
pub struct Filling {
    pub store: Store,
    pub author: Author,
    pub judge: Judge,
    pub dry_run: bool,
}

/// A chunk that only has to be committed.
pub struct Filled {
    pub batch: Batch,
    pub count: Count,
    pub failed: Vec<Failed>,
}

/// Why a chunk is not stored.
pub enum Stop {
    Error(Error),
    Failure(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Filling {
    /// Whether each chunk has to see those before it stored, or the database has one writer.
    pub fn is_alone(&self) -> bool {
        self.judge.upsert_by.is_some() || self.store.backend() == DbBackend::Sqlite
    }

    /// Writes a chunk. Where `looks_up` is false the addresses and identifiers of new people are left to the unique indexes:
    /// one that is taken fails the whole chunk.
    pub async fn fill(&self, chunk: &Chunk, looks_up: bool) -> Result<Filled, Stop> {
        let looks_up = looks_up || self.dry_run || self.judge.upsert_by.is_some();
        let mut batch = Batch::begin(&self.store).await?;
        match self.write_all(&mut batch, chunk, looks_up).await {
            Ok((count, failed)) => Ok(Filled { batch, count, failed }),
            Err(error) => {
                batch.rollback().await;
                Err(error.into())
            }
        }
    }

    async fn write_all(&self, batch: &mut Batch, chunk: &Chunk, looks_up: bool) -> Result<(Count, Vec<Failed>)> {
        let (mut count, mut failed) = (Count::default(), Vec::new());
        let mut rest = chunk.judged.as_slice();
        while !rest.is_empty() {
            let lines = &rest[..together(rest)];
            let done = self.write(batch, lines, looks_up, &mut count, &mut failed).await?;
            rest = &rest[done..];
        }
        count.failed = failed.len() as u64;
        Ok((count, failed))
    }

    /// Writes lines, and answers how many of them are done.
    async fn write(
        &self,
        batch: &mut Batch,
        lines: &[Judged],
        looks_up: bool,
        count: &mut Count,
        failed: &mut Vec<Failed>,
    ) -> Result<usize> {
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
            let rows = if looks_up { batch.load(&self.author, &changes).await? } else { Rows::default() };
            batch.write(&self.author, &changes, rows, clock::now()).await?.into_iter()
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
                        violations if violations.is_empty() => return Err(error),
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
fn together(lines: &[Judged]) -> usize {
    let mut keys = HashSet::new();
    let is_new = |line: &&Judged| match &line.said {
        Ok(Said::Upsert { key, .. }) => keys.insert(key.clone()),
        Ok(Said::Create(_)) | Err(_) => true,
    };
    lines.iter().take(LARGEST_GROUP).take_while(is_new).count()
}
