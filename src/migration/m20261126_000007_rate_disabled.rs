//! How many calls a key may make in a second, and since when an organization is disabled.

use sea_orm_migration::{prelude::*, schema};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let rate = schema::integer_null("calls_per_second");
        manager.alter_table(Table::alter().table("api_key").add_column(rate).take()).await?;
        let disabled = schema::timestamp_with_time_zone_null("disabled_at");
        manager.alter_table(Table::alter().table("organization").add_column(disabled).take()).await
    }
}
