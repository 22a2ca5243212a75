//! What lists of profiles by name need: the folded name of each, its indexes, and the secret that seals page tokens.

use sea_orm::{DbBackend, Statement, Value};
use sea_orm_migration::{prelude::*, schema};
use uuid::Uuid;

use crate::value::sort_name;

/// How many rows are filled in at once: two parameters each, of which SQLite takes 32,766.
const STEP: u64 = 5000;

/// After how many rows a line of the log says how far it is.
const PROGRESS: u64 = 50_000;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let postgres = db.get_database_backend() == DbBackend::Postgres;
        let bytewise = if postgres { "COLLATE \"C\"" } else { "" }; // as SQLite does by itself
        // The default is for a program of before, which does not know the column.
        let column = format!("ALTER TABLE profile ADD COLUMN sort_name TEXT {bytewise} NOT NULL DEFAULT ''");
        db.execute_unprepared(&column).await?;
        fill(db, None).await?;
        for columns in ["sort_name", "dob, sort_name"] {
            let name = columns.replace(", ", "_");
            let index = format!("CREATE INDEX profile_{name} ON profile (organization_id, {columns}, id)");
            db.execute_unprepared(&index).await?;
        }
        if postgres {
            // Until the database has looked at the new column by itself, its plans would be guesses.
            db.execute_unprepared("ANALYZE profile").await?;
        }
        let secret =
            Table::create().table("secret").col(schema::text("name").primary_key()).col(schema::blob("value")).take();
        manager.create_table(secret).await?;
        let values: [Value; 2] = ["page_token".into(), rand::random::<[u8; 32]>().to_vec().into()];
        let insert = "INSERT INTO secret (name, value) VALUES ($1, $2)";
        db.execute_raw(Statement::from_sql_and_values(db.get_database_backend(), insert, values)).await?;
        Ok(())
    }
}

/// Folds the names of all profiles, or of those for which this holds, in the order of their ids.
pub(super) async fn fill(db: &SchemaManagerConnection<'_>, which: Option<&str>) -> Result<(), DbErr> {
    let backend = db.get_database_backend();
    let holds = which.unwrap_or("true");
    // Of some profiles the table is not locked, and others go on renaming people.
    let lock = if which.is_some() && backend == DbBackend::Postgres { " FOR UPDATE" } else { "" };
    let next =
        format!("SELECT id, last_name, first_name FROM profile WHERE id > $1 AND {holds} ORDER BY id LIMIT $2{lock}");
    let (mut after, mut rows) = (Uuid::nil(), 0);
    loop {
        let values: [Value; 2] = [after.into(), STEP.into()];
        let found = db.query_all_raw(Statement::from_sql_and_values(backend, &next, values)).await?;
        let mut names: Vec<Value> = Vec::with_capacity(2 * found.len());
        for row in &found {
            after = row.try_get("", "id")?;
            let (last, first): (String, String) = (row.try_get("", "last_name")?, row.try_get("", "first_name")?);
            names.extend([after.into(), sort_name(&last, &first).into()]);
        }
        if found.is_empty() {
            return Ok(());
        }
        let pairs: Vec<_> = (1..=names.len()).step_by(2).map(|n| format!("(${n}, ${})", n + 1)).collect();
        let update = format!(
            "WITH n (id, sort_name) AS (VALUES {}) UPDATE profile SET sort_name = n.sort_name FROM n \
             WHERE profile.id = n.id",
            pairs.join(", ")
        );
        db.execute_raw(Statement::from_sql_and_values(backend, update, names)).await?;
        rows += found.len() as u64;
        if rows % PROGRESS == 0 {
            tracing::info!(rows, "folding names");
        }
    }
}
