//! The log on a terminal: one line for an event, and of a call its outcome first.

use std::{collections::BTreeMap, fmt, io::Write as _};

use chrono::{DateTime, Utc};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::{
    layer::{Context, Layer},
    registry::LookupSpan,
};

use super::queue;
use crate::clock;

/// Writes events as lines for people.
pub struct People {
    lines: NonBlocking,
}

impl People {
    pub const fn new(lines: NonBlocking) -> Self {
        Self { lines }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for People {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(noted) = span.extensions().get::<Fields>() {
                fields.0.extend(noted.0.clone());
            }
        }
        event.record(&mut fields);
        let line = line(clock::now(), *event.metadata().level(), fields);
        let _ = self.lines.clone().write_all(line.as_bytes()); // the queue takes or counts it
    }
}

/// The line that says how many others are lost.
pub fn dropped(number: usize) -> String {
    format!("{} WARN {number} {}", time(clock::now()), queue::DROPPED)
}

/// What is known of an event or a span: the last value of each field.
#[derive(Clone, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

/// The time (UTC), the level unless it is INFO, then what happened, then what is known of it.
fn line(now: DateTime<Utc>, level: Level, Fields(mut fields): Fields) -> String {
    let mut words = vec![time(now)];
    if level != Level::INFO {
        words.push(level.to_string());
    }
    fields.remove("profile_ids"); // they would fill the terminal
    let message = fields.remove("message").unwrap_or_default();
    if let Some(outcome) = fields.remove("code") {
        let method = fields.remove("method").unwrap_or_default();
        if outcome == "Ok" {
            fields.remove("request_id"); // it is for those who look for what failed
        }
        words.push(outcome);
        words.extend(fields.remove("reason"));
        words.push(method.rsplit('/').next().unwrap_or_default().to_owned());
        words.extend(fields.remove("duration_us").map(|duration| shown(&duration)));
    } else {
        words.push(message);
    }
    for (name, id) in [("profile", "profile_id"), ("key", "key_id"), ("request", "request_id")] {
        words.extend(fields.remove(id).map(|id| format!("{name}={id}")));
    }
    words.extend(fields.into_iter().map(|(name, value)| format!("{name}={value}")));
    words.join(" ").replace(char::is_control, " ") + "\n"
}

fn time(now: DateTime<Utc>) -> String {
    now.format("%H:%M:%S%.3fZ").to_string()
}

/// A duration of so many microseconds, in at most 6 characters up to 1,000 s.
fn shown(microseconds: &str) -> String {
    let Ok(microseconds) = microseconds.parse::<u64>() else { return microseconds.to_owned() };
    let tenths = |whole: u64| format!("{}.{}", microseconds / whole, microseconds % whole * 10 / whole);
    match microseconds {
        0..1_000 => format!("{microseconds}us"),
        1_000..10_000 => format!("{}ms", tenths(1_000)),
        10_000..1_000_000 => format!("{}ms", microseconds / 1_000),
        _ => format!("{}s", tenths(1_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown_line(level: Level, fields: &[(&'static str, &str)]) -> String {
        let now = DateTime::from_timestamp_micros(1_795_168_800_123_456).expect("a time");
        line(now, level, Fields(fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()))
    }

    #[test]
    fn the_line_of_a_call_begins_with_its_outcome_and_fits_a_terminal() {
        let call = [
            ("message", "call"),
            ("method", "/profiles.v1.SupportService/ListProfileChanges"),
            ("profile_id", "01a1fe3c-5c7d-7a31-9d8e-3f2a1b0c4d5e"),
            ("key_id", "956a583fb42f4f37"),
            ("request_id", "01a200e6-d0b1-7064-a7d6-27bcc67c8000"),
        ];
        let ok = shown_line(Level::INFO, &[&call[..], &[("code", "Ok"), ("duration_us", "999999")]].concat());
        assert_eq!(
            ok,
            "10:00:00.123Z Ok ListProfileChanges 999ms profile=01a1fe3c-5c7d-7a31-9d8e-3f2a1b0c4d5e key=956a583fb42f4f37\n"
        );
        assert!(ok.len() <= 110);
        let failed = [("code", "NotFound"), ("reason", "PROFILE_NOT_FOUND"), ("duration_us", "1741")];
        assert_eq!(
            shown_line(Level::INFO, &[&call[..], &failed].concat()),
            "10:00:00.123Z NotFound PROFILE_NOT_FOUND ListProfileChanges 1.7ms \
             profile=01a1fe3c-5c7d-7a31-9d8e-3f2a1b0c4d5e key=956a583fb42f4f37 \
             request=01a200e6-d0b1-7064-a7d6-27bcc67c8000\n"
        );
    }

    #[test]
    fn the_line_of_a_list_has_how_many_profiles_were_sent_and_not_which() {
        let list = [("code", "Ok"), ("method", "/x/ListProfiles"), ("profile_ids", "1 2"), ("profiles", "2")];
        assert_eq!(shown_line(Level::INFO, &list), "10:00:00.123Z Ok ListProfiles profiles=2\n");
    }

    #[test]
    fn any_other_line_has_its_message_first_and_is_one_line() {
        let warning = [("message", "it failed"), ("cause", "this\nand \u{1b}[31mthat")];
        assert_eq!(shown_line(Level::WARN, &warning), "10:00:00.123Z WARN it failed cause=this and  [31mthat\n");
        assert_eq!(shown_line(Level::INFO, &[("message", "drained")]), "10:00:00.123Z drained\n");
    }

    #[test]
    fn durations_are_short() {
        let all = ["0", "999", "1000", "9999", "10000", "999999", "1000000", "10049999"].map(shown);
        assert_eq!(all, ["0us", "999us", "1.0ms", "9.9ms", "10ms", "999ms", "1.0s", "10.0s"]);
    }
}
