//! What other systems call a person, and who of a caller's people made a change.

use sea_orm::DbBackend;
use sea_orm_migration::{prelude::*, schema};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (table, column) in [("profile", "identifiers"), ("profile_change", "actor")] {
            let added = Table::alter().table(table).add_column(schema::text_null(column)).take();
            manager.alter_table(added).await?;
        }
        let postgres = manager.get_database_backend() == DbBackend::Postgres;
        manager.create_table(profile_identifier(postgres)).await?;
        let of_a_profile =
            Index::create().name("profile_identifier_profile_id").table("profile_identifier").col("profile_id").take();
        manager.create_index(of_a_profile).await
    }
}

/// The name of its primary key tells a taken identifier from a taken address: see store/failure.rs.
fn profile_identifier(postgres: bool) -> TableCreateStatement {
    let text = |name| {
        let mut column = schema::text(name);
        if postgres {
            column.extra("COLLATE \"C\""); // as SQLite does by itself
        }
        column
    };
    Table::create()
        .table("profile_identifier")
        .col(schema::uuid("organization_id"))
        .col(text("system"))
        .col(text("value"))
        .col(schema::uuid("profile_id"))
        .primary_key(Index::create().col("organization_id").col("system").col("value"))
        .take()
}
