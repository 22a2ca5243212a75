//! How far the import of a file has come, so that it goes on there.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "import_progress")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub organization_id: Uuid,
    /// The SHA-256 of the file, in hexadecimal.
    #[sea_orm(primary_key, auto_increment = false)]
    pub file_sha256: String,
    /// By what a line finds its profile, such as `email`; empty where each line creates one.
    #[sea_orm(primary_key, auto_increment = false)]
    pub upsert_by: String,
    /// How many lines of the file are imported, or have failed.
    pub lines: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
