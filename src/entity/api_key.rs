//! An API key: its public lookup id and the hash of its secret, never the secret.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "api_key")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub organization_id: Uuid,
    pub name: String,
    pub secret_sha256: Vec<u8>,
    /// The scopes' names, separated by a space.
    pub scopes: String,
    pub created_at: DateTimeUtc,
    pub expires_at: Option<DateTimeUtc>,
    pub revoked_at: Option<DateTimeUtc>,
    pub last_used_at: Option<DateTimeUtc>,
    /// No bound where there is none.
    pub calls_per_second: Option<i32>,
}

impl ActiveModelBehavior for ActiveModel {}
