//! What another system calls a person: a pair that is one person's within the organization.

use std::fmt;

use sea_orm::entity::prelude::*;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, DeriveEntityModel)]
#[sea_orm(table_name = "profile_identifier")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub organization_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub system: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub value: String,
    pub profile_id: Uuid,
}

/// What a system calls a person. In the order of the bytes of the system, then of the value.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier {
    pub system: String,
    pub value: String,
}

impl Identifier {
    /// As one text.
    pub fn text(&self) -> String {
        format!("{}|{}", self.system, self.value)
    }

    /// The key of its row.
    pub fn key(&self, organization: Uuid) -> Key {
        (organization, self.system.clone(), self.value.clone())
    }
}

/// The key of an identifier: the organization, the system and the value.
pub type Key = (Uuid, String, String);

impl Model {
    pub fn key(&self) -> Key {
        (self.organization_id, self.system.clone(), self.value.clone())
    }
}

/// Shows whose row it is and nothing of the person.
impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("profile_identifier").field("profile_id", &self.profile_id).finish_non_exhaustive()
    }
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
