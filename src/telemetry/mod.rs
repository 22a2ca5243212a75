//! Logs: people read them on a terminal, machines read JSON. Nothing of a person is in them.

mod people;
mod queue;

use std::{
    env,
    fmt::Display,
    io::{IsTerminal as _, stderr},
    panic,
    sync::OnceLock,
};

use tracing::{Span, field::display};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

pub use self::queue::Log;
use self::{people::People, queue::Lost};

/// What is logged where `RUST_LOG` says nothing.
const DEFAULT_FILTER: &str = "info,sea_orm_migration=warn,sqlx=warn,sqlx_core::pool=off";

/// It would warn of a parameter of the database URL that it does not know, with the value: a password's, perhaps.
const NO_PARAMETERS: &str = "sqlx_postgres::options::parse=error";

/// Starts logging to standard error at the level of `RUST_LOG` (info by default). The log must be kept until the
/// program ends.
#[must_use]
pub fn start() -> Log {
    let wanted = env::var(EnvFilter::DEFAULT_ENV).ok();
    let wanted = wanted.and_then(|wanted| EnvFilter::try_new(format!("{wanted},{NO_PARAMETERS}")).ok());
    let filter = wanted.unwrap_or_else(|| EnvFilter::new(format!("{DEFAULT_FILTER},{NO_PARAMETERS}")));
    let for_people = stderr().is_terminal();
    let log = Log::start(stderr(), if for_people { people::dropped } else { dropped });
    LOST.get_or_init(|| log.lost());
    if for_people {
        tracing_subscriber::registry().with(filter).with(People::new(log.lines())).init();
    } else {
        let json = json_subscriber::fmt().with_env_filter(filter).with_writer(log.lines()).with_target(false);
        json.log_internal_errors(false).flatten_event(true).with_span_list(false).init();
    }
    // A panic's message may hold a value of a profile: the place must do.
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panic");
    }));
    log
}

/// The lines that the log has lost.
static LOST: OnceLock<Lost> = OnceLock::new();

/// How many lines of the log were lost, if there is one.
pub fn lost_lines() -> Option<usize> {
    LOST.get().map(Lost::number)
}

/// The line, as JSON, that says how many others are lost.
fn dropped(number: usize) -> String {
    let timestamp = crate::clock::now();
    serde_json::json!({ "level": "WARN", "timestamp": timestamp, "dropped": number, "message": queue::DROPPED })
        .to_string()
}

/// Puts the profile that a call is about into the call's log line.
pub fn note_profile(id: impl Display) {
    Span::current().record("profile_id", display(id));
}

/// How many profiles a line names at the most.
const NAMED_PROFILES: usize = 200;

/// The profiles that a call sends: they and their number come into the call's log line when this is dropped.
pub struct SentProfiles {
    span: Span,
    named: Vec<String>,
    number: u64,
}

impl SentProfiles {
    /// Of the call that this is a part of.
    pub fn of_this_call() -> Self {
        Self { span: Span::current(), named: Vec::new(), number: 0 }
    }

    /// Notes a profile. One that is sent again counts again, and is named once.
    pub fn note(&mut self, id: &str) {
        self.number += 1;
        if self.named.len() < NAMED_PROFILES && !self.named.iter().any(|named| named == id) {
            self.named.push(id.to_owned());
        }
    }
}

impl Drop for SentProfiles {
    fn drop(&mut self) {
        self.span.record("profiles", self.number);
        self.span.record("profile_ids", self.named.join(" "));
    }
}

/// Puts the profiles that a call sends, and their number, into the call's log line.
pub fn note_profiles<'a>(ids: impl Iterator<Item = &'a str>) {
    let mut sent = SentProfiles::of_this_call();
    ids.for_each(|id| sent.note(id));
}

/// Puts the key that made a call into the call's log line.
pub fn note_key(id: impl Display) {
    Span::current().record("key_id", display(id));
}

/// Puts who of the caller's people acts into the call's log line.
pub fn note_actor(actor: impl Display) {
    Span::current().record("actor", display(actor));
}

/// Puts why a key is no longer valid into the call's log line.
pub fn note_key_state(state: &'static str) {
    Span::current().record("key_state", state);
}

/// Puts the reason why a call failed into the call's log line.
pub fn note_reason(reason: impl Display) {
    Span::current().record("reason", display(reason));
}
