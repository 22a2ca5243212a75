//! The command line: parse, do, print, exit code. Results go to standard output, logs to standard error.

mod database;
mod key;
mod organization;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::database::DatabaseArgs;
use crate::{
    error::Error,
    telemetry::{self, Log},
};

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("PROFILE_COMMIT"), ")");

/// Keeps people's profiles, over gRPC. Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "profile-service", version = VERSION, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    serve: serve::ServeArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API until SIGTERM or Ctrl-C.
    Serve(serve::ServeArgs),
    /// Organizations: the tenants that own profiles and keys.
    #[command(subcommand)]
    Organization(organization::OrganizationCommand),
    /// API keys.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Bring the database's schema up to date; serving does so too.
    Migrate(DatabaseArgs),
}

/// Why the program ends without success: one sentence, and the exit code.
#[derive(Debug)]
struct Failure {
    sentence: String,
    code: u8,
}

impl Failure {
    /// The command cannot be understood: exit code 2, as for a bad flag.
    fn usage(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), code: 2 }
    }

    /// The command could not be carried out: exit code 1.
    fn failed(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), code: 1 }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::failed(error.cause().map_or_else(|| error.to_string(), str::to_owned))
    }
}

/// Runs the program with the arguments and the environment of the process.
///
/// The exit code is 0 after success, 1 where something failed, 2 where the command line was wrong.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { serve, command } = Cli::parse();
    let log = telemetry::start();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return end(&log, Err(Failure::failed(format!("cannot start threads: {error}")))),
    };
    let done = runtime.block_on(async {
        match command.unwrap_or(Command::Serve(serve)) {
            Command::Serve(args) => serve::run(args).await,
            Command::Organization(command) => organization::run(command).await,
            Command::Key(command) => key::run(command).await,
            Command::Migrate(args) => database::migrate(args).await,
        }
    });
    runtime.shutdown_background(); // a second signal waits for nothing
    end(&log, done)
}

fn end(log: &Log, done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { sentence, code }) => {
            log.say(&format!("profile-service: {sentence}"));
            ExitCode::from(code)
        }
    }
}
