//! One row of a profile's history, for each revision.

use std::fmt;

use sea_orm::entity::prelude::*;

#[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "profile_change")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub profile_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub revision: i64,
    pub organization_id: Uuid,
    pub changed_at: DateTimeUtc,
    pub rpc: String,
    pub key_id: String,
    pub key_name: String,
    /// Who of the caller's people acted, as the caller says.
    pub actor: Option<String>,
    pub request_id: Option<String>,
    pub reason: Option<String>,
    pub ticket: Option<String>,
    pub case_id: Option<String>,
    pub lock_overridden: bool,
    /// The changed columns, separated by a space: they stay when the values are erased.
    pub fields: String,
    /// A JSON object of the values before, by column.
    pub old_values: Option<String>,
    /// A JSON object of the values after, by column.
    pub new_values: Option<String>,
}

/// Shows which row it is and nothing of the person.
impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("profile_change")
            .field("profile_id", &self.profile_id)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
