//! The schema's history. A migration that has been released is frozen: a change is a new one.

use sea_orm_migration::{MigratorTraitSelf, prelude::*};

mod m20261122_000001_initial;
mod m20261126_000001_sort_name;
mod m20261126_000002_feed;
mod m20261126_000003_feed_pending;
mod m20261126_000004_identifier;
mod m20261126_000005_erasure;
mod m20261126_000006_import;
mod m20261126_000007_rate_disabled;
mod m20261127_000001_fold;

/// The `user_version` of an SQLite file that holds nothing which was deleted or overwritten without `secure_delete`.
pub const COMPACTED: i32 = 1;

/// Brings a database to the schema of this program.
///
/// A newer program may have been here: its migrations are known by their names alone and left as they are, since from
/// 0.2.0 on a program one release older runs on a newer schema.
pub struct Migrator {
    newer: Vec<String>,
}

impl Migrator {
    /// The names of this program's migrations.
    pub fn known() -> Vec<String> {
        Self { newer: Vec::new() }.migrations().iter().map(|migration| migration.name().to_owned()).collect()
    }

    /// For this database, whatever has been there before.
    pub async fn for_database(db: &impl ConnectionTrait) -> Result<Self, DbErr> {
        let ours = Self { newer: Vec::new() };
        let applied = ours.get_migration_models(db).await?.into_iter().map(|applied| applied.version);
        let known = Self::known();
        let newer: Vec<_> = applied.filter(|name| !known.contains(name)).collect();
        if !newer.is_empty() {
            tracing::warn!(migrations = newer.join(","), "the schema is of a newer program");
        }
        Ok(Self { newer })
    }
}

#[async_trait::async_trait]
impl MigratorTraitSelf for Migrator {
    fn migrations(&self) -> Vec<Box<dyn MigrationTrait>> {
        let mut migrations: Vec<Box<dyn MigrationTrait>> = vec![
            Box::new(m20261122_000001_initial::Migration),
            Box::new(m20261126_000001_sort_name::Migration),
            Box::new(m20261126_000002_feed::Migration),
            Box::new(m20261126_000003_feed_pending::Migration),
            Box::new(m20261126_000004_identifier::Migration),
            Box::new(m20261126_000005_erasure::Migration),
            Box::new(m20261126_000006_import::Migration),
            Box::new(m20261126_000007_rate_disabled::Migration),
            Box::new(m20261127_000001_fold::Migration),
        ];
        for name in &self.newer {
            migrations.push(Box::new(Newer(name.clone())));
        }
        migrations
    }
}

/// A migration of a newer program, which has been applied.
struct Newer(String);

impl MigrationName for Newer {
    fn name(&self) -> &str {
        &self.0
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Newer {
    async fn up(&self, _manager: &SchemaManager) -> Result<(), DbErr> {
        Ok(())
    }
}
