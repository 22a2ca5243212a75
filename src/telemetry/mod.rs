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

#[cfg(test)]
mod tests {
    use std::{any::Any, process::Command, thread};

    use super::*;

    /// Set for the program of its own in which `a_panic_logs_its_place_and_none_of_its_words` has threads panic.
    const PANICS: &str = "PROFILE_TEST_PANICS";

    /// A text of each kind that a panic must not tell.
    const WORDS: [&str; 6] =
        ["Hopper", "ada@example.com", "+15551234567", "1815-12-10", "ps_0123456789abcdef_secret", "resume-token"];

    /// What each panic has for its message, or beside one.
    fn payloads() -> Vec<Box<dyn Any + Send>> {
        let texts = WORDS.iter().flat_map(|word| -> [Box<dyn Any + Send>; 2] {
            [Box::new(*word), Box::new(format!("the value is {word}"))]
        });
        texts.chain([Box::new(WORDS.map(str::to_owned)) as Box<dyn Any + Send>]).collect()
    }

    /// Panics with each of them: in threads, and in tasks and blocking tasks of a runtime, as whatever waits does.
    fn panic_everywhere() {
        let log = start();
        for payload in payloads() {
            thread::spawn(|| panic::panic_any(payload)).join().expect_err("a panic");
        }
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        for (one, other) in payloads().into_iter().zip(payloads()) {
            let task = runtime.spawn(async { panic::panic_any(one) });
            let blocking = runtime.spawn_blocking(|| panic::panic_any(other));
            runtime.block_on(async { (task.await.expect_err("a panic"), blocking.await.expect_err("a panic")) });
        }
        panic::catch_unwind(|| WORDS[0].parse::<u32>().expect(WORDS[1])).expect_err("a panic");
        drop(log);
    }

    #[test]
    fn a_panic_logs_its_place_and_none_of_its_words() {
        if env::var_os(PANICS).is_some() {
            return panic_everywhere();
        }
        let mut program = Command::new(env::current_exe().expect("this program"));
        program.args(["--exact", "telemetry::tests::a_panic_logs_its_place_and_none_of_its_words", "--nocapture"]);
        let output = program.env(PANICS, "1").env("RUST_LOG", "trace").output().expect("a program");
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("text")).concat();
        assert!(output.status.success(), "{text}");
        let places = text.lines().filter(|line| line.contains("\"panic\"") && line.contains("src/telemetry/mod.rs:"));
        assert_eq!(places.count(), 3 * payloads().len() + 1, "{text}");
        for word in WORDS {
            assert!(!text.contains(word), "{word} in {text}");
        }
    }
}
