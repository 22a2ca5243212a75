//! Logs: people read them on a terminal, machines read JSON. Nothing of a person is in them.

use std::{
    fmt::Display,
    io::{IsTerminal as _, stderr},
    panic,
};

use tracing::{Span, field::display};
use tracing_subscriber::EnvFilter;

/// Starts logging to standard error at the level of `RUST_LOG` (info by default).
pub fn start() {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sea_orm_migration=warn,sqlx=warn"));
    if stderr().is_terminal() {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_target(false).init();
    } else {
        let json = json_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_target(false);
        json.flatten_event(true).with_span_list(false).init();
    }
    // A panic's message may hold a value of a profile: the place must do.
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panic");
    }));
}

/// Puts the profile that a call is about into the call's log line.
pub fn note_profile(id: impl Display) {
    Span::current().record("profile_id", display(id));
}

/// Puts the key that made a call into the call's log line.
pub fn note_key(id: impl Display) {
    Span::current().record("key_id", display(id));
}

/// Puts why a key is no longer valid into the call's log line.
pub fn note_key_state(state: &'static str) {
    Span::current().record("key_state", state);
}

/// Puts the reason why a call failed into the call's log line.
pub fn note_reason(reason: impl Display) {
    Span::current().record("reason", display(reason));
}
