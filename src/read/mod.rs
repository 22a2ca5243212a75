//! Reads.

pub mod feed;
mod profiles;

use uuid::Uuid;

pub use self::profiles::{Batches, Profiles};

use crate::{
    entity::{api_key, organization, profile, profile_change},
    error::{Error, Result},
    store::{self, Store},
};

/// The organization's profile.
pub async fn profile(profiles: &Profiles, organization: Uuid, id: Uuid) -> Result<profile::Model> {
    profiles.find(organization, id).await?.ok_or(Error::ProfileNotFound(Some(id)))
}

/// What a caller tells support.
pub enum Contact {
    Email(String),
    PhoneNumber(String),
}

/// The organization's profile with exactly this e-mail or phone number.
pub async fn profile_by(store: &Store, organization: Uuid, contact: &Contact) -> Result<profile::Model> {
    let found = match contact {
        Contact::Email(email) => store::profile::find_by_email(store, organization, email).await?,
        Contact::PhoneNumber(number) => store::profile::find_by_phone(store, organization, number).await?,
    };
    found.ok_or(Error::ProfileNotFound(None))
}

/// A key and its organization.
pub struct CurrentKey {
    pub key: api_key::Model,
    pub organization: organization::Model,
}

/// What is stored about the key of a call, which ends with the key.
pub async fn current_key(store: &Store, lookup: &str) -> Result<CurrentKey> {
    let key = store::key::look_up(store, lookup).await?.ok_or(Error::ApiKeyInvalid)?;
    let organization = store::organization::look_up(store, key.organization_id).await?;
    Ok(CurrentKey { key, organization: organization.ok_or(Error::ApiKeyInvalid)? })
}

/// At most `limit` changes of the organization's profile below a revision, the newest first.
pub async fn changes(
    store: &Store,
    profiles: &Profiles,
    organization: Uuid,
    id: Uuid,
    below: i64,
    limit: u64,
) -> Result<Vec<profile_change::Model>> {
    profile(profiles, organization, id).await?;
    store::history::list(store, organization, id, below, limit).await
}
