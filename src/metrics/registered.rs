//! The names of what is counted, what they mean, and the bounds of histograms.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{Conflicts, Connections, Database, Feed, Label, Queue, Queues, counters, histograms};

/// The upper bounds of waits, in seconds.
const WAITS: [f64; 11] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.025, 0.1, 0.5, 1.0, 2.0];

/// The upper bounds of batches, in items.
const BATCHES: [f64; 6] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];

/// The upper bounds of the age of changes, in seconds.
const DELAYS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

impl Connections {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let about = "Connections that have ended, by why";
        let ends = ["refused", "not_begun", "no_tls", "no_http2", "peer", "age", "drain", "cut"];
        let [refused, not_begun, no_tls, no_http2, peer, age, drain, cut] =
            counters(registry, "connections_ended", about, "end", ends);
        Self { refused, not_begun, no_tls, no_http2, peer, age, drain, cut }
    }
}

impl Queues {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let names = ["reads", "writes", "feed", "snapshots"];
        let lengths = Family::<Label, Gauge>::default();
        registry.register("queue_length", "What waits for a worker", lengths.clone());
        let about = "How long what waited has waited for its worker";
        let waits = histograms(registry, "queue_wait_seconds", about, "queue", names, &WAITS);
        let about = "How many a worker has taken together: a group of writes, a query of many reads";
        let batches = histograms(registry, "queue_batch_size", about, "queue", names, &BATCHES);
        let [reads, writes, feed, snapshots] = std::array::from_fn(|number| Queue {
            length: lengths.get_or_create_owned(&[("queue", names[number])]),
            wait: waits[number].clone(),
            batch: batches[number].clone(),
        });
        Self { reads, writes, feed, snapshots }
    }
}

impl Database {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let about = "How long a read or a write has waited for a connection to the database";
        let [read_wait, write_wait] =
            histograms(registry, "database_wait_seconds", about, "for", ["read", "write"], &WAITS);
        let retries = Counter::default();
        let about = "Statements made again, because their connections were broken";
        registry.register("database_retries", about, retries.clone());
        let unanswered = Gauge::default();
        let about = "Connections that are kept because the database has not answered their last write";
        registry.register("database_connections_unanswered", about, unanswered.clone());
        Self { read_wait, write_wait, unanswered, retries }
    }

    /// Counts a statement that is made again.
    pub fn retry(&self) {
        self.retries.inc();
    }
}

impl Conflicts {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let about = "How often another write was in the way of a write, by what over";
        let [row, statement, lock] = counters(registry, "write_conflicts", about, "over", ["row", "statement", "lock"]);
        Self { row, statement, lock }
    }
}

impl Feed {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let (pending, delay) = (Gauge::default(), Histogram::new(DELAYS));
        let about = "Changes that have no place in the feed yet, of all organizations and replicas";
        registry.register("feed_pending_changes", about, pending.clone());
        let about = "How old changes were when they were sent to a follower";
        registry.register("watch_delay_seconds", about, delay.clone());
        Self { pending, delay }
    }
}
