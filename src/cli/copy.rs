//! `copy`.

use clap::Args;
use secrecy::SecretString;

use super::{
    Failure,
    database::{bring_up_to_date, connect, exists},
    print,
    progress::Progress,
};
use crate::{
    error::Error,
    store::{
        DatabaseUrl, Store,
        copy::{self, Snapshot, Tallies},
        schema::{self, Standing},
    },
};

/// Connections to a PostgreSQL at the most.
const CONNECTIONS: u32 = 2;

/// From where to where.
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// The database to read, as a `--database-url` is written.
    #[arg(long, env = "PROFILE_COPY_FROM", hide_env_values = true, value_name = "URL")]
    from: SecretString,

    /// The database to fill, which must be empty: a file is made where there is none.
    #[arg(long, env = "PROFILE_COPY_TO", hide_env_values = true, value_name = "URL")]
    to: SecretString,
}

/// Copies, reads back what is there then, and looks whether the source has gained something meanwhile.
pub async fn run(args: CopyArgs) -> Result<(), Failure> {
    let [from, to] = [("--from", &args.from), ("--to", &args.to)]
        .map(|(flag, url)| DatabaseUrl::parse(url).map_err(|error| Failure::usage(format!("{flag}: {error}"))));
    let (from, to) = (from?, to?.creating());
    if from.is_same(&to) {
        return Err(Failure::usage("--from and --to are the same database"));
    }
    exists(&from)?;
    let source = connect(&from, CONNECTIONS).await?;
    check_source(&source, &from).await?;
    let target = connect(&to, CONNECTIONS).await?;
    check_target(&target, &to).await?;
    bring_up_to_date(&target, &to).await?;

    let mut snapshot = Snapshot::begin(&source).await?;
    let rows = snapshot.rows().await?;
    let tallies = {
        let mut progress = Progress::begin("copying", "rows", 0, rows);
        let copied = copy::copy(&mut snapshot, &target, |rows| progress.advance(rows)).await;
        match copied {
            Ok(tallies) => tallies,
            Err(error) => return Err(uncopied(error, &target, &to).await),
        }
    };
    drop(snapshot);
    let there = {
        let mut progress = Progress::begin("reading back", "rows", 0, rows);
        Snapshot::begin(&target).await?.tallies(|rows| progress.advance(rows)).await?
    };
    print(&shown(&tallies))?;
    compare(&tallies, &there, &to)?;
    let gained = Snapshot::begin(&source).await?.gained(&tallies).await?;
    source.close().await;
    target.close().await;
    if gained.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{to} has all that was in {from} when this began, and not what was written there since (to {}): stop the service, \
         empty {to} and copy again",
        gained.join(", ")
    )))
}

async fn check_source(store: &Store, url: &DatabaseUrl) -> Result<(), Failure> {
    let todo = match schema::standing(&mut store.read_connection().await?).await? {
        Standing::Current => return Ok(()),
        Standing::Foreign => "is no database of this program",
        Standing::Older => "has an older schema: run `profile-service migrate` on it first",
        Standing::Newer => "has the schema of a newer program: copy it by that one",
    };
    Err(Failure::failed(format!("{url} {todo}")))
}

/// Nothing is changed in a database that is not empty, not even its schema.
async fn check_target(store: &Store, url: &DatabaseUrl) -> Result<(), Failure> {
    let mut connection = store.read_connection().await?;
    if let Some(table) = copy::occupied(&mut connection).await? {
        return Err(Failure::failed(format!("{url} is not empty, see its table {table}: copy into an empty one")));
    }
    if schema::standing(&mut connection).await? == Standing::Newer {
        return Err(Failure::failed(format!("{url} has the schema of a newer program: copy by that one")));
    }
    Ok(())
}

/// Why nothing was copied. Where a commit failed, only the target itself tells.
async fn uncopied(error: Error, target: &Store, to: &DatabaseUrl) -> Failure {
    let occupied = async { copy::occupied(&mut target.read_connection().await?).await };
    let state = match occupied.await {
        Ok(None) => format!("nothing was copied, {to} is still empty"),
        Ok(Some(_)) | Err(_) => format!("{to} may have the copy or not: empty it and copy again"),
    };
    Failure::failed(format!("{state}: {}", Failure::from(error).sentence))
}

/// Fails where something is not there as it was read.
fn compare(read: &Tallies, there: &Tallies, to: &DatabaseUrl) -> Result<(), Failure> {
    let differing: Vec<_> =
        there.iter().filter(|(name, tally)| read.get(*name) != Some(tally)).map(|(name, _)| name.as_str()).collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{to} is no true copy, do not use it: counts or sums differ in {}",
        differing.join(", ")
    )))
}

fn shown(tallies: &Tallies) -> String {
    let lines = tallies.iter().map(|(name, tally)| format!("\n{name}\t{}", tally.rows));
    "TABLE\tROWS".to_owned() + &lines.collect::<String>()
}
