//! The schema's history. A migration that has been released is frozen: a change is a new one.

use sea_orm_migration::prelude::*;

mod m20261122_000001_initial;

/// Brings a database to the schema of this program.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261122_000001_initial::Migration)]
    }
}
