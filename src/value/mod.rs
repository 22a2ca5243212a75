//! What a value must be: pure functions from text as sent to the form that is stored.

mod country;
mod date;
mod email;
mod fold;
mod identifier;
mod key;
mod phone;
mod rate;
mod text;

pub use self::{
    country::{country, state},
    date::date_of_birth,
    email::email,
    fold::{fold, sort_name},
    identifier::{actor, name_there, system},
    key::KeyText,
    phone::phone_number,
    rate::{NoRate, Rate},
    text::{clean, etag, identifier, line, lines, name, postal_code},
};

/// A rule that a value broke; its text says what is right and never contains the value. Its stable reason is in
/// grpc/status.rs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(test, derive(sea_orm::EnumIter))]
pub enum Rule {
    #[error("is required")]
    Required,
    #[error("must be at most {0} characters")]
    Length(usize),
    #[error("must not be more than {0}")]
    TooMany(usize),
    #[error("must not have more variation selectors than characters")]
    Selectors,
    #[error("must not contain control characters")]
    Control,
    #[error("must not contain the separators U+2028 and U+2029")]
    Separator,
    #[error("must not contain bidirectional controls, U+202A to U+202E and U+2066 to U+2069")]
    BidiControl,
    #[error("must not contain noncharacters, such as U+FFFF")]
    Noncharacter,
    #[error(
        "must be a plain ASCII e-mail address of at most 254 characters, such as name@example.com, without a display \
         name or a quoted local part"
    )]
    Email,
    #[error(
        "must have a host name after the @, such as example.com: two labels or more of ASCII letters, digits and inner \
         hyphens, each of at most 63 characters, the last not all digits"
    )]
    EmailDomain,
    #[error(
        "must be a real date in the form YYYY-MM-DD, such as 1995-10-01, not before 1900-01-01 and not in the future"
    )]
    DateOfBirth,
    #[error("must be MALE, FEMALE, OTHER, or GENDER_UNSPECIFIED to clear it")]
    Gender,
    #[error("must be an E.164 number, such as +15551234567: + and 2 to 15 digits, the first of them not 0")]
    PhoneNumber,
    #[error(
        "must be without the trunk zero (0), which is dialed inside the country only: +442079460958, not +44 (0)20 \
         7946 0958"
    )]
    TrunkZero,
    #[error("must be two letters, such as NY")]
    State,
    #[error("must be an assigned ISO 3166-1 alpha-2 code, such as US")]
    Country,
    #[error("must be 1 to 12 digits, such as 01010")]
    PostalCode,
    #[error("must be a UUID in its hyphenated form, such as 01890000-0000-7000-8000-000000000000")]
    Uuid,
    #[error("must be an etag as answered, with its quotes")]
    Etag,
    #[error("must be UPDATE_PROFILE")]
    Action,
    #[error("must be USER, PROVIDER, SUPPORT or ADMIN")]
    Role,
    #[error("must be OPEN, ASSIGNED, IN_PROGRESS, APPROVED, REJECTED, NO_DECISION or CANCELLED")]
    CaseStatus,
    #[error(
        "must be REASON_CODE_REQUEST_OF_PERSON, REASON_CODE_RETENTION, REASON_CODE_CREATED_BY_MISTAKE or \
         REASON_CODE_LEGAL_ORDER"
    )]
    ReasonCode,
    #[error("must be a time between the years 1 and 9999")]
    Time,
    #[error("must not be more than 5 minutes ahead of the server's clock")]
    TimeAhead,
    #[error("is required, or phone_number or identifier")]
    AnyContact,
    #[error("must not be negative")]
    Negative,
    #[error("must be 1 to 100 of a-z, 0-9, `.`, `:`, `/`, `_` and `-`, such as https://hospital.example/mrn")]
    System,
    #[error("must not contain |")]
    VerticalLine,
    #[error("must be 1 to 100 of A-Z, a-z, 0-9, `.`, `_`, `:`, `/` and `-`")]
    Actor,
    #[error("must not be set beside a resume token")]
    NotWithToken,
    #[error("is output only")]
    OutputOnly,
}
