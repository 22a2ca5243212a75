//! Who may change what, as pure functions over every column and every writing RPC.

use sea_orm::{EnumIter, Iterable};

use crate::entity::{
    profile::{Column, Role},
    profile_case::{self, Status},
};

/// When a column of a profile may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Editable {
    /// Never by anyone: the service keeps it, and it is no part of a change.
    Never,
    /// By its own RPC alone, and the history has it.
    ByItsRpc,
    /// By a write that names it, until a case is taken up.
    UntilCase,
    /// By a write that names it.
    Always,
}

/// When a column may change. Exhaustive: a new column does not compile until someone has decided.
pub const fn editable(column: Column) -> Editable {
    match column {
        Column::Id | Column::OrganizationId | Column::Revision | Column::CreatedAt | Column::UpdatedAt => {
            Editable::Never
        }
        Column::Locked | Column::Role | Column::Identifiers => Editable::ByItsRpc,
        Column::FirstName | Column::LastName | Column::Dob | Column::Gender => Editable::UntilCase,
        Column::Email
        | Column::PhoneNumber
        | Column::Address
        | Column::Address2
        | Column::City
        | Column::State
        | Column::Country
        | Column::PostalCode => Editable::Always,
    }
}

/// The columns that a write may name, in the order of the contract.
pub fn mutable() -> impl Iterator<Item = Column> {
    Column::iter().filter(|column| matches!(editable(*column), Editable::UntilCase | Editable::Always))
}

/// The columns that lock with a case.
pub fn lockable() -> impl Iterator<Item = Column> {
    Column::iter().filter(|column| editable(*column) == Editable::UntilCase)
}

/// The RPCs that write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter)]
pub enum Rpc {
    CreateProfile,
    ReplaceProfile,
    PatchProfile,
    UpdateProfile,
    ReportCaseStatus,
    CorrectProfile,
    SetProfileRole,
    AddIdentifier,
    RemoveIdentifier,
    EraseProfile,
    /// An erasure that is made again on the command line, after a restore.
    ReplayErasure,
}

impl Rpc {
    /// The RPC's name in the history and among remembered request ids.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateProfile => "ProfileService/CreateProfile",
            Self::ReplaceProfile => "ProfileService/ReplaceProfile",
            Self::PatchProfile => "ProfileService/PatchProfile",
            Self::UpdateProfile => "ProfileService/UpdateProfile",
            Self::ReportCaseStatus => "CaseService/ReportCaseStatus",
            Self::CorrectProfile => "SupportService/CorrectProfile",
            Self::SetProfileRole => "SupportService/SetProfileRole",
            Self::AddIdentifier => "ProfileIdentifierService/AddIdentifier",
            Self::RemoveIdentifier => "ProfileIdentifierService/RemoveIdentifier",
            Self::EraseProfile => "SupportService/EraseProfile",
            Self::ReplayErasure => "erasures replay",
        }
    }

    /// Whether the RPC may write to a profile with this role: UpdateProfile is for users alone.
    pub const fn may_write_to(self, role: Role) -> bool {
        match self {
            Self::UpdateProfile => matches!(role, Role::User),
            Self::CreateProfile
            | Self::ReplaceProfile
            | Self::PatchProfile
            | Self::ReportCaseStatus
            | Self::CorrectProfile
            | Self::SetProfileRole
            | Self::AddIdentifier
            | Self::RemoveIdentifier
            | Self::EraseProfile
            | Self::ReplayErasure => true,
        }
    }

    /// Whether the RPC may change what a case has locked.
    pub const fn may_override_lock(self) -> bool {
        match self {
            Self::CorrectProfile | Self::ReplayErasure => true,
            Self::CreateProfile
            | Self::ReplaceProfile
            | Self::PatchProfile
            | Self::UpdateProfile
            | Self::ReportCaseStatus
            | Self::SetProfileRole
            | Self::AddIdentifier
            | Self::RemoveIdentifier
            | Self::EraseProfile => false,
        }
    }

    /// Whether the RPC erases people.
    pub const fn erases(self) -> bool {
        match self {
            Self::EraseProfile | Self::ReplayErasure => true,
            Self::CreateProfile
            | Self::ReplaceProfile
            | Self::PatchProfile
            | Self::UpdateProfile
            | Self::ReportCaseStatus
            | Self::CorrectProfile
            | Self::SetProfileRole
            | Self::AddIdentifier
            | Self::RemoveIdentifier => false,
        }
    }
}

/// Whether a case in this status locks the person's demographics: an ID check was made before it was assigned.
pub const fn locks(status: Status) -> bool {
    match status {
        Status::Assigned | Status::InProgress | Status::Approved | Status::Rejected | Status::NoDecision => true,
        Status::Open | Status::Cancelled => false,
    }
}

/// Whether a report about a case holds against the one that is stored. Any order and any repetition of the same reports
/// ends alike, also where two have the same time.
pub fn supersedes(report: &profile_case::Model, stored: &profile_case::Model) -> bool {
    let rank = |case: &profile_case::Model| (case.status_time, locks(case.status), case.status);
    rank(report) > rank(stored)
}
