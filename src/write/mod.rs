//! The write: the one way in which anything about a profile changes.
//!
//! A writing RPC is a value, [`Change`]. `unit` carries it out to its end, when `turns` lets it; `apply` is the order of
//! its steps.

mod apply;
mod turns;
mod unit;

use std::sync::Arc;

use sea_orm::Value;
use secrecy::SecretString;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

pub use self::unit::Writer;
use crate::{
    entity::{
        profile::{Column, Model},
        profile_case,
    },
    policy::Rpc,
};

/// Who writes.
#[derive(Clone, Debug)]
pub struct Author {
    pub organization_id: Uuid,
    pub key_id: String,
    pub key_name: String,
    /// The call's place among those in flight: a write holds it until it has ended, even when its caller has gone.
    #[expect(dead_code, reason = "held, not read")]
    pub place: Arc<OwnedSemaphorePermit>,
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
    pub note: Note,
}

/// What is written.
#[derive(Clone)]
pub enum Edit {
    /// The columns to set, judged and in their stored form.
    Columns(Vec<(Column, Value)>),
    /// How a case about the profile stands, which may lock or unlock it.
    Case(profile_case::Model),
}

/// What support says for the record.
#[derive(Clone, Default)]
pub struct Note {
    pub reason: Option<String>,
    pub ticket: Option<String>,
}

/// What a write leaves.
pub struct Written {
    pub profile: Model,
    /// The case as it is stored, where one was reported.
    pub case: Option<profile_case::Model>,
}

impl From<Model> for Written {
    fn from(profile: Model) -> Self {
        Self { profile, case: None }
    }
}

/// Whose profile is written.
#[derive(Clone)]
pub enum Target {
    /// A profile that is yet to be.
    New(Uuid),
    Id(Uuid),
    /// The profile with this e-mail, and the address as it was sent.
    Email {
        email: String,
        sent: SecretString,
    },
}

/// A request id, and what it stands for.
#[derive(Clone)]
pub struct Claim {
    pub request_id: String,
    pub payload_sha256: Vec<u8>,
}

/// The version of a profile, in the form of RFC 7232.
pub fn etag(profile: &Model) -> String {
    format!("\"{}\"", profile.revision)
}
