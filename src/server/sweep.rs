//! Remembered request ids are forgotten when they are old.

use std::time::Duration;

use chrono::TimeDelta;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock,
    store::{self, Store},
};

/// How old a request id is by this program's clock when it is forgotten. 24 hours are promised: that still holds where it
/// was claimed by a clock an hour behind, and where this one is a day ahead.
const FORGOTTEN: TimeDelta = TimeDelta::hours(50);

/// How often old ones are looked for.
const EVERY: Duration = Duration::from_mins(1);

/// Sweeps until the token is cancelled, in small steps between which other writes have their turn.
pub fn start(store: Store, tasks: &TaskTracker, stop: CancellationToken) {
    tasks.spawn(async move {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            // A step is not cut off in its middle; the stop is looked at between steps.
            while !stop.is_cancelled() {
                match store::request::sweep(&store, clock::now() - FORGOTTEN).await {
                    Ok(true) => tokio::task::yield_now().await,
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(?error, "old request ids could not be swept");
                        break;
                    }
                }
            }
        }
    });
}
