//! A profile. Its `Column` enum is the registry of fields that masks, the policy and the history run over.

use std::fmt;

use sea_orm::{FromQueryResult, entity::prelude::*};
use serde::Serialize;

use crate::value;

// `Eq` and `Serialize` serve the history, which compares and records rows as they serialize.
#[derive(Clone, PartialEq, Eq, Serialize, DeriveEntityModel)]
#[sea_orm(table_name = "profile")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub organization_id: Uuid,
    pub revision: i64,
    pub locked: bool,
    pub role: Role,
    pub first_name: String,
    pub last_name: String,
    pub email: Option<String>,
    pub dob: Option<Date>,
    pub gender: Option<Gender>,
    pub phone_number: Option<String>,
    pub address: Option<String>,
    pub address2: Option<String>,
    pub city: Option<String>,
    pub state: Option<String>,
    pub country: Option<String>,
    pub postal_code: Option<String>,
    /// What other systems call the person, as `profile_identifier` has it: `system|value`, one a line, in their order. Here
    /// too, so that a read is one row.
    pub identifiers: Option<String>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

impl Model {
    /// The name as it is compared. It is stored beside the row and is no part of it: nobody sets, reads or records it.
    pub fn sort_name(&self) -> String {
        value::sort_name(&self.last_name, &self.first_name)
    }
}

/// Who has an e-mail and a phone number.
#[derive(FromQueryResult)]
pub struct Owner {
    pub id: Uuid,
    pub organization_id: Uuid,
    pub email: Option<String>,
    pub phone_number: Option<String>,
}

/// Shows which row it is and nothing of the person.
impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("profile").field("id", &self.id).field("revision", &self.revision).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Gender {
    Male,
    Female,
    Other,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Role {
    #[default]
    User,
    Provider,
    Support,
    Admin,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
