//! Everything that can go wrong with a call. What a caller reads is here; codes and details are in grpc/status.rs.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use crate::{scope::Scope, value::Rule};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A field of the request and the rule that it broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's path as the request has it, such as `profile.first_name`.
    pub field: String,
    pub rule: Rule,
}

/// Why a call failed. A cause is text for the log and never reaches a caller; it holds no value of a profile.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("The request is not a readable message of this method.")]
    InvalidMessage,
    #[error("A message of this method may have {0} bytes at the most.")]
    MessageTooLarge(usize),
    #[error("There is no such method.")]
    UnknownMethod,
    #[error("{}", sentence(.0))]
    InvalidFields(Vec<Violation>),
    #[error(
        "The update mask cannot have {refused}. It must be empty, or `*` alone, or name fields that can be changed: \
         {mutable}."
    )]
    InvalidUpdateMask { refused: String, mutable: String },
    #[error("The page token is not one of this list. Start again without one.")]
    InvalidPageToken,
    #[error("The resume token is none of this organization's. Begin without one.")]
    InvalidResumeToken,
    #[error("The change of the resume token is not there, such as after a restore. Begin anew, without a token.")]
    ResumeTokenExpired,
    #[error("The request id has been used with another request. Use a new one.")]
    RequestIdReused,
    #[error("An API key is required: send it as cv-api-key, or as a bearer token in authorization.")]
    ApiKeyMissing,
    #[error("The API key is unknown, expired or revoked.")]
    ApiKeyInvalid,
    #[error("The API key lacks the scope {0}.")]
    ScopeMissing(Scope),
    #[error("There is no such profile in the organization.")]
    ProfileNotFound(Option<Uuid>),
    #[error("User {} does not exist", .0.expose_secret())]
    UserNotFound(SecretString),
    #[error("User {} does not exist in the organization", .0.expose_secret())]
    UserNotInOrganization(SecretString),
    #[error("Not allowed to update the profile")]
    UpdateNotAllowed,
    #[error("Cannot update user profile fields (firstName, lastName, dob, gender) for user with cases")]
    DemographicsLocked(Vec<String>),
    #[error("The case is about another profile.")]
    CaseOfAnotherProfile,
    #[error("Unable to use this phone number. Please use a different one")]
    PhoneNumberInUse,
    #[error("Unable to use this email. Please use a different one")]
    EmailInUse,
    #[error("Unable to use this identifier. Please use a different one")]
    IdentifierInUse,
    #[error("The profile may have 20 identifiers at the most. Remove one first.")]
    TooManyIdentifiers,
    #[error("The etag is not the profile's current one. Read the profile again.")]
    EtagMismatch,
    #[error("Other writes were in the way. Try again.")]
    TransactionConflict { cause: String, retryable: bool },
    #[error("The service has too much to do at once. Try again later.")]
    Overloaded,
    #[error("The API key has made more calls a second than it may. Try again later.")]
    RateLimited(Duration),
    #[error(
        "The stream has ended, because the server drains, its connection has reached its age, or it is not read. Go on from \
         the last token."
    )]
    StreamEnded,
    #[error("The deadline is over. A write may have been made: repeat it with the same request id.")]
    DeadlineExceeded,
    #[error("The database cannot be reached. Try again later.")]
    DatabaseUnavailable(String),
    #[error("The write may have been made or not. Repeat it with the same request id.")]
    OutcomeUnknown(String),
    #[error("The service failed; the fault is on its side and in its log.")]
    Internal(String),
}

impl Error {
    /// Whether somebody else has what has one owner.
    pub const fn is_in_use(&self) -> bool {
        matches!(self, Self::EmailInUse | Self::PhoneNumberInUse | Self::IdentifierInUse)
    }

    /// What went wrong inside, for the log.
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::TransactionConflict { cause, .. }
            | Self::DatabaseUnavailable(cause)
            | Self::OutcomeUnknown(cause)
            | Self::Internal(cause) => Some(cause),
            _ => None,
        }
    }
}

/// One sentence that names each field and its rule.
fn sentence(violations: &[Violation]) -> String {
    let parts: Vec<_> = violations.iter().map(|Violation { field, rule }| format!("{field} {rule}")).collect();
    format!("Invalid fields: {}.", parts.join("; "))
}
