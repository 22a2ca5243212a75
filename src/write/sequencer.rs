//! Gives the changes that were saved their places in the feed.
//!
//! Every program does so for whatever it finds, so that a change of one that was killed is not left behind; the lock of a
//! row makes one of them work at a time.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    error::{Error, Result},
    metrics::METRICS,
    read::feed::Heads,
    store::{
        Store,
        feed::{self, Step},
    },
};

/// How long after a step the next one begins at the soonest: many changes share a transaction, and SQLite's other writes
/// have their turn.
const SPACING: Duration = Duration::from_millis(50);

/// How often changes are looked for that this program has not saved.
const LOOK_EVERY: Duration = Duration::from_millis(400);

/// How often the changes are counted that have no place yet.
const COUNT_EVERY: Duration = Duration::from_secs(2);

/// How long a step may take.
const LONGEST_STEP: Duration = Duration::from_secs(3);

/// Sequences until the token is cancelled. `saved` says that a change was saved here.
pub fn start(store: Store, heads: Heads, saved: Arc<Notify>, tasks: &TaskTracker, stop: CancellationToken) {
    tasks.spawn(async move {
        let (mut failing, mut counted) = (false, None::<Instant>);
        while let Some(told) = stop.run_until_cancelled(is_told(&saved)).await {
            let stepped = AssertUnwindSafe(step(&store, told, &saved, &heads)).catch_unwind().await;
            match stepped.unwrap_or_else(|_| Err(Error::Internal("a step of the feed panicked".to_owned()))) {
                Ok(()) => failing = false,
                Err(error) if failing => tracing::debug!(?error, "changes still cannot be put into the feed"),
                Err(error) => {
                    failing = true;
                    tracing::warn!(?error, "changes cannot be put into the feed");
                }
            }
            if counted.is_none_or(|counted| counted.elapsed() >= COUNT_EVERY) {
                counted = Some(Instant::now());
                match feed::pending(&store).await {
                    Ok(number) => {
                        METRICS.feed.pending.set(number);
                    }
                    Err(error) => tracing::debug!(?error, "the changes that wait for the feed cannot be counted"),
                }
            }
            let _ = stop.run_until_cancelled(sleep(SPACING)).await;
        }
    });
}

/// Waits until there may be something to do: whether this program has saved a change.
async fn is_told(saved: &Notify) -> bool {
    timeout(LOOK_EVERY, saved.notified()).await.is_ok()
}

async fn step(store: &Store, told: bool, saved: &Notify, heads: &Heads) -> Result<()> {
    if !told && !feed::is_pending(store).await? {
        return Ok(());
    }
    let late = |_| Error::DatabaseUnavailable("a step of the feed was not made in time".to_owned());
    match timeout(LONGEST_STEP, feed::sequence(store)).await.map_err(late)?? {
        Step::Moved { heads: reached, full } => {
            heads.set(&reached);
            if full {
                saved.notify_one();
            }
        }
        // It may have looked before the change was there.
        Step::Busy => saved.notify_one(),
    }
    Ok(())
}
