//! Profiles by id. Reads that wait at the same moment are answered by one query, which is most of what they cost.
//!
//! A query begins after every read that it answers has come, and nothing is kept: no answer is ever stale.

use std::{collections::HashMap, sync::Arc};

use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::yield_now,
};
use uuid::Uuid;

use crate::{
    entity::profile::Model,
    error::{Error, Result},
    store::{self, Store},
};

/// Queries at once: while one is on its way, the reads for the next one gather, and a lone read waits for nothing.
const QUERIES: usize = 2;

/// A profile that is asked for, and who waits for it.
struct Read {
    organization: Uuid,
    id: Uuid,
    answer: oneshot::Sender<Result<Option<Model>>>,
}

/// Reads profiles. Ends with the last of its clones.
#[derive(Clone)]
pub struct Profiles {
    reads: mpsc::UnboundedSender<Read>, // no longer than the calls in flight
}

impl Profiles {
    /// Reads with queries of at most `batch` profiles.
    pub fn new(store: Store, batch: usize) -> Self {
        let (reads, waiting) = mpsc::unbounded_channel();
        tokio::spawn(gather(store, waiting, batch));
        Self { reads }
    }

    /// The organization's profile.
    pub async fn find(&self, organization: Uuid, id: Uuid) -> Result<Option<Model>> {
        let ended = |()| Error::Internal("a query of many profiles panicked".to_owned());
        let (answer, answered) = oneshot::channel();
        self.reads.send(Read { organization, id, answer }).map_err(|_| ended(()))?;
        store::in_time(async { answered.await.map_err(|_| ended(()))? }).await
    }
}

/// Hands the reads that wait to a query whenever there is a turn for one.
async fn gather(store: Store, mut waiting: mpsc::UnboundedReceiver<Read>, batch: usize) {
    let turns = Arc::new(Semaphore::new(QUERIES));
    while let Ok(turn) = Arc::clone(&turns).acquire_owned().await {
        let mut reads = Vec::with_capacity(batch);
        reads.extend(waiting.recv().await);
        if reads.is_empty() {
            return;
        }
        // Calls that have come with this one have their turn to say what they read: it makes queries twice as large.
        yield_now().await;
        while reads.len() < batch
            && let Ok(read) = waiting.try_recv()
        {
            reads.push(read);
        }
        let store = store.clone();
        tokio::spawn(async move {
            answer(&store, reads).await;
            drop(turn);
        });
    }
}

/// Answers the reads whose callers still wait.
async fn answer(store: &Store, reads: Vec<Read>) {
    let mut waiting = HashMap::<_, Vec<_>>::new();
    for Read { organization, id, answer } in reads.into_iter().filter(|read| !read.answer.is_closed()) {
        waiting.entry((organization, id)).or_default().push(answer);
    }
    if waiting.is_empty() {
        return;
    }
    let ids = waiting.keys().map(|(_, id)| *id).collect();
    match store::in_time(store::profile::find_many(store.reader(), ids)).await {
        Ok(found) => {
            for profile in found {
                for caller in waiting.remove(&(profile.organization_id, profile.id)).unwrap_or_default() {
                    let _ = caller.send(Ok(Some(profile.clone()))); // a caller may have gone away
                }
            }
            for caller in waiting.into_values().flatten() {
                let _ = caller.send(Ok(None));
            }
        }
        Err(error) => {
            for caller in waiting.into_values().flatten() {
                let _ = caller.send(Err(error.clone()));
            }
        }
    }
}
