//! `compact`.

use super::{Failure, database::DatabaseArgs, print};
use crate::store;

/// Compacts the file of an embedded database.
pub async fn run(database: DatabaseArgs) -> Result<(), Failure> {
    let url = database.url()?;
    let Some(file) = url.file() else {
        return Err(Failure::failed(
            "compact is for an embedded database: PostgreSQL does the same by VACUUM, which autovacuum runs",
        ));
    };
    let store = database.open().await?;
    let (before, after) = store::compact::compact(&store, file).await?;
    store.close().await;
    print(&format!("{}: {before} bytes before, {after} now", file.display()))
}
