//! What a value must be: pure functions from text as sent to the form that is stored.

mod country;
mod date;
mod email;
mod key;
mod phone;
mod text;

pub use self::{
    country::{country, state},
    date::date_of_birth,
    email::email,
    key::KeyText,
    phone::phone_number,
    text::{clean, identifier, line, lines, name, postal_code},
};

/// A rule that a value broke; its text says what is right and never contains the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    #[error("is required")]
    Required,
    #[error("must be at most {0} characters")]
    Length(usize),
    #[error("must not contain control characters")]
    Control,
    #[error(
        "must be a plain ASCII e-mail address of at most 254 characters, such as name@example.com, without a display \
         name, a quoted local part or an IP literal"
    )]
    Email,
    #[error("must be a real date in the form YYYY-MM-DD, not before 1900-01-01 and not in the future")]
    DateOfBirth,
    #[error("must be MALE, FEMALE, OTHER, or GENDER_UNSPECIFIED to clear it")]
    Gender,
    #[error("must be an E.164 number: + and 2 to 15 digits, the first of them not 0")]
    PhoneNumber,
    #[error("must be two letters")]
    State,
    #[error("must be an assigned ISO 3166-1 alpha-2 code")]
    Country,
    #[error("must be 1 to 12 digits")]
    PostalCode,
    #[error("must be a UUID in its hyphenated form")]
    Uuid,
    #[error("must be UPDATE_PROFILE")]
    Action,
    #[error("must be USER, PROVIDER, SUPPORT or ADMIN")]
    Role,
    #[error("must be OPEN, ASSIGNED, IN_PROGRESS, APPROVED, REJECTED, NO_DECISION or CANCELLED")]
    CaseStatus,
    #[error("must be a time between the years 1 and 9999")]
    Time,
    #[error("must not be more than 5 minutes ahead of the server's clock")]
    TimeAhead,
    #[error("is required, or phone_number")]
    EmailOrPhone,
    #[error("must not be negative")]
    Negative,
    #[error("is output only")]
    OutputOnly,
}
