//! Profiles by id. Reads that wait at the same moment are answered by one query, which is most of what they cost.
//!
//! A query begins after every read that it answers has come, and nothing is kept: no answer is ever stale.

use std::{collections::HashMap, iter, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt as _;
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::yield_now,
    time::timeout_at,
};
use uuid::Uuid;

use crate::{
    entity::profile::Model,
    error::{Error, Result},
    store::{self, Line, Store},
};

/// How reads become queries.
#[derive(Clone, Copy, Debug)]
pub struct Batches {
    /// Queries at once: while they are on their way, the reads for the next one gather.
    pub queries: usize,
    /// Profiles of one query at the most.
    pub profiles: usize,
}

impl Default for Batches {
    /// With two queries at once a lone read waits for nothing; more would only be smaller. Of more profiles,
    /// one query would take all that waits, and the other would have nothing to do.
    fn default() -> Self {
        Self { queries: 2, profiles: 32 }
    }
}

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
    pub fn new(store: &Store, batches: Batches) -> Self {
        let (reads, waiting) = mpsc::unbounded_channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..batches.queries {
            tokio::spawn(work(store.clone(), Arc::clone(&waiting), batches.profiles));
        }
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

/// Makes one query after the other of the reads that wait, as long as anybody may read.
async fn work(store: Store, waiting: Arc<Mutex<mpsc::UnboundedReceiver<Read>>>, most: usize) {
    let mut line = store.line();
    loop {
        let next = async {
            let mut waiting = waiting.lock().await;
            let first = waiting.recv().await;
            (waiting, first)
        };
        let next = match line.release_at() {
            None => Ok(next.await),
            Some(release) => timeout_at(release, next).await,
        };
        let (mut waiting, first) = match next {
            Ok((waiting, Some(first))) => (waiting, first),
            Ok((_, None)) => return,
            Err(_nobody_came) => {
                line.release();
                continue;
            }
        };
        let reads = batch(first, &mut waiting, most).await;
        drop(waiting);
        // A panic ends no more than these reads.
        line = AssertUnwindSafe(answer(line, reads)).catch_unwind().await.unwrap_or_else(|_panic| store.line());
    }
}

/// The first read with those that wait behind it.
async fn batch(first: Read, waiting: &mut mpsc::UnboundedReceiver<Read>, most: usize) -> Vec<Read> {
    // Calls that have come with this one have their turn to say what they read: it makes queries twice as large.
    if most > 1 {
        yield_now().await;
    }
    let mut reads = vec![first];
    while reads.len() < most
        && let Ok(read) = waiting.try_recv()
    {
        reads.push(read);
    }
    reads
}

/// Answers the reads whose callers still wait.
async fn answer(mut line: Line, reads: Vec<Read>) -> Line {
    let mut waiting = HashMap::<_, Vec<_>>::new();
    for Read { organization, id, answer } in reads.into_iter().filter(|read| !read.answer.is_closed()) {
        waiting.entry((organization, id)).or_default().push(answer);
    }
    if waiting.is_empty() {
        return line;
    }
    let ids = waiting.keys().map(|(_, id)| *id).collect();
    match store::in_time(line.profiles(ids)).await {
        Ok(found) => {
            for (key, profile) in found {
                let callers = waiting.remove(&key).unwrap_or_default();
                let profiles = iter::repeat_n(profile.map(Some), callers.len());
                for (caller, profile) in callers.into_iter().zip(profiles) {
                    let _ = caller.send(profile); // a caller may have gone away
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
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_that_wait_together_are_one_batch_of_a_bounded_size() {
        let (sender, mut waiting) = mpsc::unbounded_channel();
        let read = || Read { organization: Uuid::nil(), id: Uuid::nil(), answer: oneshot::channel().0 };
        for _ in 0..11 {
            sender.send(read()).expect("a receiver");
        }
        assert_eq!(batch(read(), &mut waiting, 8).await.len(), 8);
        assert_eq!(batch(read(), &mut waiting, 8).await.len(), 5);
        assert_eq!(batch(read(), &mut waiting, 8).await.len(), 1);
    }
}
