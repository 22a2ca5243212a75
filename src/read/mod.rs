//! Reads.

pub mod feed;
pub mod followers;
mod profiles;

use std::collections::HashMap;

use uuid::Uuid;

pub use self::profiles::{Batches, Profiles};
pub use crate::store::name::{Filter, Listed, Position};

use crate::{
    entity::{api_key, organization, profile, profile_case, profile_change, profile_identifier::Identifier},
    error::{Error, Result},
    store::{self, Store, profile::Name},
};

/// The organization's profile.
pub async fn profile(profiles: &Profiles, organization: Uuid, id: Uuid) -> Result<profile::Model> {
    profiles.find(organization, Name::Id(id)).await?.ok_or(Error::ProfileNotFound(Some(id)))
}

/// The organization's profiles with these ids, and the ids of which it has none: in the order of the ids, each once.
pub async fn profiles(store: &Store, organization: Uuid, ids: &[Uuid]) -> Result<(Vec<profile::Model>, Vec<Uuid>)> {
    let found = store::profile::find_all(store, organization, ids).await?;
    let mut rows: HashMap<_, _> = found.into_iter().map(|profile| (profile.id, Some(profile))).collect();
    let (mut profiles, mut missing) = (Vec::with_capacity(rows.len()), Vec::new());
    for id in ids {
        // What has been taken, or was found missing, is there as none.
        match rows.insert(*id, None) {
            Some(Some(profile)) => profiles.push(profile),
            Some(None) => {}
            None => missing.push(*id),
        }
    }
    Ok((profiles, missing))
}

/// The organization's profiles that the filter has after a position, in the order of their names: `limit` at least, if
/// there are so many.
pub async fn list(
    store: &Store,
    organization: Uuid,
    filter: &Filter,
    after: Option<Position>,
    limit: u64,
) -> Result<Vec<Listed>> {
    store::name::list(store, organization, filter, after, limit).await
}

/// How many profiles of the organization the filter has, at most `most`, and whether there are more.
pub async fn count(store: &Store, organization: Uuid, filter: &Filter, most: i32) -> Result<(i32, bool)> {
    let counted = store::name::count(store, organization, filter, most.unsigned_abs() + 1).await?;
    let count = i32::try_from(counted).unwrap_or(i32::MAX);
    Ok((count.min(most), count > most))
}

/// What a caller tells of a person.
pub enum Contact {
    Email(String),
    PhoneNumber(String),
    Identifier(Identifier),
}

/// The organization's profile with exactly this e-mail, phone number or identifier.
pub async fn profile_by(
    store: &Store,
    profiles: &Profiles,
    organization: Uuid,
    contact: Contact,
) -> Result<profile::Model> {
    let found = match contact {
        Contact::Email(email) => store::profile::find_by_email(store, organization, &email).await?,
        Contact::PhoneNumber(number) => store::profile::find_by_phone(store, organization, &number).await?,
        Contact::Identifier(identifier) => profiles.find(organization, Name::Identifier(identifier)).await?,
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

/// At most `limit` cases about the organization's profile with ids above this one, in the order of their ids.
pub async fn cases(
    store: &Store,
    profiles: &Profiles,
    organization: Uuid,
    id: Uuid,
    above: String,
    limit: u64,
) -> Result<Vec<profile_case::Model>> {
    profile(profiles, organization, id).await?;
    store::case::list(store, organization, id, above, limit).await
}

/// At most `limit` changes of the organization's profile below a revision, the newest first. One that was erased still has
/// them.
pub async fn changes(
    store: &Store,
    profiles: &Profiles,
    organization: Uuid,
    id: Uuid,
    below: i64,
    limit: u64,
) -> Result<Vec<profile_change::Model>> {
    if profiles.find(organization, Name::Id(id)).await?.is_none() {
        let erasure = store::erasure::find(store, organization, id).await?;
        erasure.ok_or(Error::ProfileNotFound(Some(id)))?;
    }
    store::history::list(store, organization, id, below, limit).await
}
