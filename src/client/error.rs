//! Why a call failed, in the words of docs/errors.md.

use std::{
    error::{self, Error as _},
    fmt, iter,
    time::Duration,
};

use serde::{
    Deserialize, Serialize,
    de::value::{self, StrDeserializer},
};
use tonic::{Code, ConnectError, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

/// The domain of the service's reasons.
const DOMAIN: &str = "profile-service";

/// The stable reason of an error: decide by it. docs/errors.md says of each when it comes, and what a client does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum Reason {
    ApiKeyInvalid,
    ApiKeyMissing,
    CaseOfAnotherProfile,
    DatabaseUnavailable,
    DeadlineExceeded,
    DemographicsLocked,
    EmailInUse,
    EtagMismatch,
    IdentifierInUse,
    Internal,
    InvalidFields,
    InvalidMessage,
    InvalidPageToken,
    InvalidResumeToken,
    InvalidUpdateMask,
    MessageTooLarge,
    OutcomeUnknown,
    Overloaded,
    PhoneNumberInUse,
    ProfileNotFound,
    RateLimited,
    RequestIdReused,
    ResumeTokenExpired,
    ScopeMissing,
    StreamEnded,
    TooManyIdentifiers,
    TransactionConflict,
    Unimplemented,
    UpdateNotAllowed,
    UserNotFound,
    UserNotInOrganization,
    /// One that this version of the client does not know.
    #[serde(untagged)]
    Other(String),
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self::deserialize(StrDeserializer::<value::Error>::new(text)).unwrap_or_else(|_| Self::Other(text.to_owned()))
    }
}

/// As the service says it, such as `ETAG_MISMATCH`.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A field of the request that is wrong, or cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's path as the request has it, such as `profile.first_name`; of a locked field its name.
    pub field: String,
    /// What is right, in a sentence without its subject.
    pub description: String,
    /// The stable reason, such as `REQUIRED`: docs/api.md lists them.
    pub reason: String,
}

/// Where an error comes from, which says whether the call can have reached the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The service, or a proxy before it.
    Answer,
    /// There was no connection.
    Connect,
    /// The connection ended under the call.
    Connection,
}

/// Why a call failed. Neither `Debug` nor `Display` shows a value of a profile.
#[derive(Clone)]
pub struct Error {
    code: Code,
    reason: Option<Reason>,
    message: String,
    violations: Vec<Violation>,
    retry_delay: Option<Duration>,
    metadata: Vec<(String, String)>,
    origin: Origin,
}

/// Whether, and when, a call is repeated (docs/errors.md, "What to repeat").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Nothing was executed: any call, after this delay.
    After(Duration),
    /// Nobody knows: what is harmless to repeat, for the first time at once.
    AtOnce,
    /// Nobody knows: what is harmless to repeat, later.
    Later,
    Never,
}

impl Error {
    /// The gRPC code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// The reason; none where the service did not answer, such as for a connection that ended.
    #[must_use]
    pub const fn reason(&self) -> Option<&Reason> {
        self.reason.as_ref()
    }

    /// Whether this is the reason.
    #[must_use]
    pub fn is(&self, reason: &Reason) -> bool {
        self.reason.as_ref() == Some(reason)
    }

    /// A sentence for people. It may change, and of `USER_NOT_FOUND` and `USER_NOT_IN_ORGANIZATION` it has the e-mail
    /// address of the request.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What is wrong with which field: of `INVALID_FIELDS` and `DEMOGRAPHICS_LOCKED`.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// After how long the call may be repeated; nothing was executed. The client has done so, until its attempts or the
    /// deadline were over.
    #[must_use]
    pub const fn retry_delay(&self) -> Option<Duration> {
        self.retry_delay
    }

    /// What the reason says besides, such as `scope` of `SCOPE_MISSING`.
    #[must_use]
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.metadata.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The caller's deadline is over.
    pub(super) fn late() -> Self {
        Self {
            code: Code::DeadlineExceeded,
            reason: Some(Reason::DeadlineExceeded),
            message: "The deadline is over. A write may have been made: repeat it with the same request id.".to_owned(),
            violations: Vec::new(),
            retry_delay: None,
            metadata: Vec::new(),
            origin: Origin::Answer,
        }
    }

    /// A stream has ended that does not end by itself, or is silent for too long.
    pub(super) fn broken() -> Self {
        let message = "The stream has broken off.".to_owned();
        Self { code: Code::Unavailable, reason: None, message, origin: Origin::Connection, ..Self::late() }
    }

    pub(super) const fn repeat(&self) -> Repeat {
        match (self.retry_delay, &self.reason) {
            (Some(delay), _) => Repeat::After(delay),
            (None, Some(Reason::StreamEnded)) => Repeat::AtOnce,
            (None, Some(Reason::OutcomeUnknown | Reason::DeadlineExceeded)) => Repeat::Later,
            (None, Some(_)) => Repeat::Never,
            (None, None) => match (self.origin, self.code) {
                (Origin::Connection, _) => Repeat::AtOnce,
                (Origin::Connect, _)
                | (
                    Origin::Answer,
                    Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal,
                ) => Repeat::Later,
                (Origin::Answer, _) => Repeat::Never,
            },
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        // A status that came over the connection has no source.
        let origin = match status.source() {
            None => Origin::Answer,
            Some(cause) if chain(cause).any(<dyn error::Error>::is::<TimeoutExpired>) => return Self::late(),
            Some(cause) if chain(cause).any(<dyn error::Error>::is::<ConnectError>) => Origin::Connect,
            Some(_) => Origin::Connection,
        };
        let message = status.source().map_or_else(|| status.message().to_owned(), causes);
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let invalid = details.bad_request().into_iter().flat_map(|bad| &bad.field_violations);
        let locked = details.precondition_failure().into_iter().flat_map(|failed| &failed.violations);
        let violations = invalid
            .map(|violation| (&violation.field, &violation.description, &violation.reason))
            .chain(locked.map(|violation| (&violation.subject, &violation.description, &violation.r#type)))
            .map(|(field, description, reason)| Violation {
                field: field.clone(),
                description: description.clone(),
                reason: reason.clone(),
            });
        Self {
            code: status.code(),
            reason: info.map(|info| Reason::from(info.reason.as_str())),
            message,
            violations: violations.collect(),
            retry_delay: details.retry_info().and_then(|retry| retry.retry_delay),
            metadata: info.into_iter().flat_map(|info| info.metadata.clone()).collect(),
            origin,
        }
    }
}

/// An error with what caused it, the outermost first.
fn chain<'a>(error: &'a (dyn error::Error + 'static)) -> impl Iterator<Item = &'a (dyn error::Error + 'static)> {
    iter::successors(Some(error), |&error| error.source())
}

/// An error with what caused it, as text.
pub(super) fn causes(error: &(dyn error::Error + 'static)) -> String {
    let mut texts: Vec<_> = chain(error).map(ToString::to_string).collect();
    texts.dedup(); // an error may show its cause
    texts.join(": ")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            // Their messages have an e-mail address.
            Some(reason @ (Reason::UserNotFound | Reason::UserNotInOrganization)) => write!(f, "{reason}"),
            Some(reason) => write!(f, "{reason}: {}", self.message),
            None => write!(f, "{:?}: {}", self.code, self.message),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl error::Error for Error {}
