//! The contract, told by tests that drive the real program on a real database: SQLite, or PostgreSQL where
//! `TEST_DATABASE_URL` says where it is.

#![allow(clippy::disallowed_methods, reason = "tests read the clock")]

mod harness;

mod away;
mod cases;
mod check;
mod client;
mod commands;
mod commit;
mod conflict;
mod copy;
mod create;
mod cutoff;
mod database;
mod deadline;
mod drain;
mod erase;
mod erasures;
mod export;
mod export_command;
mod gateway;
mod group;
mod health;
mod history;
mod identifier;
mod import;
mod input;
mod internals;
mod keys;
mod log;
mod message;
mod metrics;
mod organization;
mod overload;
mod patch;
mod personal;
mod policy;
mod pooler;
mod program;
mod query;
mod race;
mod rate;
mod reads;
mod reference;
mod repeat;
mod replace;
mod replicas;
mod retry;
mod stream;
mod structure;
mod support;
mod text;
mod tls;
mod trace;
mod unread;
mod update;
mod upgrade;
mod walk;
mod watch;
mod watch_command;
