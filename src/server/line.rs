//! The one line that a call leaves in the log.

use std::time::Instant;

use tonic::Code;
use tracing::{Span, field::Empty};

use crate::grpc::auth::Access;

/// A call's line. It is written when this is dropped: also when the caller has gone away.
pub struct LogLine {
    /// What is noted about the call is noted here.
    pub span: Span,
    /// How the call has ended.
    pub code: Option<Code>,
    started: Instant,
    /// Health and reflection are asked all the time, and are about nobody.
    quiet: bool,
}

impl LogLine {
    /// Begins with a call of this path.
    pub fn start(access: Option<Access>, path: &str, request_id: &str) -> Self {
        // A path that is no method's is the caller's text: it stays out of the log.
        let method = if access.is_some() { path } else { "unknown" };
        let span = tracing::info_span!(
            "call",
            method,
            request_id,
            key_id = Empty,
            key_state = Empty,
            profile_id = Empty,
            profiles = Empty,
            profile_ids = Empty,
            reason = Empty
        );
        let quiet = matches!(access, Some(Access::Health | Access::HealthWatch | Access::Reflection));
        Self { span, code: None, started: Instant::now(), quiet }
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let code = self.code.map_or_else(|| "caller went away".to_owned(), |code| format!("{code:?}"));
        let duration_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.span.in_scope(|| {
            if self.quiet {
                tracing::debug!(code, duration_us, "call");
            } else {
                tracing::info!(code, duration_us, "call");
            }
        });
    }
}
