//! `backup`.

use std::{fs, path::PathBuf};

use clap::Args;

use super::{
    Failure,
    database::{DatabaseArgs, connect, exists},
    new_file,
};

/// What to back up, and where to.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// A new file for its owner alone.
    file: PathBuf,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Makes a file with all that is in the database at one moment, whoever writes to it meanwhile. Its schema stays as it is,
/// so that it can be made before an upgrade.
pub async fn run(args: BackupArgs) -> Result<(), Failure> {
    let BackupArgs { file, database } = args;
    let (url, shown) = (database.url()?, file.display());
    if url.file().is_none() {
        return Err(Failure::failed(format!(
            "{url} is backed up by PostgreSQL's own program: pg_dump --format=custom --file={shown} --dbname={url} \
             --username=USER"
        )));
    }
    exists(&url)?;
    let store = connect(&url, database.connections()).await?;
    let new = new_file(&file)?;
    let made = store.back_up(&file).await.map_err(|error| Failure::from(error).sentence);
    let made = made.and_then(|()| new.sync_all().map_err(|error| error.to_string()));
    store.close().await;
    made.map_err(|cause| {
        let _ = fs::remove_file(&file); // half a backup is none
        Failure::failed(format!("{url} was not backed up to {shown}: {cause}"))
    })
}
