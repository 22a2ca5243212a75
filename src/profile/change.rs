//! A write, as a value.

use sea_orm::Value;
use secrecy::SecretString;
use uuid::Uuid;

use super::{identifiers::Identifier, policy::Rpc};
use crate::entity::{
    profile::{Column, Model},
    profile_case, write_request,
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
}

impl Edit {
    /// The identifiers to add.
    pub fn added(&self) -> &[Identifier] {
        match self {
            Self::Set { columns: _, identifiers } => identifiers,
            Self::Remove(_) | Self::Case(_) => &[],
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
pub struct Written {
    pub profile: Model,
    /// The case as it is stored, where one was reported.
    pub case: Option<profile_case::Model>,
}

/// The version of a profile, as an entity tag (RFC 7232).
pub fn etag(profile: &Model) -> String {
    format!("\"{}\"", profile.revision)
}
