//! The feed of changes. The history of before is not in it: a follower has it by the snapshot.

use sea_orm_migration::{prelude::*, schema};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [feed_pending(), feed(), feed_sequencer()] {
            manager.create_table(table).await?;
        }
        let the_one = Query::insert().into_table("feed_sequencer").columns(["id"]).values_panic([1.into()]).take();
        manager.execute(the_one).await?;
        manager.create_index(walk()).await
    }
}

/// A snapshot walks over an organization's profiles in the order of their ids.
fn walk() -> IndexCreateStatement {
    Index::create().name("profile_organization_id_id").table("profile").col("organization_id").col("id").take()
}

fn feed_pending() -> TableCreateStatement {
    Table::create()
        .table("feed_pending")
        .col(schema::uuid("organization_id"))
        .col(schema::uuid("profile_id"))
        .col(schema::big_integer("revision"))
        .primary_key(Index::create().col("profile_id").col("revision"))
        .take()
}

fn feed() -> TableCreateStatement {
    Table::create()
        .table("feed")
        .col(schema::uuid("organization_id"))
        .col(schema::big_integer("position"))
        .col(schema::uuid("profile_id"))
        .col(schema::big_integer("revision"))
        .primary_key(Index::create().col("organization_id").col("position"))
        .take()
}

/// One row, whose lock makes one sequencer at a time.
fn feed_sequencer() -> TableCreateStatement {
    Table::create().table("feed_sequencer").col(schema::integer("id").primary_key()).take()
}
