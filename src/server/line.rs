//! The one line that a call leaves in the log.

use std::time::Instant;

use http::HeaderMap;
use tonic::Code;
use tracing::{
    Span,
    field::{Empty, display},
};

use super::calls::{CALLS, OfMethod};
use crate::{
    grpc::auth::{Access, Method},
    trace::{self, CallSpan, Tracing},
};

/// A call's line. It is written when this is dropped: also when the caller has gone away.
pub struct LogLine {
    /// What is noted about the call is noted here.
    pub span: Span,
    /// How the call has ended.
    pub code: Option<Code>,
    /// What was sent on a stream.
    pub sent: Option<Sent>,
    started: Instant,
    counted: &'static OfMethod,
    /// Where it is traced.
    traced: Option<Box<CallSpan>>,
    /// Health and reflection are asked all the time, and are about nobody.
    quiet: bool,
}

/// What was sent on a stream.
#[derive(Default)]
pub struct Sent {
    messages: u64,
    bytes: u64,
}

impl Sent {
    /// Counts whole messages, each in its frame: a flag, four bytes of length, and as many bytes.
    pub fn count(&mut self, mut frames: &[u8]) {
        self.bytes += frames.len() as u64;
        while let Some(([_compressed, length @ ..], rest)) = frames.split_first_chunk::<5>() {
            self.messages += 1;
            frames = rest.get(u32::from_be_bytes(*length) as usize..).unwrap_or_default();
        }
    }
}

impl LogLine {
    /// Begins with a call of this method, by a client whose certificate has this name.
    pub fn start(method: Option<Method>, request_id: &str, client: Option<&str>) -> Self {
        let counted = CALLS.of(method);
        counted.begin();
        let access = method.map(|method| method.access);
        // A path that is no method's is the caller's text: it stays out of the log.
        let method = method.map_or("unknown", |method| method.path);
        let span = tracing::info_span!(
            "call",
            method,
            request_id,
            trace_id = Empty,
            key_id = Empty,
            key_state = Empty,
            client,
            actor = Empty,
            profile_id = Empty,
            profiles = Empty,
            profile_ids = Empty,
            reason = Empty
        );
        let quiet = matches!(access, Some(Access::Health | Access::HealthWatch | Access::Reflection));
        Self { span, code: None, sent: None, started: Instant::now(), counted, traced: None, quiet }
    }

    /// Begins the call's span where it is traced, and notes the id of its trace. Health and reflection are not.
    pub fn trace(&mut self, tracing: Option<&Tracing>, method: Option<Method>, headers: &HeaderMap) {
        if self.quiet {
            return;
        }
        let method = method.map_or("_OTHER", |method| method.path.trim_start_matches('/'));
        let (traced, id) = trace::begin(tracing, method, headers);
        if let Some(id) = id {
            self.span.record("trace_id", display(id));
        }
        self.traced = traced;
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        self.counted.end(self.code, duration);
        if let Some(traced) = self.traced.take() {
            traced.end(self.code.unwrap_or(Code::Cancelled));
        }
        let code = self.code.map_or_else(|| "caller went away".to_owned(), |code| format!("{code:?}"));
        let duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let (messages, bytes) = self.sent.as_ref().map(|Sent { messages, bytes }| (*messages, *bytes)).unzip();
        self.span.in_scope(|| {
            if self.quiet {
                tracing::debug!(code, duration_us, messages, bytes, "call");
            } else {
                tracing::info!(code, duration_us, messages, bytes, "call");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_messages_are_counted_with_their_frames() {
        let mut sent = Sent::default();
        for frames in [&[0, 0, 0, 0, 0][..], &[0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 1, 9], &[]] {
            sent.count(frames);
        }
        assert_eq!((sent.messages, sent.bytes), (3, 18));
    }
}
