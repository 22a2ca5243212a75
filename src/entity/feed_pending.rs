//! Changes of one statement that have no places in the feed yet.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "feed_pending")]
pub struct Model {
    /// Greater than those of all statements that had committed when this one was made.
    #[sea_orm(primary_key)]
    pub id: i64,
    /// Of each change its organization, its profile and its revision: all of them separated by a space.
    pub changes: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
