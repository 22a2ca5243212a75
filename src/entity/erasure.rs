//! That a person was erased: so that the id stays gone, and that it can be done again after a restore.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "erasure")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub profile_id: Uuid,
    pub organization_id: Uuid,
    pub erase_time: DateTimeUtc,
    pub reason_code: ReasonCode,
}

/// Why a person was erased, by the names of the contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text")]
pub enum ReasonCode {
    #[default]
    #[sea_orm(string_value = "REASON_CODE_REQUEST_OF_PERSON")]
    #[serde(rename = "REASON_CODE_REQUEST_OF_PERSON")]
    RequestOfPerson,
    #[sea_orm(string_value = "REASON_CODE_RETENTION")]
    #[serde(rename = "REASON_CODE_RETENTION")]
    Retention,
    #[sea_orm(string_value = "REASON_CODE_CREATED_BY_MISTAKE")]
    #[serde(rename = "REASON_CODE_CREATED_BY_MISTAKE")]
    CreatedByMistake,
    #[sea_orm(string_value = "REASON_CODE_LEGAL_ORDER")]
    #[serde(rename = "REASON_CODE_LEGAL_ORDER")]
    LegalOrder,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
