//! Who was erased. No foreign key: it outlives profiles, and organizations of before a restore.

use sea_orm::DbBackend;
use sea_orm_migration::{prelude::*, schema};

use super::COMPACTED;

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
        manager.create_table(erasure).await?;
        let db = manager.get_connection();
        if db.get_database_backend() == DbBackend::Sqlite {
            // A file that has never had anybody has nothing to be compacted.
            let anybody = Query::select().column("id").from("profile").limit(1).take();
            if db.query_one(&anybody).await?.is_none() {
                db.execute_unprepared(&format!("PRAGMA user_version = {COMPACTED}")).await?;
            }
        }
        Ok(())
    }
}
