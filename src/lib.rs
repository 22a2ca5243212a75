//! A gRPC service that keeps people's profiles, and locks what an ID check was made against.
//!
//! docs/architecture.md tells the way of a request through these modules, which are listed here in that order.

#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;

#[cfg(feature = "client")]
pub mod client;

pub mod cli;
mod server;
pub use server::{Drained, Limits, Server, Tls, TlsClients, TlsExpiry, TlsFiles};

mod grpc;
pub mod pb;

mod read;
pub use read::Batches;
mod write;

mod profile;
mod queue;

mod store;
pub use store::{DatabaseUrl, Store};

mod entity;
pub use entity::personal;
mod migration;

mod error;
mod scope;
mod value;

mod clock;
mod metrics;
mod telemetry;
mod trace;
pub use telemetry::{Log, start as start_logging};
pub use trace::{Settings as TraceSettings, Tracing};
