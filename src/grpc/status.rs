//! Errors as gRPC statuses with details (AIP-193): the one place that maps them, and logs a cause once.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, StatusExt as _};

use crate::{
    error::{Error, Violation},
    metrics::METRICS,
    telemetry,
    value::Rule,
};

/// The domain of every reason.
const DOMAIN: &str = "profile-service";

/// When a caller may try again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The reason of a method, or an encoding of messages, that there is not.
const UNIMPLEMENTED: &str = "UNIMPLEMENTED";

/// Tells a client library in how many milliseconds to repeat a call, or never to (gRFC A6): most obey it, and none reads
/// `RetryInfo`.
pub const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The pushback of a call that must not be repeated by itself.
pub const NEVER: HeaderValue = HeaderValue::from_static("-1");

/// The reasons of all errors.
pub const REASONS: [&str; 31] = [
    "API_KEY_INVALID",
    "API_KEY_MISSING",
    "CASE_OF_ANOTHER_PROFILE",
    "DATABASE_UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "DEMOGRAPHICS_LOCKED",
    "EMAIL_IN_USE",
    "ETAG_MISMATCH",
    "IDENTIFIER_IN_USE",
    "INTERNAL",
    "INVALID_FIELDS",
    "INVALID_MESSAGE",
    "INVALID_PAGE_TOKEN",
    "INVALID_RESUME_TOKEN",
    "INVALID_UPDATE_MASK",
    "MESSAGE_TOO_LARGE",
    "OUTCOME_UNKNOWN",
    "OVERLOADED",
    "PHONE_NUMBER_IN_USE",
    "PROFILE_NOT_FOUND",
    "RATE_LIMITED",
    "REQUEST_ID_REUSED",
    "RESUME_TOKEN_EXPIRED",
    "SCOPE_MISSING",
    "STREAM_ENDED",
    "TOO_MANY_IDENTIFIERS",
    "TRANSACTION_CONFLICT",
    "UNIMPLEMENTED",
    "UPDATE_NOT_ALLOWED",
    "USER_NOT_FOUND",
    "USER_NOT_IN_ORGANIZATION",
];

/// The code and the stable reason of an error.
const fn code(error: &Error) -> (Code, &'static str) {
    match error {
        Error::InvalidMessage => (Code::InvalidArgument, "INVALID_MESSAGE"),
        Error::MessageTooLarge(_) => (Code::OutOfRange, "MESSAGE_TOO_LARGE"),
        Error::UnknownMethod => (Code::Unimplemented, UNIMPLEMENTED),
        Error::InvalidFields(_) => (Code::InvalidArgument, "INVALID_FIELDS"),
        Error::InvalidUpdateMask { .. } => (Code::InvalidArgument, "INVALID_UPDATE_MASK"),
        Error::InvalidPageToken => (Code::InvalidArgument, "INVALID_PAGE_TOKEN"),
        Error::InvalidResumeToken => (Code::InvalidArgument, "INVALID_RESUME_TOKEN"),
        Error::ResumeTokenExpired => (Code::OutOfRange, "RESUME_TOKEN_EXPIRED"),
        Error::RequestIdReused => (Code::InvalidArgument, "REQUEST_ID_REUSED"),
        Error::ApiKeyMissing => (Code::Unauthenticated, "API_KEY_MISSING"),
        Error::ApiKeyInvalid => (Code::Unauthenticated, "API_KEY_INVALID"),
        Error::ScopeMissing(_) => (Code::PermissionDenied, "SCOPE_MISSING"),
        Error::ProfileNotFound(_) => (Code::NotFound, "PROFILE_NOT_FOUND"),
        Error::UserNotFound(_) => (Code::NotFound, "USER_NOT_FOUND"),
        Error::UserNotInOrganization(_) => (Code::NotFound, "USER_NOT_IN_ORGANIZATION"),
        Error::UpdateNotAllowed => (Code::PermissionDenied, "UPDATE_NOT_ALLOWED"),
        Error::DemographicsLocked(_) => (Code::FailedPrecondition, "DEMOGRAPHICS_LOCKED"),
        Error::CaseOfAnotherProfile => (Code::FailedPrecondition, "CASE_OF_ANOTHER_PROFILE"),
        Error::PhoneNumberInUse => (Code::AlreadyExists, "PHONE_NUMBER_IN_USE"),
        Error::EmailInUse => (Code::AlreadyExists, "EMAIL_IN_USE"),
        Error::IdentifierInUse => (Code::AlreadyExists, "IDENTIFIER_IN_USE"),
        Error::TooManyIdentifiers => (Code::FailedPrecondition, "TOO_MANY_IDENTIFIERS"),
        Error::EtagMismatch => (Code::Aborted, "ETAG_MISMATCH"),
        Error::TransactionConflict { .. } => (Code::Aborted, "TRANSACTION_CONFLICT"),
        Error::Overloaded => (Code::ResourceExhausted, "OVERLOADED"),
        Error::RateLimited(_) => (Code::ResourceExhausted, "RATE_LIMITED"),
        Error::StreamEnded => (Code::Unavailable, "STREAM_ENDED"),
        Error::DeadlineExceeded => (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        Error::DatabaseUnavailable(_) => (Code::Unavailable, "DATABASE_UNAVAILABLE"),
        Error::OutcomeUnknown(_) => (Code::Unavailable, "OUTCOME_UNKNOWN"),
        Error::Internal(_) => (Code::Internal, "INTERNAL"),
    }
}

/// Notes why a call failed.
fn note(reason: &'static str) {
    telemetry::note_reason(reason);
    METRICS.failed(reason);
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        note(code(&error).1);
        match &error {
            Error::ProfileNotFound(Some(_)) => _ = METRICS.not_found.by_id.inc(),
            Error::ProfileNotFound(None) | Error::UserNotFound(_) | Error::UserNotInOrganization(_) => {
                METRICS.not_found.by_contact.inc();
            }
            Error::TransactionConflict { cause, .. } => tracing::warn!(cause, "a write gave way to others"),
            Error::DatabaseUnavailable(cause) => tracing::warn!(cause, "the database cannot be reached"),
            Error::OutcomeUnknown(cause) => tracing::warn!(cause, "the answer to a commit was lost"),
            Error::Internal(cause) => tracing::error!(cause, "internal error"),
            _ => {}
        }
        status(&error)
    }
}

/// What the caller is told of an error.
fn status(error: &Error) -> Status {
    let (code, reason) = code(error);
    let metadata: HashMap<String, String> = match error {
        Error::ScopeMissing(scope) => [("scope".to_owned(), scope.to_string())].into(),
        _ => HashMap::new(),
    };
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    match error {
        Error::InvalidFields(violations) => {
            details.set_bad_request(violations.iter().map(field_violation).collect::<Vec<_>>());
        }
        Error::DemographicsLocked(fields) => {
            details.set_precondition_failure(fields.iter().map(locked_violation).collect::<Vec<_>>());
        }
        Error::ProfileNotFound(id) => {
            let name = id.map(|id| id.to_string()).unwrap_or_default();
            details.set_resource_info("profiles.v1.Profile", name, "", "no such profile");
        }
        Error::Overloaded | Error::TransactionConflict { .. } | Error::DatabaseUnavailable(_) => {
            details.set_retry_info(Some(RETRY_DELAY));
        }
        Error::RateLimited(wait) => {
            details.set_retry_info(Some(*wait));
        }
        _ => {}
    }
    let mut metadata = HeaderMap::new();
    if details.retry_info().is_some() {
        metadata.insert(PUSHBACK, pushback(error));
    } else if matches!(error, Error::EtagMismatch) {
        metadata.insert(PUSHBACK, NEVER);
    }
    let metadata = MetadataMap::from_headers(metadata);
    Status::with_error_details_and_metadata(code, error.to_string(), details, metadata)
}

/// When to come again. Whoever was refused together does not come again together.
fn pushback(error: &Error) -> HeaderValue {
    let delay = match error {
        Error::RateLimited(wait) => wait.mul_f64(rand::random_range(1.0..=2.0)), // before it all are refused
        _ => RETRY_DELAY.mul_f64(rand::random_range(0.5..=1.5)),
    };
    HeaderValue::from(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
}

/// The answer to a call for which there is no place. What all of them have alike is made once: there may be thousands a
/// second.
pub fn overloaded() -> Response<Body> {
    static ALIKE: LazyLock<HeaderMap> =
        LazyLock::new(|| status(&Error::Overloaded).into_http::<Body>().headers().clone());
    note(code(&Error::Overloaded).1);
    let mut response = Response::default();
    *response.headers_mut() = ALIKE.clone();
    response.headers_mut().insert(PUSHBACK, pushback(&Error::Overloaded));
    response
}

/// The status with a reason, where tonic itself has refused a call: ours always have one.
pub fn explained(status: &Status) -> Option<Status> {
    if !status.details().is_empty() {
        return None;
    }
    match status.code() {
        Code::Internal => Some(Error::InvalidMessage.into()),
        Code::Unimplemented => {
            note(UNIMPLEMENTED);
            let details = ErrorDetails::with_error_info(UNIMPLEMENTED, DOMAIN, HashMap::new());
            // Its metadata says which encodings there are.
            let (message, metadata) = (status.message(), status.metadata().clone());
            Some(Status::with_error_details_and_metadata(status.code(), message, details, metadata))
        }
        _ => None,
    }
}

/// What was wrong with a profile that a command was to store, field by field; none where the profile is not the cause.
pub fn violations(error: &Error) -> Vec<FieldViolation> {
    let (_, reason) = code(error);
    let of = |field: &str| FieldViolation {
        field: field.to_owned(),
        description: error.to_string(),
        reason: reason.to_owned(),
        localized_message: None,
    };
    match error {
        Error::InvalidFields(violations) => violations.iter().map(field_violation).collect(),
        Error::DemographicsLocked(fields) => fields.iter().map(|field| of(field)).collect(),
        Error::EmailInUse => vec![of("email")],
        Error::PhoneNumberInUse => vec![of("phone_number")],
        Error::IdentifierInUse | Error::TooManyIdentifiers => vec![of("identifiers")],
        _ => Vec::new(),
    }
}

/// Whether a call must not be made again where nobody knows what became of it: a write without a request id, which says
/// so of itself as soon as it has been read.
#[derive(Clone, Default)]
pub struct Unrepeatable(Arc<AtomicBool>);

impl Unrepeatable {
    pub fn set(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether this is how such a call has ended.
    pub fn forbids(&self, status: &Status) -> bool {
        let unknown = match status.code() {
            Code::DeadlineExceeded => true,
            // A database that cannot be reached says when to come again: nothing was executed.
            Code::Unavailable => !status.metadata().contains_key(PUSHBACK.as_str()),
            _ => false,
        };
        unknown && self.0.load(Relaxed)
    }
}

fn field_violation(Violation { field, rule }: &Violation) -> FieldViolation {
    FieldViolation {
        field: field.clone(),
        description: rule.to_string(),
        reason: field_reason(*rule).to_owned(),
        localized_message: None,
    }
}

/// The stable reason of a violation. The comments of `profile_service.proto` list them all.
const fn field_reason(rule: Rule) -> &'static str {
    match rule {
        Rule::Required | Rule::AnyContact => "REQUIRED",
        Rule::Length(_) => "TOO_LONG",
        Rule::TooMany(_) => "TOO_MANY",
        Rule::Selectors => "TOO_MANY_VARIATION_SELECTORS",
        Rule::Control => "CONTROL_CHARACTER",
        Rule::Separator => "SEPARATOR",
        Rule::BidiControl => "BIDIRECTIONAL_CONTROL",
        Rule::Noncharacter => "NONCHARACTER",
        Rule::Email => "INVALID_EMAIL",
        Rule::EmailDomain => "INVALID_EMAIL_DOMAIN",
        Rule::DateOfBirth => "INVALID_DATE_OF_BIRTH",
        Rule::Gender => "INVALID_GENDER",
        Rule::PhoneNumber => "INVALID_PHONE_NUMBER",
        Rule::TrunkZero => "TRUNK_ZERO",
        Rule::State => "INVALID_STATE",
        Rule::Country => "INVALID_COUNTRY",
        Rule::PostalCode => "INVALID_POSTAL_CODE",
        Rule::Uuid => "INVALID_UUID",
        Rule::Etag => "INVALID_ETAG",
        Rule::Action => "INVALID_ACTION",
        Rule::Role => "INVALID_ROLE",
        Rule::CaseStatus => "INVALID_CASE_STATUS",
        Rule::ReasonCode => "INVALID_REASON_CODE",
        Rule::Time => "INVALID_TIME",
        Rule::TimeAhead => "TIME_AHEAD",
        Rule::Negative => "NEGATIVE",
        Rule::System => "INVALID_SYSTEM",
        Rule::VerticalLine => "VERTICAL_LINE",
        Rule::Actor => "INVALID_ACTOR",
        Rule::NotWithToken => "NOT_WITH_TOKEN",
        Rule::OutputOnly => "OUTPUT_ONLY",
    }
}

fn locked_violation(field: &String) -> PreconditionViolation {
    PreconditionViolation::new("DEMOGRAPHICS_LOCKED", field, "locked by a case about the person")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;
    use sea_orm::Iterable as _;
    use secrecy::SecretString;
    use uuid::Uuid;

    use super::*;
    use crate::{grpc::pb, scope::Scope};

    /// Every error as its caller reads it: a changed word of the contract is a changed line.
    #[test]
    fn every_error_has_its_code_reason_details_and_message() {
        let email = || SecretString::from("ada@example.com");
        let cause = || "cause".to_owned();
        let errors = [
            Error::InvalidMessage,
            Error::MessageTooLarge(65536),
            Error::UnknownMethod,
            Error::InvalidFields(vec![Violation { field: "profile.dob".to_owned(), rule: Rule::DateOfBirth }]),
            Error::InvalidUpdateMask { refused: "`role`".to_owned(), mutable: "first_name, email".to_owned() },
            Error::InvalidPageToken,
            Error::InvalidResumeToken,
            Error::ResumeTokenExpired,
            Error::RequestIdReused,
            Error::ApiKeyMissing,
            Error::ApiKeyInvalid,
            Error::ScopeMissing(Scope::ProfilesRead),
            Error::ProfileNotFound(Some(Uuid::nil())),
            Error::UserNotFound(email()),
            Error::UserNotInOrganization(email()),
            Error::UpdateNotAllowed,
            Error::DemographicsLocked(vec!["dob".to_owned()]),
            Error::CaseOfAnotherProfile,
            Error::PhoneNumberInUse,
            Error::EmailInUse,
            Error::IdentifierInUse,
            Error::TooManyIdentifiers,
            Error::EtagMismatch,
            Error::TransactionConflict { cause: cause(), retryable: true },
            Error::Overloaded,
            Error::RateLimited(Duration::from_millis(600)),
            Error::StreamEnded,
            Error::DeadlineExceeded,
            Error::DatabaseUnavailable(cause()),
            Error::OutcomeUnknown(cause()),
            Error::Internal(cause()),
        ];
        let reasons: BTreeSet<_> = errors.iter().map(|error| code(error).1).collect();
        assert_eq!(reasons.into_iter().collect::<Vec<_>>(), REASONS);
        let table: Vec<_> = errors.map(|error| line(&Status::from(error))).into();
        insta::assert_snapshot!(table.join("\n"), @r"
    InvalidArgument INVALID_MESSAGE [] The request is not a readable message of this method.
    OutOfRange MESSAGE_TOO_LARGE [] A message of this method may have 65536 bytes at the most.
    Unimplemented UNIMPLEMENTED [] There is no such method.
    InvalidArgument INVALID_FIELDS [BadRequest] Invalid fields: profile.dob must be a real date in the form YYYY-MM-DD, such as 1995-10-01, not before 1900-01-01 and not in the future.
    InvalidArgument INVALID_UPDATE_MASK [] The update mask cannot have `role`. It must be empty, or `*` alone, or name fields that can be changed: first_name, email.
    InvalidArgument INVALID_PAGE_TOKEN [] The page token is not one of this list. Start again without one.
    InvalidArgument INVALID_RESUME_TOKEN [] The resume token is none of this organization's. Begin without one.
    OutOfRange RESUME_TOKEN_EXPIRED [] The change of the resume token is not there, such as after a restore. Begin anew, without a token.
    InvalidArgument REQUEST_ID_REUSED [] The request id has been used with another request. Use a new one.
    Unauthenticated API_KEY_MISSING [] An API key is required: send it as cv-api-key, or as a bearer token in authorization.
    Unauthenticated API_KEY_INVALID [] The API key is unknown, expired or revoked.
    PermissionDenied SCOPE_MISSING [] The API key lacks the scope profiles.read.
    NotFound PROFILE_NOT_FOUND [ResourceInfo] There is no such profile in the organization.
    NotFound USER_NOT_FOUND [] User ada@example.com does not exist
    NotFound USER_NOT_IN_ORGANIZATION [] User ada@example.com does not exist in the organization
    PermissionDenied UPDATE_NOT_ALLOWED [] Not allowed to update the profile
    FailedPrecondition DEMOGRAPHICS_LOCKED [PreconditionFailure] Cannot update user profile fields (firstName, lastName, dob, gender) for user with cases
    FailedPrecondition CASE_OF_ANOTHER_PROFILE [] The case is about another profile.
    AlreadyExists PHONE_NUMBER_IN_USE [] Unable to use this phone number. Please use a different one
    AlreadyExists EMAIL_IN_USE [] Unable to use this email. Please use a different one
    AlreadyExists IDENTIFIER_IN_USE [] Unable to use this identifier. Please use a different one
    FailedPrecondition TOO_MANY_IDENTIFIERS [] The profile may have 20 identifiers at the most. Remove one first.
    Aborted ETAG_MISMATCH [never again] The etag is not the profile's current one. Read the profile again.
    Aborted TRANSACTION_CONFLICT [RetryInfo pushback] Other writes were in the way. Try again.
    ResourceExhausted OVERLOADED [RetryInfo pushback] The service has too much to do at once. Try again later.
    ResourceExhausted RATE_LIMITED [RetryInfo pushback] The API key has made more calls a second than it may. Try again later.
    Unavailable STREAM_ENDED [] The stream has ended, because the server drains, its connection has reached its age, or it is not read. Go on from the last token.
    DeadlineExceeded DEADLINE_EXCEEDED [] The deadline is over. A write may have been made: repeat it with the same request id.
    Unavailable DATABASE_UNAVAILABLE [RetryInfo pushback] The database cannot be reached. Try again later.
    Unavailable OUTCOME_UNKNOWN [] The write may have been made or not. Repeat it with the same request id.
    Internal INTERNAL [] The service failed; the fault is on its side and in its log.
    ");
    }

    /// Every rule as its caller reads it.
    #[test]
    fn every_violation_has_its_reason_and_sentence() {
        let table: Vec<_> = Rule::iter().map(|rule| format!("{} {rule}", field_reason(rule))).collect();
        insta::assert_snapshot!(table.join("\n"), @r"
    REQUIRED is required
    TOO_LONG must be at most 0 characters
    TOO_MANY must not be more than 0
    TOO_MANY_VARIATION_SELECTORS must not have more variation selectors than characters
    CONTROL_CHARACTER must not contain control characters
    SEPARATOR must not contain the separators U+2028 and U+2029
    BIDIRECTIONAL_CONTROL must not contain bidirectional controls, U+202A to U+202E and U+2066 to U+2069
    NONCHARACTER must not contain noncharacters, such as U+FFFF
    INVALID_EMAIL must be a plain ASCII e-mail address of at most 254 characters, such as name@example.com, without a display name or a quoted local part
    INVALID_EMAIL_DOMAIN must have a host name after the @, such as example.com: two labels or more of ASCII letters, digits and inner hyphens, each of at most 63 characters, the last not all digits
    INVALID_DATE_OF_BIRTH must be a real date in the form YYYY-MM-DD, such as 1995-10-01, not before 1900-01-01 and not in the future
    INVALID_GENDER must be MALE, FEMALE, OTHER, or GENDER_UNSPECIFIED to clear it
    INVALID_PHONE_NUMBER must be an E.164 number, such as +15551234567: + and 2 to 15 digits, the first of them not 0
    TRUNK_ZERO must be without the trunk zero (0), which is dialed inside the country only: +442079460958, not +44 (0)20 7946 0958
    INVALID_STATE must be two letters, such as NY
    INVALID_COUNTRY must be an assigned ISO 3166-1 alpha-2 code, such as US
    INVALID_POSTAL_CODE must be 1 to 12 digits, such as 01010
    INVALID_UUID must be a UUID in its hyphenated form, such as 01890000-0000-7000-8000-000000000000
    INVALID_ETAG must be an etag as answered, with its quotes
    INVALID_ACTION must be UPDATE_PROFILE
    INVALID_ROLE must be USER, PROVIDER, SUPPORT or ADMIN
    INVALID_CASE_STATUS must be OPEN, ASSIGNED, IN_PROGRESS, APPROVED, REJECTED, NO_DECISION or CANCELLED
    INVALID_REASON_CODE must be REASON_CODE_REQUEST_OF_PERSON, REASON_CODE_RETENTION, REASON_CODE_CREATED_BY_MISTAKE or REASON_CODE_LEGAL_ORDER
    INVALID_TIME must be a time between the years 1 and 9999
    TIME_AHEAD must not be more than 5 minutes ahead of the server's clock
    REQUIRED is required, or phone_number or identifier
    NEGATIVE must not be negative
    INVALID_SYSTEM must be 1 to 100 of a-z, 0-9, `.`, `:`, `/`, `_` and `-`, such as https://hospital.example/mrn
    VERTICAL_LINE must not contain |
    INVALID_ACTOR must be 1 to 100 of A-Z, a-z, 0-9, `.`, `_`, `:`, `/` and `-`
    NOT_WITH_TOKEN must not be set beside a resume token
    OUTPUT_ONLY is output only
    ");
    }

    #[test]
    fn the_contract_lists_the_reasons_of_all_violations_and_no_other() {
        let contract = FileDescriptorSet::decode(pb::DESCRIPTORS).expect("descriptors");
        let comments =
            contract.file.iter().filter_map(|file| file.source_code_info.as_ref()).flat_map(|info| &info.location);
        let listed: BTreeSet<_> = comments
            .flat_map(|location| location.leading_comments().lines())
            .filter_map(|line| line.strip_prefix(" - `")?.split_once('`'))
            .map(|(reason, _)| reason)
            .collect();
        assert_eq!(listed, Rule::iter().map(field_reason).collect());
    }

    fn line(status: &Status) -> String {
        let details = status.get_error_details();
        let info = details.error_info().expect("every error has one");
        assert_eq!(info.domain, DOMAIN);
        let further = [
            details.bad_request().map(|_| "BadRequest"),
            details.precondition_failure().map(|_| "PreconditionFailure"),
            details.resource_info().map(|_| "ResourceInfo"),
            details.retry_info().map(|_| "RetryInfo"),
            pushback_of(status),
        ];
        let further: Vec<_> = further.into_iter().flatten().collect();
        format!("{:?} {} [{}] {}", status.code(), info.reason, further.join(" "), status.message())
    }

    fn pushback_of(status: &Status) -> Option<&'static str> {
        let milliseconds: i64 = status.metadata().get(PUSHBACK.as_str())?.to_str().ok()?.parse().expect("a number");
        Some(if milliseconds == -1 {
            "never again"
        } else {
            assert!((500..=1500).contains(&milliseconds), "{milliseconds} ms");
            "pushback"
        })
    }

    #[test]
    fn what_is_made_once_of_overloaded_is_what_is_made_anew() {
        for _ in 0..2 {
            let (kept, anew) = (overloaded(), Status::from(Error::Overloaded).into_http::<Body>());
            assert_eq!(kept.status(), anew.status());
            let [kept, anew] = [kept, anew].map(|response| {
                let mut headers = response.headers().clone();
                let delay = headers.remove(PUSHBACK).expect("a pushback");
                let delay: u64 = delay.to_str().expect("text").parse().expect("a number");
                assert!((500..=1500).contains(&delay), "{delay} ms");
                headers
            });
            assert_eq!(kept, anew);
        }
    }

    #[test]
    fn only_a_write_that_cannot_be_repeated_and_may_have_been_made_is_never_to_be_tried_again() {
        let (write, other) = (Unrepeatable::default(), Unrepeatable::default());
        write.set();
        let cause = || "cause".to_owned();
        let errors = [
            (Error::DeadlineExceeded, true),
            (Error::OutcomeUnknown(cause()), true),
            (Error::DatabaseUnavailable(cause()), false),
            (Error::Overloaded, false),
            (Error::Internal(cause()), false),
        ];
        for (error, never) in errors {
            let status = Status::from(error);
            assert_eq!((write.forbids(&status), other.forbids(&status)), (never, false), "{status:?}");
        }
    }
}
