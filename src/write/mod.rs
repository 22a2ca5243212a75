//! The write: the one way in which anything about a profile changes.
//!
//! A writing RPC is a value, [`Change`]. Changes wait in a queue; workers take those that wait together, load what they
//! need, decide each, and save them at once: see `attempt`.

mod attempt;
pub mod batch;
mod load;
pub mod sequencer;

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU8, Ordering::SeqCst},
    },
    time::{Duration, Instant as StdInstant},
};

use chrono::{DateTime, Utc};
use prometheus_client::metrics::counter::Counter;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, oneshot},
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::{
    error::{Error, Result},
    metrics::METRICS,
    profile::{
        change::{Author, Change, Edit, Written},
        group::target_profile,
    },
    queue::{Item, Lane, ProfileKey, Queue, Sender},
    store::Store,
    telemetry,
    trace::Wait,
};

/// How long a write keeps trying when other writes are in its way.
const CONFLICT_TIMEOUT: Duration = Duration::from_secs(2);

/// A call's permit among those in flight. A write that waits does not hold it: a caller who goes away takes it along. One
/// that is being carried out does, until it has ended.
#[derive(Clone)]
pub struct Permit(Arc<OwnedSemaphorePermit>);

impl From<OwnedSemaphorePermit> for Permit {
    fn from(permit: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(permit))
    }
}

/// Makes writes.
pub struct Writer {
    queue: Sender<Pending>,
    /// How long a write may take.
    timeout: Duration,
    /// The lane of changes whose profile has to be locked first.
    locked: Lane,
}

impl Writer {
    /// A writer with its workers, which end with it. What they have begun is tracked by `tasks`, and `saved` is told of
    /// each change that they have saved.
    pub fn new(store: &Store, saved: &Arc<Notify>, tasks: &TaskTracker) -> Self {
        let (sender, queue) = Queue::new(&METRICS.queues.writes);
        let workers = store.writers();
        let locked = if workers.locked == 0 { Lane::Groups } else { Lane::Locked };
        for (lane, number) in [(Lane::Groups, workers.groups), (Lane::Locked, workers.locked)] {
            for _ in 0..number {
                let worker = attempt::Worker::new(store.clone(), Arc::clone(&queue), lane, Arc::clone(saved));
                tokio::spawn(worker.work(tasks.clone()));
            }
        }
        Self { queue: sender, timeout: store.write_timeout(), locked }
    }

    /// Makes the change, or nothing of it, and answers what it leaves.
    pub async fn write(&self, author: Author, permit: Permit, change: Change, now: DateTime<Utc>) -> Result<Written> {
        let (answer, answered) = oneshot::channel();
        let state = Arc::new(SendState::default());
        let pending = Pending {
            lane: match &change.edit {
                Edit::Set { .. } | Edit::Remove(_) => Lane::Groups,
                // A report that changes no profile is seen by no revision; an erasure empties a whole history.
                Edit::Case(_) | Edit::Erase(_) => self.locked,
            },
            profile: target_profile(&change),
            author,
            change,
            now,
            since: Instant::now(),
            queued: StdInstant::now(),
            wait: Wait::begin(),
            permit: Arc::downgrade(&permit.0),
            state: Arc::clone(&state),
            answer,
        };
        if self.queue.push(pending).is_err() {
            return Err(blocked());
        }
        match timeout(self.timeout, answered).await {
            Ok(Ok(Answer { profile_id, result })) => {
                profile_id.into_iter().for_each(telemetry::note_profile);
                result
            }
            Ok(Err(_panicked)) => Err(match state.give_up("a write panicked") {
                Error::OutcomeUnknown(cause) => Error::OutcomeUnknown(cause),
                _ => Error::Internal("a write panicked".to_owned()),
            }),
            Err(_late) => Err(state.give_up("the write was not made in time")),
        }
    }
}

/// Why a change does not wait for its profile: somebody else has locked it.
fn blocked() -> Error {
    METRICS.conflicts.row.inc();
    Error::TransactionConflict { cause: "the profile is locked by other writes".to_owned(), retryable: false }
}

/// A change that waits for a worker.
struct Pending {
    author: Author,
    change: Change,
    now: DateTime<Utc>,
    /// The profile that it is about, as far as that is known.
    profile: Option<Uuid>,
    lane: Lane,
    since: Instant,
    /// When it began to wait for a worker.
    queued: StdInstant,
    /// Where its call is traced.
    wait: Option<Wait>,
    permit: Weak<OwnedSemaphorePermit>,
    state: Arc<SendState>,
    answer: oneshot::Sender<Answer>,
}

/// What the caller of a write is told, and the profile that it was about.
struct Answer {
    profile_id: Option<Uuid>,
    result: Result<Written>,
}

impl Item for Pending {
    fn organization(&self) -> Uuid {
        self.author.organization_id
    }

    fn profile(&self) -> Option<ProfileKey> {
        self.profile.map(|profile| (self.author.organization_id, profile))
    }

    fn lane(&self) -> Lane {
        self.lane
    }

    fn since(&self) -> StdInstant {
        self.queued
    }

    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }
}

impl Pending {
    /// Tells the caller, who may have gone.
    fn answer(self, profile_id: Option<Uuid>, result: Result<Written>) {
        let _ = self.answer.send(Answer { profile_id, result });
    }

    /// Whether other writes have been in its way for too long.
    fn is_overdue(&self) -> bool {
        self.since.elapsed() >= CONFLICT_TIMEOUT
    }
}

/// Whether a write has been sent: its caller may give up before, and not after.
#[derive(Default)]
struct SendState {
    state: AtomicU8,
    /// Whether other writes were in its way.
    conflicted: AtomicBool,
}

impl SendState {
    const WAITING: u8 = 0;
    const SENT: u8 = 1;
    const GIVEN_UP: u8 = 2;

    /// Whether the write may be sent: its caller has not given up.
    fn send(&self) -> bool {
        self.state.compare_exchange(Self::WAITING, Self::SENT, SeqCst, SeqCst).is_ok()
    }

    /// The write was not saved, and waits again.
    fn wait(&self) {
        let _ = self.state.compare_exchange(Self::SENT, Self::WAITING, SeqCst, SeqCst);
    }

    /// As `wait`, because another write was in its way.
    fn wait_for_others(&self, conflicts: &Counter) {
        self.conflict(conflicts);
        self.wait();
    }

    /// Another write was in the way, as is counted here.
    fn conflict(&self, conflicts: &Counter) {
        conflicts.inc();
        self.conflicted.store(true, SeqCst);
    }

    /// What the caller is told: that nothing is written, or that nobody knows.
    fn give_up(&self, cause: &str) -> Error {
        let cause = cause.to_owned();
        match self.state.compare_exchange(Self::WAITING, Self::GIVEN_UP, SeqCst, SeqCst) {
            Ok(_) if self.conflicted.load(SeqCst) => Error::TransactionConflict { cause, retryable: false },
            Ok(_) => Error::DatabaseUnavailable(cause),
            Err(_) => Error::OutcomeUnknown(cause),
        }
    }
}
