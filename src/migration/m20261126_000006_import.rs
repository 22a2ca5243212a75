//! How far imports have come.

use sea_orm_migration::{prelude::*, schema};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table("import_progress")
            .col(schema::uuid("organization_id"))
            .col(schema::text("file_sha256"))
            .col(schema::text("upsert_by"))
            .col(schema::big_integer("lines"))
            .primary_key(Index::create().col("organization_id").col("file_sha256").col("upsert_by"))
            .take();
        manager.create_table(table).await
    }
}
