//! One write from its turn to its end: a caller that goes away cannot drop a transaction in its middle.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, RetryableWithContext as _};
use chrono::{DateTime, Utc};
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::{
    Permit,
    apply::apply,
    turns::{Turn, Turns},
};
use crate::{
    error::{Error, Result},
    profile::change::{Author, Change, Written},
    store::{self, Store},
};

/// How long a write keeps trying when other writes are in its way.
const PATIENCE: Duration = Duration::from_secs(2);

/// How much longer than its caller waits a write may hold its connection: PostgreSQL has ended whatever it was by then,
/// unless the connection is dead.
const GRACE: Duration = Duration::from_millis(3500);

/// Makes writes.
pub struct Writer {
    store: Store,
    tasks: TaskTracker,
    /// One for each write that may be in the database at once; the others wait here, where a caller can still go away.
    turns: Arc<Turns>,
}

impl Writer {
    pub fn new(store: Store, tasks: TaskTracker) -> Self {
        let turns = Turns::new(store.writers());
        Self { store, tasks, turns }
    }

    /// Makes the change, or nothing of it, and answers what it leaves.
    pub async fn write(&self, author: Author, permit: Permit, change: Change, now: DateTime<Utc>) -> Result<Written> {
        let fate = Arc::new(Fate::default());
        let done = timeout(self.store.patience(), self.unit(author, permit, change, now, Arc::clone(&fate))).await;
        done.unwrap_or_else(|_late| Err(fate.give_up()))
    }

    /// Waits for a turn and carries the change out.
    async fn unit(
        &self,
        author: Author,
        permit: Permit,
        change: Change,
        now: DateTime<Utc>,
        fate: Arc<Fate>,
    ) -> Result<Written> {
        let turn = self.turns.take().await;
        let store = self.store.clone();
        let longest = store.patience() + GRACE;
        let unit = async move {
            let _permit = permit;
            let retries = ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(2))
                .with_max_delay(Duration::from_millis(100))
                .with_jitter()
                .without_max_times();
            let started = Instant::now();
            let (_turn, done) = (|mut turn| async {
                let done = attempt(&store, &mut turn, &author, &change, now, &fate).await;
                (turn, done)
            })
            .retry(retries)
            .context(turn)
            .when(|error| {
                matches!(error, Error::TransactionConflict { retryable: true, .. }) && started.elapsed() < PATIENCE
            })
            .await;
            done
        };
        let unit = self.tasks.track_future(timeout(longest, unit)).in_current_span();
        let done = Finishing(Some(unit.boxed())).await;
        done.unwrap_or_else(|_stuck| Err(Error::OutcomeUnknown("the connection is stuck".to_owned())))
    }
}

/// A future that comes to its end in any case: what is left of it where its caller goes away is done in a task of its
/// own. To give every write a task costs more.
struct Finishing<T: Send + 'static>(Option<BoxFuture<'static, T>>);

impl<T: Send + 'static> Future for Finishing<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Taken out, so that nothing is left of one that panics.
        let mut rest = self.0.take().expect("a future is not asked again once it has ended");
        let polled = rest.poll_unpin(context);
        self.0 = polled.is_pending().then_some(rest);
        polled
    }
}

impl<T: Send + 'static> Drop for Finishing<T> {
    fn drop(&mut self) {
        if let Some(rest) = self.0.take() {
            tokio::spawn(rest);
        }
    }
}

/// What becomes of a write whose database is slow: its caller may give up until it commits, and not after.
#[derive(Default)]
struct Fate {
    state: AtomicU8,
}

impl Fate {
    const OPEN: u8 = 0;
    const COMMITTING: u8 = 1;
    const GIVEN_UP: u8 = 2;

    /// Whether the write may commit. It may do so again where a commit gave way to other writes.
    fn commit(&self) -> bool {
        self.leave_open_for(Self::COMMITTING) == Self::COMMITTING
    }

    /// What the caller is told: that nothing is written, or that nobody knows.
    fn give_up(&self) -> Error {
        if self.leave_open_for(Self::GIVEN_UP) == Self::GIVEN_UP {
            Error::DatabaseUnavailable("the write was not made in time".to_owned())
        } else {
            Error::OutcomeUnknown("the commit was not answered in time".to_owned())
        }
    }

    /// The state after an attempt to leave `OPEN` for another.
    fn leave_open_for(&self, state: u8) -> u8 {
        match self.state.compare_exchange(Self::OPEN, state, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => state,
            Err(decided) => decided,
        }
    }
}

/// One transaction from begin to its end.
async fn attempt(
    store: &Store,
    turn: &mut Turn,
    author: &Author,
    change: &Change,
    now: DateTime<Utc>,
    fate: &Fate,
) -> Result<Written> {
    let (tx, since) = match turn.begun.take() {
        Some(begun) => begun,
        None => (store.begin().await?, Instant::now()),
    };
    match apply(&tx, author, change, now).await {
        Ok(written) if change.validate_only => {
            tx.rollback().await?;
            Ok(written)
        }
        Ok(written) if fate.commit() => {
            if turn.is_wanted() && since.elapsed() < store::KEPT {
                turn.begun = store::commit_and_begin(tx).await?.map(|begun| (begun, since));
            } else {
                store::commit(tx).await?;
            }
            Ok(written)
        }
        Ok(_) => {
            tx.rollback().await?;
            Err(Error::DatabaseUnavailable("the write came too late".to_owned()))
        }
        Err(error) => {
            // Where this fails too, the connection is gone, and the transaction with it: the first error says more.
            let _ = tx.rollback().await;
            Err(error)
        }
    }
}
