//! The messages of the contract, and the traits of its services: what build.rs made of `proto/`.

#![allow(clippy::all, clippy::pedantic, reason = "generated")]

tonic::include_proto!("profiles.v1");

/// The descriptors of the contract and of the error details, with comments and options.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
