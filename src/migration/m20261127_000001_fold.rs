//! Names of before 0.2.0 that have characters which nobody sees are folded without them. The names stay as they are.

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;

use super::m20261126_000001_sort_name::fill;

/// What is left out of a folded name since then.
const LEFT_OUT: &str = "\u{ad}\u{61c}\u{200b}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\
    \u{2060}\u{2066}\u{2067}\u{2068}\u{2069}\u{feff}";

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        // Only these rows are locked: programs of before serve meanwhile.
        let which = match db.get_database_backend() {
            DbBackend::Postgres => format!("(last_name || first_name) ~ '[{LEFT_OUT}]'"),
            _ => format!("(last_name || first_name) GLOB '*[{LEFT_OUT}]*'"),
        };
        fill(db, Some(&which)).await
    }
}
