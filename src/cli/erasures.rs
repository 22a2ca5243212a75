//! `erasures export` and `erasures replay`: a restored backup brings erased people back; what was exported erases them again.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, SubsecRound as _, Utc};
use clap::Subcommand;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sea_orm::ActiveEnum as _;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::{BYTE_ORDER_MARK, Failure, author, database::DatabaseArgs, print};
use crate::{
    entity::erasure::{self, ReasonCode},
    error::Error,
    profile::{
        change::{AuditNote, Change, Edit, Erasing, Found, Target, Written},
        policy::Rpc,
    },
    store,
    write::{Permit, Writer},
};

/// How many erasures are read at once.
const PAGE: u64 = 1000;

/// How many erasures are made at once.
const AT_ONCE: usize = 8;

/// The longest line that is read, in bytes: an erasure has some 200.
const LONGEST_LINE: u64 = 4096;

/// How many lines are named that are no erasures.
const NAMED_LINES: usize = 20;

#[derive(Debug, Subcommand)]
pub enum ErasuresCommand {
    /// Print all erasures, one JSON line each, with nothing of the people: keep them apart from the backups.
    Export {
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Erase again whom a restored backup has brought back, before the service starts. It may be repeated.
    Replay {
        /// The lines that `erasures export` has printed.
        file: PathBuf,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        database: DatabaseArgs,
    },
}

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    kind: Kind,
    organization_id: Uuid,
    profile_id: Uuid,
    erase_time: DateTime<Utc>,
    reason_code: ReasonCode,
}

#[derive(Debug, Serialize, Deserialize)]
enum Kind {
    #[serde(rename = "erasure")]
    Erasure,
}

pub async fn run(command: ErasuresCommand) -> Result<(), Failure> {
    match command {
        ErasuresCommand::Export { database } => export(database).await,
        ErasuresCommand::Replay { file, dry_run, database } => replay(&file, dry_run, database).await,
    }
}

async fn export(database: DatabaseArgs) -> Result<(), Failure> {
    let store = database.open().await?;
    let mut above = Uuid::nil();
    loop {
        let page = store::erasure::walk(&store, above, PAGE).await?;
        let Some(last) = page.last() else { break };
        above = last.profile_id;
        let lines: Result<Vec<_>, _> = page.into_iter().map(|row| serde_json::to_string(&Line::from(row))).collect();
        print(&lines.map_err(|error| Failure::failed(error.to_string()))?.join("\n"))?;
    }
    store.close().await;
    Ok(())
}

impl From<erasure::Model> for Line {
    fn from(row: erasure::Model) -> Self {
        let erasure::Model { profile_id, organization_id, erase_time, reason_code } = row;
        Self { kind: Kind::Erasure, organization_id, profile_id, erase_time, reason_code }
    }
}

async fn replay(file: &Path, dry_run: bool, database: DatabaseArgs) -> Result<(), Failure> {
    let lines = read(file)?;
    let number = lines.len();
    let store = database.open().await?;
    let (tasks, permits) = (TaskTracker::new(), Arc::new(Semaphore::new(AT_ONCE)));
    let writer = Writer::new(&store, &Arc::default(), &tasks);
    let erased = stream::iter(lines).map(|line| erase(&writer, &permits, line, dry_run)).buffer_unordered(AT_ONCE);
    let found: Vec<_> = erased.try_collect().await.map_err(|error| {
        Failure::failed(format!("not all were erased, run it again: {}", Failure::from(error).sentence))
    })?;
    drop(writer);
    tasks.close();
    tasks.wait().await;
    store.close().await;
    let count = |what| found.iter().filter(|found| **found == what).count();
    let (now, before, unknown) = (count(Found::Profile), count(Found::Erasure), count(Found::Nothing));
    print(&if dry_run {
        format!(
            "{number} erasures: {now} would be erased, {before} are already, {unknown} not known would be remembered"
        )
    } else {
        format!("{number} erasures: {now} erased, {before} were already, {unknown} not known are remembered")
    })
}

/// Makes an erasure again, and answers what there was to erase.
async fn erase(writer: &Writer, permits: &Arc<Semaphore>, line: Line, dry_run: bool) -> Result<Found, Error> {
    let Line { kind: Kind::Erasure, organization_id, profile_id, erase_time, reason_code } = line;
    let erase_time = erase_time.trunc_subsecs(6); // as the database keeps it; the history has the same
    let change = Change {
        rpc: Rpc::ReplayErasure,
        target: Target::Id(profile_id),
        edit: Edit::Erase(Erasing { reason_code, even_if_locked: true, erase_time: Some(erase_time) }),
        etag: None,
        claim: None,
        validate_only: dry_run,
        audit: AuditNote { reason: Some(reason_code.to_value()), ticket: None },
    };
    let permit = Arc::clone(permits).acquire_owned().await;
    let permit = permit.map_err(|_| Error::Internal("there are no permits".to_owned()))?;
    match writer.write(author(organization_id), Permit::from(permit), change, erase_time).await? {
        Written::Erasure(_, found) => Ok(found),
        Written::Profile(_) | Written::Case(_) => Err(Error::Internal("nobody was erased".to_owned())),
    }
}

/// The erasures in a file, which has nothing else.
fn read(file: &Path) -> Result<Vec<Line>, Failure> {
    let shown = file.display();
    let unreadable = |error: io::Error| Failure::failed(format!("{shown} cannot be read: {error}"));
    let mut reader = BufReader::new(File::open(file).map_err(unreadable)?);
    let (mut lines, mut others, mut number, mut text) = (Vec::new(), Vec::new(), 0_u64, Vec::new());
    while reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut text).map_err(unreadable)? > 0 {
        number += 1;
        let line = if number == 1 { text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text) } else { &text };
        match line.trim_ascii() {
            b"" => {}
            line => match serde_json::from_slice(line) {
                Ok(line) => lines.push(line),
                Err(_) => others.push(number), // its words may be anybody's
            },
        }
        text.clear();
    }
    if !others.is_empty() {
        let named: Vec<_> = others.iter().take(NAMED_LINES).map(u64::to_string).collect();
        let more = if others.len() > NAMED_LINES { ", …" } else { "" };
        let (named, count) = (named.join(", "), others.len());
        return Err(Failure::failed(format!(
            "nothing was erased: {count} lines of {shown} are no erasures (lines {named}{more})"
        )));
    }
    if lines.is_empty() {
        return Err(Failure::failed(format!("{shown} has no erasures")));
    }
    Ok(lines)
}
