//! `watch`.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use clap::Args;
use futures_util::StreamExt as _;
use tokio::{task::spawn_blocking, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Failure,
    database::DatabaseArgs,
    organization::{checked_name, named},
    signals::Signals,
    write_lines,
};
use crate::{
    error::{Error, Result},
    grpc::{json, pb, watch::Watch},
    profile::fields::Input,
    read::feed::Feed,
};

/// How many messages are written at once at the most, where they come faster than they are taken.
const LINES: usize = 64;

/// How long the last line may take after a signal.
const LAST_LINE: Duration = Duration::from_secs(1);

/// What to follow.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The organization's name.
    #[arg(long)]
    organization: String,
    /// Begin with now instead of everybody who is there. It says nothing where the token file has a token.
    #[arg(long)]
    skip_existing: bool,
    /// Go on after the token in this file, and keep the token of each line there once the line is out.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Prints messages until a signal, or until nobody reads them any more.
pub async fn run(args: WatchArgs) -> Result<(), Failure> {
    let WatchArgs { organization, skip_existing, token_file, database } = args;
    let mut signals = Signals::new()?;
    let name = checked_name(&organization)?;
    let token = token_file.as_deref().map_or_else(|| Ok(String::new()), read_token)?;
    let end = CancellationToken::new();
    let watching = async {
        let store = database.open().await?;
        let organization = named(&store, &name).await?;
        let skip_existing = skip_existing && token.is_empty();
        let request = pb::WatchProfilesRequest { skip_existing, resume_token: token };
        let input = Input::without_metadata();
        let watch = Watch::begin(Feed::new(&store), organization.id, input, request, end.clone()).await;
        let watch = watch.map_err(|error| unresumed(error, token_file.as_deref()))?;
        copy(watch, token_file).await?;
        store.close().await;
        Ok(())
    };
    let mut watching = pin!(watching);
    tokio::select! {
        ended = &mut watching => return ended,
        () = signals.next() => end.cancel(),
    }
    // The line that is being written is written to its end, unless nobody reads it.
    timeout(LAST_LINE, watching).await.unwrap_or(Ok(()))
}

/// Prints each message and then keeps its token.
async fn copy(watch: Watch, token_file: Option<PathBuf>) -> Result<(), Failure> {
    let mut messages = pin!(watch.messages().ready_chunks(LINES));
    while let Some(chunk) = messages.next().await {
        let (mut lines, mut token, mut failed) = (String::new(), None, None);
        for message in chunk {
            match message {
                Ok(message) => {
                    lines.push_str(&json::line("WatchProfilesResponse", &message)?);
                    lines.push('\n');
                    token = Some(message.resume_token);
                }
                Err(error) => failed = Some(error),
            }
        }
        let file = token_file.clone();
        let written = spawn_blocking(move || write(&lines, token.as_deref(), file.as_deref())).await;
        let written = written.map_err(|_| Failure::failed("writing has panicked"))?;
        match (written?, failed) {
            // Nobody reads it, or a signal ends it.
            (Written::NobodyReads, _) | (Written::Whole, Some(Error::StreamEnded)) => return Ok(()),
            (Written::Whole, Some(error)) => return Err(error.into()),
            (Written::Whole, None) => {}
        }
    }
    Ok(())
}

enum Written {
    Whole,
    NobodyReads,
}

fn write(lines: &str, token: Option<&str>, file: Option<&Path>) -> Result<Written, Failure> {
    let read = write_lines(&mut io::stdout().lock(), lines);
    if !read.map_err(|error| Failure::failed(format!("a line cannot be printed: {error}")))? {
        return Ok(Written::NobodyReads);
    }
    if let (Some(token), Some(file)) = (token, file) {
        keep_token(token, file)
            .map_err(|error| Failure::failed(format!("the token cannot be kept in {}: {error}", file.display())))?;
    }
    Ok(Written::Whole)
}

/// Replaces the file at once: whoever is killed in between finds the token of before.
fn keep_token(token: &str, file: &Path) -> io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let mut new = fs::File::create(&beside)?;
    new.write_all(format!("{token}\n").as_bytes())?;
    new.sync_data()?; // or a file without a token might be what is left after a power cut
    fs::rename(&beside, file)
}

/// The token in the file; none where there is no file yet.
fn read_token(file: &Path) -> Result<String, Failure> {
    match fs::read_to_string(file) {
        Ok(token) => Ok(token.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Failure::failed(format!("the token in {} cannot be read: {error}", file.display()))),
    }
}

/// Why it cannot go on where it was.
fn unresumed(error: Error, file: Option<&Path>) -> Failure {
    let file = file.map(|file| file.display().to_string()).unwrap_or_default();
    match error {
        Error::InvalidResumeToken => Failure::failed(format!("{file} has no token of this organization")),
        Error::ResumeTokenExpired => Failure::failed(format!(
            "the change of the token in {file} is not there any more, such as after a restore: begin without the file"
        )),
        error => error.into(),
    }
}
