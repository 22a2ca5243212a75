//! A write that succeeded under a request id, so that a repeat changes nothing (AIP-155).

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "write_request")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub organization_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub rpc: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub request_id: String,
    pub payload_sha256: Vec<u8>,
    /// Unknown for a moment only: until UpdateProfile has found whose e-mail it is.
    pub profile_id: Option<Uuid>,
    pub created_at: DateTimeUtc,
}

/// The key of a claim: the organization, the RPC and the request id.
pub type Key = (Uuid, String, String);

impl Model {
    pub fn key(&self) -> Key {
        (self.organization_id, self.rpc.clone(), self.request_id.clone())
    }
}

impl ActiveModelBehavior for ActiveModel {}
