//! A case about a profile, as the case system last reported it.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "profile_case")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub organization_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub case_id: String,
    pub profile_id: Uuid,
    pub status: Status,
    pub status_time: DateTimeUtc,
}

/// The key of a case: the organization and the id that its case system gave it.
pub type Key = (Uuid, String);

impl Model {
    pub fn key(&self) -> Key {
        (self.organization_id, self.case_id.clone())
    }
}

/// How a case stands, in the order of the contract's numbers, which breaks ties between reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    #[default]
    Open,
    Assigned,
    InProgress,
    Approved,
    Rejected,
    NoDecision,
    Cancelled,
}

impl ActiveModelBehavior for ActiveModel {}
