//! Who was erased. No foreign key: it outlives profiles, and organizations of before a restore.

use sea_orm_migration::{prelude::*, schema};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let erasure = Table::create()
            .table("erasure")
            .col(schema::uuid("profile_id").primary_key())
            .col(schema::uuid("organization_id"))
            .col(schema::timestamp_with_time_zone("erase_time"))
            .col(schema::text("reason_code"))
            .take();
        manager.create_table(erasure).await
    }
}
