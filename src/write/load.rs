//! What a group of changes needs to be decided, loaded a statement a kind.

use sea_orm::{DbBackend, Iterable as _};
use uuid::Uuid;

use crate::{
    entity::{
        profile::Column,
        profile_case::{self, Status},
        profile_identifier, write_request,
    },
    error::Result,
    profile::{
        change::{Author, Change, Edit, Target},
        group::{Rows, target_profile, wanted_addresses},
        policy,
    },
    store::{self, PinnedConnection},
};

/// What a group needs to know.
#[derive(Default)]
pub struct Wanted {
    organizations: Vec<Uuid>,
    ids: Vec<Uuid>,
    /// The e-mails that say whose profiles are changed.
    emails: Vec<String>,
    /// What the changes set: each has one owner.
    set_emails: Vec<String>,
    set_phone_numbers: Vec<String>,
    added_identifiers: Vec<profile_identifier::Key>,
    claims: Vec<write_request::Key>,
    cases: Vec<profile_case::Key>,
    /// The profiles that are to be erased.
    erased: Vec<Uuid>,
}

impl Wanted {
    pub fn of<'a>(changes: impl Iterator<Item = (&'a Author, &'a Change)>) -> Self {
        let mut wanted = Self::default();
        for (author, change) in changes {
            let organization = author.organization_id;
            wanted.organizations.push(organization);
            match &change.target {
                Target::New(_) => {}
                Target::Id(id) => wanted.ids.push(*id),
                Target::Email { email, sent: _ } => wanted.emails.push(email.clone()),
            }
            for (column, text) in wanted_addresses(change) {
                match column {
                    Column::Email => wanted.set_emails.push(text.to_owned()),
                    _ => wanted.set_phone_numbers.push(text.to_owned()),
                }
            }
            let added = change.edit.added().iter();
            wanted.added_identifiers.extend(added.map(|identifier| identifier.key(organization)));
            wanted.claims.extend(change.claim_key(author));
            match &change.edit {
                Edit::Set { .. } | Edit::Remove(_) => {}
                Edit::Case(report) => wanted.cases.push(report.key()),
                Edit::Erase(_) => wanted.erased.extend(target_profile(change)),
            }
        }
        wanted.organizations.sort_unstable();
        wanted.organizations.dedup();
        wanted.ids.sort_unstable();
        wanted.ids.dedup();
        wanted
    }
}

/// Loads it without a lock. A lone change leaves to the unique indexes what only itself can suffer from.
pub async fn load(connection: &mut PinnedConnection, wanted: &Wanted, lone: Option<&Change>) -> Result<Rows> {
    let mut rows = Rows::default();
    if !(wanted.ids.is_empty() && wanted.emails.is_empty()) {
        rows.profiles = store::profile::load(connection, &wanted.ids, &wanted.emails).await?;
    }
    match lone {
        Some(change) if !change.validate_only => {
            if matches!(change.target, Target::New(_)) {
                return Ok(rows);
            }
        }
        Some(_) | None => load_owners(connection, wanted, &[], &mut rows).await?,
    }
    load_claims(connection, wanted, &mut rows).await?;
    Ok(rows)
}

/// As `load`, in a transaction and with the profiles locked.
pub async fn load_locked(connection: &mut PinnedConnection, wanted: &Wanted) -> Result<Rows> {
    let profiles = store::profile::lock(connection, &wanted.organizations, &wanted.ids, &wanted.emails).await?;
    let mut rows = Rows { profiles, ..Rows::default() };
    // A row of another organization was not loaded, since it must not be locked.
    let foreign = if connection.backend() == DbBackend::Postgres { wanted.emails.as_slice() } else { &[] };
    load_owners(connection, wanted, foreign, &mut rows).await?;
    if !wanted.cases.is_empty() {
        let locking: Vec<_> = Status::iter().filter(|status| policy::locks(*status)).collect();
        rows.cases = store::case::load(connection, &wanted.cases).await?;
        rows.locked_elsewhere =
            store::case::in_status_besides(connection, &wanted.ids, &locking, &wanted.cases).await?;
    }
    load_claims(connection, wanted, &mut rows).await?;
    if !wanted.erased.is_empty() {
        rows.erasures = store::erasure::load(connection, &wanted.erased).await?;
    }
    Ok(rows)
}

/// Loads who has the addresses that the group sets and the identifiers that it adds, and these e-mails.
async fn load_owners(
    connection: &mut PinnedConnection,
    wanted: &Wanted,
    emails: &[String],
    rows: &mut Rows,
) -> Result<()> {
    let Wanted { set_emails, set_phone_numbers, added_identifiers, .. } = wanted;
    let emails = [emails, set_emails].concat();
    if !(emails.is_empty() && set_phone_numbers.is_empty()) {
        let owners = store::profile::owners(connection, &emails, set_phone_numbers).await?;
        rows.owners.extend(owners);
    }
    if !added_identifiers.is_empty() {
        rows.identifiers = store::identifier::load(connection, added_identifiers).await?;
    }
    Ok(())
}

/// Loads the claims last, with the profiles that repeats answer: so a repeat that reads what its first call has changed
/// finds that call's claim.
async fn load_claims(connection: &mut PinnedConnection, wanted: &Wanted, rows: &mut Rows) -> Result<()> {
    if wanted.claims.is_empty() {
        return Ok(());
    }
    rows.claims = store::request::load(connection, &wanted.claims).await?;
    let repeated: Vec<_> = rows.claims.iter().filter_map(|claim| claim.profile_id).collect();
    if !repeated.is_empty() {
        // Also those that are there: they may have been loaded before the first call has changed them.
        rows.profiles.retain(|profile| !repeated.contains(&profile.id));
        rows.profiles.extend(store::profile::load(connection, &repeated, &[]).await?);
    }
    Ok(())
}
