//! Profiles by id and by identifier. Reads of a kind that wait at the same moment are answered by one query, which is most
//! of what they cost.
//!
//! A query begins after every read that it answers has come, and nothing is kept: no answer is ever stale.

use std::{collections::HashMap, iter, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use futures_util::FutureExt as _;
use tokio::{sync::oneshot, time::timeout};
use uuid::Uuid;

use crate::{
    entity::profile::Model,
    error::{Error, Result},
    metrics::METRICS,
    queue::{Item, Lane, Queue, Sender, Taken},
    store::{self, KEPT, PinnedConnection, Store, profile::Name},
    trace::Wait,
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
    name: Name,
    since: Instant,
    answer: oneshot::Sender<Result<Option<Model>>>,
    /// Where its call is traced.
    wait: Option<Wait>,
}

impl Item for Read {
    fn organization(&self) -> Uuid {
        self.organization
    }

    fn since(&self) -> Instant {
        self.since
    }

    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }
}

/// Reads profiles. Ends with the last of its clones.
#[derive(Clone)]
pub struct Profiles {
    queue: Arc<Sender<Read>>,
}

impl Profiles {
    pub fn new(store: &Store, batches: Batches) -> Self {
        let (sender, queue) = Queue::new(&METRICS.queues.reads);
        for _ in 0..batches.queries {
            tokio::spawn(work(store.clone(), Arc::clone(&queue), batches.profiles));
        }
        Self { queue: Arc::new(sender) }
    }

    /// The organization's profile with this name.
    pub async fn find(&self, organization: Uuid, name: Name) -> Result<Option<Model>> {
        let panicked = || Error::Internal("a query of many profiles panicked".to_owned());
        let (answer, answered) = oneshot::channel();
        let read = Read { organization, name, since: Instant::now(), answer, wait: Wait::begin() };
        self.queue.push(read).map_err(|_| panicked())?;
        store::in_time(async { answered.await.map_err(|_| panicked())? }).await
    }
}

/// Makes one query after the other of the reads that wait, as long as anybody may read. A connection is kept while there
/// is work.
async fn work(store: Store, queue: Arc<Queue<Read>>, most: usize) {
    let mut kept = None;
    loop {
        let next = queue.take(Lane::Groups, most);
        let taken = match kept {
            None => next.await,
            Some(_) => match timeout(KEPT, next).await {
                Ok(taken) => taken,
                Err(_nobody_came) => {
                    kept = None;
                    continue;
                }
            },
        };
        let Some(Taken { items, held: _ }) = taken else { return };
        // A panic ends no more than these reads.
        let answered = AssertUnwindSafe(answer(&store, kept.take(), items)).catch_unwind().await;
        kept = answered.unwrap_or(None).filter(|kept| !(store.is_wanted() || kept.is_due()));
    }
}

/// Answers the reads whose callers still wait.
async fn answer(store: &Store, kept: Option<PinnedConnection>, reads: Vec<Read>) -> Option<PinnedConnection> {
    let mut waiting = HashMap::<_, Vec<_>>::new();
    for Read { organization, name, since: _, answer, wait } in reads.into_iter().filter(|read| !read.is_abandoned()) {
        wait.iter().for_each(Wait::end);
        waiting.entry((organization, name)).or_default().push(answer);
    }
    if waiting.is_empty() {
        return kept;
    }
    let names: Vec<_> = waiting.keys().cloned().collect();
    match store::in_time(read(store, kept, &names)).await {
        Ok((connection, found)) => {
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
            Some(connection)
        }
        Err(error) => {
            for caller in waiting.into_values().flatten() {
                let _ = caller.send(Err(error.clone()));
            }
            None
        }
    }
}

type Found = Vec<((Uuid, Name), Result<Model>)>;

/// Reads profiles from a connection that works: a kept one may have broken since.
async fn read(
    store: &Store,
    mut kept: Option<PinnedConnection>,
    names: &[(Uuid, Name)],
) -> Result<(PinnedConnection, Found)> {
    loop {
        let mut connection = match kept.take() {
            Some(kept) => kept,
            None => store.read_connection().await?,
        };
        match store::profile::read(&mut connection, names).await {
            Ok(found) => return Ok((connection, found)),
            Err(_) if connection.is_broken() => METRICS.database.retry(),
            Err(error) => return Err(error),
        }
    }
}
