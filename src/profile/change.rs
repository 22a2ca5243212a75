//! A write, as a value.

use chrono::{DateTime, Utc};
use sea_orm::Value;
use secrecy::SecretString;
use uuid::Uuid;

use super::policy::Rpc;
use crate::entity::{
    erasure::{self, ReasonCode},
    profile::{Column, Model},
    profile_case,
    profile_identifier::Identifier,
    write_request,
};

/// Who writes.
#[derive(Clone, Debug)]
pub struct Author {
    pub organization_id: Uuid,
    pub key_id: String,
    pub key_name: String,
    /// Who of the caller's people acts, as the caller says.
    pub actor: Option<String>,
}

/// A write, as a value.
#[derive(Clone)]
pub struct Change {
    pub rpc: Rpc,
    pub target: Target,
    pub edit: Edit,
    /// The version that must be current.
    pub etag: Option<String>,
    pub claim: Option<Claim>,
    pub validate_only: bool,
    pub audit: AuditNote,
}

impl Change {
    /// The key of the claim of the request id, if the change has one.
    pub fn claim_key(&self, author: &Author) -> Option<write_request::Key> {
        let claim = self.claim.as_ref()?;
        Some((author.organization_id, self.rpc.name().to_owned(), claim.request_id.clone()))
    }
}

/// What is written.
#[derive(Clone)]
pub enum Edit {
    /// The columns to set, judged and in their stored form, and the identifiers to add.
    Set { columns: Vec<(Column, Value)>, identifiers: Vec<Identifier> },
    /// The identifier to remove.
    Remove(Identifier),
    /// How a case about the profile stands, which may lock or unlock it.
    Case(profile_case::Model),
    /// That the person is erased.
    Erase(Erasing),
}

/// How a person is erased.
#[derive(Clone)]
pub struct Erasing {
    pub reason_code: ReasonCode,
    pub even_if_locked: bool,
    /// When it was done, where it is done again; now otherwise.
    pub erase_time: Option<DateTime<Utc>>,
}

impl Edit {
    /// The identifiers to add.
    pub fn added(&self) -> &[Identifier] {
        match self {
            Self::Set { columns: _, identifiers } => identifiers,
            Self::Remove(_) | Self::Case(_) | Self::Erase(_) => &[],
        }
    }
}

/// What support says for the history.
#[derive(Clone, Default)]
pub struct AuditNote {
    pub reason: Option<String>,
    pub ticket: Option<String>,
}

/// Whose profile is written.
#[derive(Clone)]
pub enum Target {
    /// A profile that is yet to be created, with this id.
    New(Uuid),
    Id(Uuid),
    /// The profile with this e-mail, and the address as it was sent.
    Email {
        email: String,
        sent: SecretString,
    },
}

/// A request id, and the payload it stands for (AIP-155).
#[derive(Clone)]
pub struct Claim {
    pub request_id: String,
    pub payload_sha256: Vec<u8>,
}

/// What a write leaves.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "most are profiles")]
pub enum Written {
    /// The profile as it is, or would be.
    Profile(Model),
    /// The reported case as it is stored.
    Case(profile_case::Model),
    /// The erasure, and what there was to erase.
    Erasure(erasure::Model, Found),
}

impl Written {
    /// The stored profile that the write was about.
    pub fn profile_id(&self) -> Option<Uuid> {
        match self {
            Self::Profile(profile) => (profile.revision > 0).then_some(profile.id),
            Self::Case(case) => Some(case.profile_id),
            Self::Erasure(erasure, _) => Some(erasure.profile_id),
        }
    }
}

/// What there was to erase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Profile,
    /// It had been erased already.
    Erasure,
    Nothing,
}

/// The version of a profile, as an entity tag (RFC 7232).
pub fn etag(profile: &Model) -> String {
    format!("\"{}\"", profile.revision)
}
