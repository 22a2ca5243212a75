//! All tables of the first release.

use sea_orm_migration::{prelude::*, schema};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [organization(), api_key(), profile(), profile_case(), profile_change(), write_request()] {
            manager.create_table(table).await?;
        }
        for index in [
            // The names tell a taken e-mail from a taken phone number: see store/failure.rs.
            unique("profile_email_key", "profile", "email"),
            unique("profile_phone_number_key", "profile", "phone_number"),
            unique("organization_name_key", "organization", "name"),
            index("profile_case_profile_id", "profile_case", "profile_id"),
            index("write_request_created_at", "write_request", "created_at"),
        ] {
            manager.create_index(index).await?;
        }
        Ok(())
    }
}

fn organization() -> TableCreateStatement {
    Table::create()
        .table("organization")
        .col(schema::uuid("id").primary_key())
        .col(schema::text("name"))
        .col(schema::timestamp_with_time_zone("created_at"))
        .take()
}

fn api_key() -> TableCreateStatement {
    Table::create()
        .table("api_key")
        .col(schema::text("id").primary_key())
        .col(schema::uuid("organization_id"))
        .col(schema::text("name"))
        .col(schema::blob("secret_sha256"))
        .col(schema::text("scopes"))
        .col(schema::timestamp_with_time_zone("created_at"))
        .col(schema::timestamp_with_time_zone_null("expires_at"))
        .col(schema::timestamp_with_time_zone_null("revoked_at"))
        .col(schema::timestamp_with_time_zone_null("last_used_at"))
        .foreign_key(ForeignKey::create().from("api_key", "organization_id").to("organization", "id"))
        .take()
}

/// No foreign key to `organization`: it would cost every insert a lookup, and keys alone name organizations.
fn profile() -> TableCreateStatement {
    Table::create()
        .table("profile")
        .col(schema::uuid("id").primary_key())
        .col(schema::uuid("organization_id"))
        .col(schema::big_integer("revision"))
        .col(schema::boolean("locked"))
        .col(schema::text("role"))
        .col(schema::text("first_name"))
        .col(schema::text("last_name"))
        .col(schema::text_null("email"))
        .col(schema::date_null("dob"))
        .col(schema::text_null("gender"))
        .col(schema::text_null("phone_number"))
        .col(schema::text_null("address"))
        .col(schema::text_null("address2"))
        .col(schema::text_null("city"))
        .col(schema::text_null("state"))
        .col(schema::text_null("country"))
        .col(schema::text_null("postal_code"))
        .col(schema::timestamp_with_time_zone("created_at"))
        .col(schema::timestamp_with_time_zone("updated_at"))
        .take()
}

fn profile_case() -> TableCreateStatement {
    Table::create()
        .table("profile_case")
        .col(schema::uuid("organization_id"))
        .col(schema::text("case_id"))
        .col(schema::uuid("profile_id"))
        .col(schema::text("status"))
        .col(schema::timestamp_with_time_zone("status_time"))
        .primary_key(Index::create().col("organization_id").col("case_id"))
        .take()
}

fn profile_change() -> TableCreateStatement {
    Table::create()
        .table("profile_change")
        .col(schema::uuid("profile_id"))
        .col(schema::big_integer("revision"))
        .col(schema::uuid("organization_id"))
        .col(schema::timestamp_with_time_zone("changed_at"))
        .col(schema::text("rpc"))
        .col(schema::text("key_id"))
        .col(schema::text("key_name"))
        .col(schema::text_null("request_id"))
        .col(schema::text_null("reason"))
        .col(schema::text_null("ticket"))
        .col(schema::text_null("case_id"))
        .col(schema::boolean("lock_overridden"))
        .col(schema::text("fields"))
        .col(schema::text_null("old_values"))
        .col(schema::text_null("new_values"))
        .primary_key(Index::create().col("profile_id").col("revision"))
        .take()
}

fn write_request() -> TableCreateStatement {
    Table::create()
        .table("write_request")
        .col(schema::uuid("organization_id"))
        .col(schema::text("rpc"))
        .col(schema::text("request_id"))
        .col(schema::blob("payload_sha256"))
        .col(schema::uuid_null("profile_id"))
        .col(schema::timestamp_with_time_zone("created_at"))
        .primary_key(Index::create().col("organization_id").col("rpc").col("request_id"))
        .take()
}

fn unique(name: &str, table: &'static str, column: &'static str) -> IndexCreateStatement {
    index(name, table, column).unique().take()
}

fn index(name: &str, table: &'static str, column: &'static str) -> IndexCreateStatement {
    Index::create().name(name).table(table).col(column).take()
}
