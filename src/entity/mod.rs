//! The rows, as sea-orm entities. A column is spelled here and in the migration.

pub mod api_key;
pub mod erasure;
pub mod feed;
pub mod feed_pending;
pub mod organization;
pub mod personal;
pub mod profile;
pub mod profile_case;
pub mod profile_change;
pub mod profile_identifier;
pub mod write_request;
