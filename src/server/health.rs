//! Health: SERVING while the database answers.

use std::{iter, time::Duration};

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{grpc::auth, metrics::METRICS, store::Store};

/// How often the database is asked.
const EVERY: Duration = Duration::from_secs(1);

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What can be asked for: the whole server, and each service by its name.
fn services() -> impl Iterator<Item = &'static str> {
    iter::once("").chain(auth::services())
}

/// A name that is SERVING as long as the program runs: a liveness probe must not ask for the database, whose absence
/// would restart every replica.
const LIVENESS: &str = "liveness";

/// The health of every service.
pub struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// Takes over a reporter, which says SERVING at its birth.
    pub async fn not_serving(reporter: HealthReporter) -> Self {
        let health = Self { reporter };
        health.reporter.set_service_status(LIVENESS, ServingStatus::Serving).await;
        health.set(ServingStatus::NotServing).await;
        health
    }

    /// Asks the database until the token is cancelled, and then ends all watches.
    pub fn watch(self, store: Store, tasks: &TaskTracker, stop: CancellationToken) {
        tasks.spawn(async move {
            stop.run_until_cancelled(self.follow(store)).await;
            self.end().await;
        });
    }

    /// Says what the database says, for ever.
    async fn follow(&self, store: Store) {
        let mut serving = false;
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let answers = matches!(timeout(PATIENCE, store.ping()).await, Ok(Ok(())));
            if answers != serving {
                serving = answers;
                tracing::info!(serving, "health changed");
                self.set(if serving { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
            }
        }
    }

    /// Tells every watcher NOT_SERVING and ends its stream, which would keep its connection from draining.
    async fn end(mut self) {
        self.set(ServingStatus::NotServing).await;
        for service in services().chain([LIVENESS]) {
            self.reporter.clear_service_status(service).await;
        }
    }

    async fn set(&self, status: ServingStatus) {
        METRICS.ready.set((status == ServingStatus::Serving).into());
        for service in services() {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
