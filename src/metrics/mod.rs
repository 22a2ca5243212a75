//! What is counted of the program, for Prometheus. Metrics are the process's, as its log is.
//!
//! Handles are kept, so that to count is an addition and looks nothing up. What has a state anyway, such as a pool, is read
//! when it is asked for. No label holds a key, a person or any other text of a caller.

mod process;
mod reading;

use std::{fmt, sync::LazyLock};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};

pub use self::reading::{Reading, count};

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
}

/// Where a presented key's row was found.
pub struct Keys {
    pub remembered: Counter,
    pub looked_up: Counter,
}

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::default();
        process::register(&mut registry);
        let own = registry.sub_registry_with_prefix(PREFIX);
        let build = [("version", env!("CARGO_PKG_VERSION")), ("commit", env!("PROFILE_COMMIT"))];
        own.register("build", "The program that runs", Info::new(build));
        let ready = Gauge::default();
        own.register("ready", "Whether the database answers and no drain has begun", ready.clone());
        let errors = Family::default();
        own.register("errors", "Calls that failed, by the reason of their ErrorInfo", errors.clone());
        let about = "People who were asked for and are not there, those of a batch each";
        let [by_id, by_contact] = counters(own, "not_found", about, "by", ["id", "contact"]);
        let limits = ["calls", "streams", "streams_of_a_key", "streams_without_key"];
        let about = "Calls that were refused because a limit was reached";
        let [calls, streams, streams_of_a_key, streams_without_key] = counters(own, "shed", about, "limit", limits);
        let about = "Keys that were presented, by where they were found";
        let [remembered, looked_up] = counters(own, "key_lookups", about, "in", ["cache", "database"]);
        Self {
            registry,
            ready,
            errors,
            not_found: NotFound { by_id, by_contact },
            shed: Shed { calls, streams, streams_of_a_key, streams_without_key },
            keys: Keys { remembered, looked_up },
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
