//! What is counted of the program, for Prometheus. Metrics are the process's, as its log is.
//!
//! Handles are kept, so that to count is an addition and looks nothing up. What has a state anyway, such as a pool, is read
//! when it is asked for. No label holds a key, a person or any other text of a caller.

mod process;
mod reading;
mod registered;

use std::{fmt, sync::LazyLock, time::Instant};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

pub use self::reading::{Reading, count};
use crate::telemetry;

/// What the names of the service's own metrics begin with.
pub const PREFIX: &str = "profile_service";

/// A label and its value.
type Label = [(&'static str, &'static str); 1];

/// The metrics of the process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// The handles of the service's own metrics.
pub struct Metrics {
    registry: Registry,
    /// Whether the service is ready: the database answers, and no drain has begun.
    pub ready: Gauge,
    errors: Family<Label, Counter>,
    pub not_found: NotFound,
    pub shed: Shed,
    pub keys: Keys,
    pub connections: Connections,
    pub queues: Queues,
    pub database: Database,
    pub conflicts: Conflicts,
    pub feed: Feed,
    pub spans: Spans,
}

/// People who were asked for and are not there.
pub struct NotFound {
    pub by_id: Counter,
    /// By an e-mail address, a phone number or an identifier.
    pub by_contact: Counter,
}

/// What was refused because there was too much at once, by the limit.
pub struct Shed {
    pub calls: Counter,
    pub streams: Counter,
    pub streams_of_a_key: Counter,
    pub streams_without_key: Counter,
    /// Writes that waited for too long.
    pub write_wait: Counter,
}

/// Where a presented key's row was found.
pub struct Keys {
    pub remembered: Counter,
    pub looked_up: Counter,
}

/// Connections of peers that have ended, by why.
pub struct Connections {
    /// There were too many: it was closed at once.
    pub refused: Counter,
    /// It did not begin in time, or ended before it had.
    pub not_begun: Counter,
    /// Its handshake failed.
    pub no_tls: Counter,
    /// It spoke something else than HTTP/2.
    pub no_http2: Counter,
    /// By its peer, or by what that did wrong.
    pub peer: Counter,
    /// At its age.
    pub age: Counter,
    pub drain: Counter,
    /// Its peer let too much wait.
    pub cut: Counter,
}

/// The queues of the program.
pub struct Queues {
    pub reads: Queue,
    pub writes: Queue,
    pub feed: Queue,
    pub snapshots: Queue,
}

/// What is counted of a queue.
pub struct Queue {
    /// What waits now.
    pub length: Gauge,
    /// How long each item has waited for its worker.
    pub wait: Histogram,
    /// How many items a worker has taken together.
    pub batch: Histogram,
}

/// What is counted of the way to the database.
pub struct Database {
    /// How long reads and writes have waited for a connection.
    pub read_wait: Histogram,
    pub write_wait: Histogram,
    /// Connections that are kept because their last write has not been answered.
    pub unanswered: Gauge,
    /// Statements made again, because their connections were broken.
    retries: Counter,
}

/// How often another write was in the way of a write, which is tried again unless it has waited for too long.
pub struct Conflicts {
    /// The other one has changed or locked the row.
    pub row: Counter,
    /// The statement or the transaction failed as a whole: a unique index, a deadlock.
    pub statement: Counter,
    /// The lock of the row, or the one writer of SQLite, was not to be had.
    pub lock: Counter,
}

/// What is counted of the feed.
pub struct Feed {
    /// Changes of all organizations that have no place in the feed yet.
    pub pending: Gauge,
    /// How old changes were when they were sent to a follower.
    pub delay: Histogram,
}

/// How long something waits, observed when this is dropped.
pub struct Wait {
    waits: &'static Histogram,
    since: Instant,
}

impl Wait {
    pub fn begin(waits: &'static Histogram) -> Self {
        Self { waits, since: Instant::now() }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.waits.observe(self.since.elapsed().as_secs_f64());
    }
}

/// Spans that have ended, by what became of them.
pub struct Spans {
    /// The collector has taken them.
    pub exported: Counter,
    /// Too many waited, or the collector has not taken them.
    pub dropped: Counter,
}

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::default();
        process::register(&mut registry);
        let own = registry.sub_registry_with_prefix(PREFIX);
        let build = Family::<[(&str, &str); 2], Gauge>::default();
        own.register("build_info", "The program that runs: always 1", build.clone());
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION")), ("commit", env!("PROFILE_COMMIT"))]).set(1);
        let ready = Gauge::default();
        own.register("ready", "Whether the database answers and no drain has begun", ready.clone());
        let errors = Family::default();
        own.register("errors", "Calls that failed, by the reason of their ErrorInfo", errors.clone());
        let about = "People who were asked for and are not there, those of a batch each";
        let [by_id, by_contact] = counters(own, "not_found", about, "by", ["id", "contact"]);
        let limits = ["calls", "streams", "streams_of_a_key", "streams_without_key", "write_wait"];
        let about = "Calls that were refused because a limit was reached";
        let [calls, streams, streams_of_a_key, streams_without_key, write_wait] =
            counters(own, "shed", about, "limit", limits);
        let about = "Keys that were presented, by where they were found";
        let [remembered, looked_up] = counters(own, "key_lookups", about, "in", ["cache", "database"]);
        let dropped = Reading::counter(|| telemetry::lost_lines().and_then(count));
        own.register("log_lines_dropped", "Lines of the log that nobody read in time", dropped);
        let about = "Spans of traces, by what became of them";
        let [exported, dropped] = counters(own, "spans", about, "outcome", ["exported", "dropped"]);
        Self {
            connections: Connections::register(own),
            queues: Queues::register(own),
            database: Database::register(own),
            conflicts: Conflicts::register(own),
            feed: Feed::register(own),
            registry,
            ready,
            errors,
            not_found: NotFound { by_id, by_contact },
            shed: Shed { calls, streams, streams_of_a_key, streams_without_key, write_wait },
            keys: Keys { remembered, looked_up },
            spans: Spans { exported, dropped },
        }
    }

    /// Tells of these reasons also before a call has failed for them: the first time would show no increase.
    pub fn expect(&self, reasons: &[&'static str]) {
        for reason in reasons {
            drop(self.errors.get_or_create(&[("reason", reason)]));
        }
    }

    /// Counts a call that failed for this reason.
    pub fn failed(&self, reason: &'static str) {
        self.errors.get_or_create(&[("reason", reason)]).inc();
    }
}

/// All metrics in the text form of OpenMetrics 1.0, those of the process first.
pub fn exposition<'a>(others: impl IntoIterator<Item = &'a Registry>) -> Result<String, fmt::Error> {
    let mut text = String::new();
    text::encode_registry(&mut text, &METRICS.registry)?;
    others.into_iter().try_for_each(|registry| text::encode_registry(&mut text, registry))?;
    text::encode_eof(&mut text)?;
    Ok(text)
}

/// A counter for each of these values of a label.
fn counters<const N: usize>(
    registry: &mut Registry,
    name: &str,
    about: &str,
    label: &'static str,
    values: [&'static str; N],
) -> [Counter; N] {
    let family = Family::<Label, Counter>::default();
    registry.register(name, about, family.clone());
    values.map(|value| family.get_or_create_owned(&[(label, value)]))
}

/// A histogram with these upper bounds for each of these values of a label.
fn histograms<const N: usize>(
    registry: &mut Registry,
    name: &str,
    about: &str,
    label: &'static str,
    values: [&'static str; N],
    bounds: &'static [f64],
) -> [Histogram; N] {
    let family = Family::<Label, Histogram, _>::new_with_constructor(|| Histogram::new(bounds.iter().copied()));
    registry.register(name, about, family.clone());
    values.map(|value| family.get_or_create_owned(&[(label, value)]))
}
