//! The one place that reads the clock and makes ids; everything below takes them as arguments.

#![allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]

use chrono::{DateTime, SubsecRound as _, Utc};
use uuid::Uuid;

/// The time, in whole microseconds: what PostgreSQL keeps, so that an answer equals what was stored.
pub fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// A new UUIDv7 (RFC 9562), which sorts by time.
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}
