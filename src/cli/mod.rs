//! The command line: parse, do, print, exit code. Results go to standard output, logs to standard error.

mod backup;
mod check;
mod compact;
mod copy;
mod database;
mod duration;
mod erasures;
mod export;
mod health;
pub(crate) mod import;
mod key;
mod organization;
mod output;
mod progress;
mod serve;
mod signals;
mod tls;
mod watch;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use clap::{CommandFactory as _, Parser, Subcommand, error::ContextValue};
use sea_orm::DatabaseTransaction;
use tokio::{task::spawn_blocking, time::timeout};
use uuid::Uuid;

use self::database::DatabaseArgs;
use crate::{
    error::Error,
    profile::change::Author,
    store::commit,
    telemetry::{self, Log},
};

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("PROFILE_COMMIT"), ")");

/// What a text file may begin with.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Who writes by a command, in the history.
const COMMAND_LINE: &str = "command-line";

/// How long a transaction waits for its result to be printed.
const PRINTING: Duration = Duration::from_secs(2);

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
    /// Follow an organization's profiles: one JSON line for each message of WatchProfiles, on standard output.
    Watch(watch::WatchArgs),
    /// Write an organization's profiles as JSON lines, in the order of their ids, each as it is read.
    Export(export::ExportArgs),
    /// Store the profiles of a file of JSON lines. A line that is refused fails alone, and is kept beside the file.
    Import(import::ImportArgs),
    /// Back up an embedded database into a new file, also while it is served. PostgreSQL has `pg_dump`.
    Backup(backup::BackupArgs),
    /// Copy everything from one database into an empty one, SQLite or PostgreSQL, and read it back.
    Copy(copy::CopyArgs),
    /// Erasures, for the time after a restore: keep them apart from the backups, and make them again.
    #[command(subcommand)]
    Erasures(erasures::ErasuresCommand),
    /// Write the file of an embedded database anew, without what was deleted or overwritten. It may be served meanwhile.
    Compact(DatabaseArgs),
    /// Look at what serving would need with these settings: one line for each thing, exit code 1 where one of them failed.
    Check(check::CheckArgs),
    /// Ask a running service whether it is SERVING, as containers do: exit code 1 where it is not.
    Health(health::HealthArgs),
    /// Bring the database's schema up to date; serving does so too.
    Migrate(DatabaseArgs),
    /// Print what completes this program's command lines in a shell: for bash, `source <(profile-service completions bash)`.
    Completions { shell: clap_complete::Shell },
}

/// Why the program ends without success: one sentence, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
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
    let Cli { serve, command } = Cli::try_parse().unwrap_or_else(|error| without_secrets(error).exit());
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
            Command::Watch(args) => watch::run(args).await,
            Command::Export(args) => export::run(args).await,
            Command::Import(args) => import::run(args).await,
            Command::Backup(args) => backup::run(args).await,
            Command::Copy(args) => copy::run(args).await,
            Command::Erasures(command) => erasures::run(command).await,
            Command::Check(args) => check::run(args).await,
            Command::Health(args) => health::run(args).await,
            Command::Compact(args) => compact::run(args).await,
            Command::Migrate(args) => database::migrate(args).await,
            Command::Completions { shell } => completions(shell),
        }
    });
    runtime.shutdown_background(); // a second signal waits for nothing
    end(&log, done)
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let (mut command, mut script) = (Cli::command(), Vec::new());
    let name = command.get_name().to_owned();
    if shell != clap_complete::Shell::Bash {
        clap_complete::generate(shell, &mut command, name, &mut script);
        return print(&String::from_utf8_lossy(&script));
    }
    // With a hyphen in the program's name its script for bash finds no subcommand (clap_complete 4.6.11).
    let without = name.replace('-', "_");
    clap_complete::generate(shell, &mut command, &without, &mut script);
    print(&String::from_utf8_lossy(&script).replace(&format!(" {without}\n"), &format!(" {name}\n")))
}

/// The error without words of the command line that may hold a secret: URLs and keys, which are given in wrong places.
fn without_secrets(mut error: clap::Error) -> clap::Error {
    let secret = |word: &str| word.contains("://") || word.contains("ps_");
    let given = error.context().filter(|(_, value)| secret(&value.to_string()));
    for kind in given.map(|(kind, _)| kind).collect::<Vec<_>>() {
        error.insert(kind, ContextValue::String("(not shown)".to_owned()));
    }
    error
}

/// Who writes by a command in this organization.
fn author(organization_id: Uuid) -> Author {
    Author { organization_id, key_id: COMMAND_LINE.to_owned(), key_name: COMMAND_LINE.to_owned(), actor: None }
}

/// Prints a result. Where that fails, the command has failed.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    printed.map_err(|error| Failure::failed(format!("the result cannot be printed: {error}")))
}

/// Writes lines, and answers whether somebody reads them.
fn write_lines(out: &mut impl Write, lines: &str) -> io::Result<bool> {
    match out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a file that nobody but its owner reads. One that is there stays as it is.
fn new_file(path: &Path) -> Result<File, Failure> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::failed(format!("{} is there already", path.display())),
        _ => Failure::failed(format!("cannot make {}: {error}", path.display())),
    })
}

/// Commits once the result is printed: what nobody has seen is not stored. Nobody waits long for a transaction that
/// waits for a pipe.
async fn print_and_commit(tx: DatabaseTransaction, text: String) -> Result<(), Failure> {
    let printing = timeout(PRINTING, spawn_blocking(move || print(&text))).await;
    let late = || Failure::failed(format!("the result was not printed within {} s", PRINTING.as_secs()));
    printing.ok().and_then(Result::ok).unwrap_or_else(|| Err(late()))?;
    commit(tx).await.map_err(|error| {
        Failure::failed(format!("what was printed may not be stored: {}", Failure::from(error).sentence))
    })
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
