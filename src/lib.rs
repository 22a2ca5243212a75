//! A gRPC service that keeps people's profiles, and locks what an ID check was made against.
//!
//! docs/architecture.md tells the way of a request through these modules, which are listed here in that order.

pub mod cli;
mod server;

mod grpc;

mod read;
mod write;

mod keys;
mod policy;
mod value;

mod error;
mod store;

mod entity;
mod migration;

mod edge;
mod telemetry;
