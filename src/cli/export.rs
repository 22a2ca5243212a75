//! `export`.

use std::{
    io::{self, IsTerminal as _, Write},
    path::PathBuf,
};

use clap::Args;
use uuid::Uuid;

use super::{
    Failure,
    database::DatabaseArgs,
    new_file,
    organization::{checked_name, named},
    progress::Progress,
    write_lines,
};
use crate::{
    error::Result,
    grpc::{json, pb},
    store::{self, Store},
};

/// How many profiles are read and written at once.
const PAGE: u64 = 500;

/// What to export.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The organization's name.
    #[arg(long)]
    organization: String,
    /// A new file for its owner alone, instead of standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Writes a line for each profile, until all are written or nobody reads them.
pub async fn run(args: ExportArgs) -> Result<(), Failure> {
    let ExportArgs { organization, output, database } = args;
    let name = checked_name(&organization)?;
    let store = database.open().await?;
    let organization = named(&store, &name).await?.id;
    let total = store::profile::count(&store, organization).await?;
    // A bar between the lines on a terminal would spoil both.
    let beside = output.is_some() || !io::stdout().is_terminal();
    let progress = beside.then(|| Progress::begin("exporting", "profiles", 0, total));
    let file = output.as_deref().map(new_file).transpose()?;
    let mut export = Export { store: &store, organization, progress, written: 0, up_to: Uuid::nil() };
    let done = match file {
        Some(mut file) => {
            export.write(&mut file).await.and_then(|()| file.sync_all().map_err(|error| error.to_string()))
        }
        None => export.write(&mut io::stdout()).await,
    };
    let Export { written, up_to, .. } = export;
    store.close().await;
    done.map_err(|cause| {
        Failure::failed(format!(
            "the export is not complete: {written} of {total} profiles are in it, those with ids above {up_to} are \
             missing: {cause}"
        ))
    })
}

struct Export<'a> {
    store: &'a Store,
    organization: Uuid,
    progress: Option<Progress>,
    written: u64,
    /// The last profile that was written: they are written in the order of their ids.
    up_to: Uuid,
}

impl Export<'_> {
    /// Writes page after page, as each is read.
    async fn write(&mut self, out: &mut impl Write) -> Result<(), String> {
        let sentence = |error| Failure::from(error).sentence;
        loop {
            let page = store::profile::walk(self.store, self.organization, self.up_to, PAGE).await.map_err(sentence)?;
            let (Some(last), number) = (page.last().map(|profile| profile.id), page.len() as u64) else {
                return Ok(());
            };
            let lines = page.into_iter().map(|profile| Ok(json::line("Profile", &pb::Profile::from(profile))? + "\n"));
            let lines = lines.collect::<Result<String>>().map_err(sentence)?;
            if !write_lines(out, &lines).map_err(|error| error.to_string())? {
                return Ok(());
            }
            (self.written, self.up_to) = (self.written + number, last);
            self.progress.iter_mut().for_each(|progress| progress.advance(number));
        }
    }
}
