//! The write: the one way in which anything about a profile changes.
//!
//! A writing RPC is a value, [`Change`]. `unit` carries it out to its end, when `turns` lets it; `apply` is the order of
//! its steps.

mod apply;
mod turns;
mod unit;

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

pub use self::unit::Writer;

/// A call's permit among those in flight: a write holds it until it has ended, even when its caller has gone.
#[derive(Clone)]
pub struct Permit(#[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

impl From<OwnedSemaphorePermit> for Permit {
    fn from(permit: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(permit))
    }
}
