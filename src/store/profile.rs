//! Profiles.

use sea_orm::{
    ColumnTrait as _, DbBackend, EntityTrait as _, FromQueryResult, IdenStatic as _, QueryFilter as _, QueryOrder as _,
    QueryResult, QuerySelect as _, QueryTrait as _, Select,
};
use uuid::Uuid;

use super::{PinnedConnection, Store, identifier, rows::Sql};
use crate::{
    entity::{
        profile::{Column, Entity, Model, Owner},
        profile_identifier::Identifier,
    },
    error::{Error, Result},
};

/// The organization's profile with this e-mail.
pub async fn find_by_email(store: &Store, organization: Uuid, email: &str) -> Result<Option<Model>> {
    one(store, of(organization).filter(Column::Email.eq(email))).await
}

/// The organization's profile with this phone number.
pub async fn find_by_phone(store: &Store, organization: Uuid, number: &str) -> Result<Option<Model>> {
    one(store, of(organization).filter(Column::PhoneNumber.eq(number))).await
}

/// At most `limit` profiles of an organization with ids above this one, in the order of their ids.
pub async fn walk(store: &Store, organization: Uuid, above: Uuid, limit: u64) -> Result<Vec<Model>> {
    let query = of(organization).filter(Column::Id.gt(above)).order_by_asc(Column::Id).limit(limit);
    store.all(query.build(store.backend())).await
}

/// How many profiles an organization has, however long it takes to count them.
pub async fn count(store: &Store, organization: Uuid) -> Result<u64> {
    let mut sql = Sql::new(store.backend());
    sql.push("SELECT COUNT(*) FROM profile WHERE organization_id = ").bind(organization.into());
    let rows = store.snapshot().await?.fetch(sql.build()).await?;
    let count = rows.first().map(|row| row.try_get_by_index::<i64>(0)).transpose()?.unwrap_or_default();
    Ok(count.unsigned_abs())
}

/// The organization's profiles with these ids, in any order.
pub async fn find_all(store: &Store, organization: Uuid, ids: &[Uuid]) -> Result<Vec<Model>> {
    let mut sql = select(store.backend());
    sql.is_in("id", ids);
    // Compared here, or SQLite might read the whole organization.
    let mut found = store.all::<Model>(sql.build()).await?;
    found.retain(|profile| profile.organization_id == organization);
    Ok(found)
}

/// What a profile is found by, within its organization.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Name {
    Id(Uuid),
    Identifier(Identifier),
}

/// The profiles with these names by organization and name; those with these ids of whichever organization: who asks for
/// many compares both. A row that cannot be read is an error of its own.
pub async fn read(
    connection: &mut PinnedConnection,
    names: &[(Uuid, Name)],
) -> Result<Vec<((Uuid, Name), Result<Model>)>> {
    let (mut ids, mut identifiers) = (Vec::new(), Vec::new());
    for (organization, name) in names {
        match name {
            Name::Id(id) => ids.push(*id),
            Name::Identifier(identifier) => identifiers.push(identifier.key(*organization)),
        }
    }
    let mut found = Vec::with_capacity(names.len());
    let mut add = |row: &QueryResult, name: Name| {
        let organization = row.try_get("", Column::OrganizationId.as_str())?;
        found.push(((organization, name), Model::from_query_result(row, "").map_err(Error::from)));
        Ok::<_, Error>(())
    };
    if !ids.is_empty() {
        let mut sql = select(connection.backend());
        sql.is_in("id", &ids);
        for row in &connection.fetch(sql.build()).await? {
            add(row, Name::Id(row.try_get("", Column::Id.as_str())?))?;
        }
    }
    if !identifiers.is_empty() {
        let mut sql = Sql::new(connection.backend());
        sql.push("SELECT ").columns::<Entity>("p.").push(", i.system, i.value FROM profile_identifier i ");
        sql.push("JOIN profile p ON p.id = i.profile_id WHERE ");
        let keys = identifier::values(&identifiers);
        sql.tuple_is_in("i.organization_id, i.system, i.value", identifier::KEY, &keys);
        for row in &connection.fetch(sql.build()).await? {
            let (system, value) = (row.try_get("", "system")?, row.try_get("", "value")?);
            add(row, Name::Identifier(Identifier { system, value }))?;
        }
    }
    Ok(found)
}

/// The profiles with these ids or e-mails, of whichever organization.
pub async fn load(connection: &mut PinnedConnection, ids: &[Uuid], emails: &[String]) -> Result<Vec<Model>> {
    let mut sql = select(connection.backend());
    match (ids, emails) {
        (ids, []) => sql.is_in("id", ids),
        ([], emails) => sql.is_in("email", emails),
        (ids, emails) => sql.is_in("id", ids).push(" OR ").is_in("email", emails),
    };
    connection.all(sql.build()).await
}

/// As `load`, with the rows locked until the transaction ends. A row of an organization that is not named is never locked.
/// SQLite has one writer and needs no locks.
pub async fn lock(
    connection: &mut PinnedConnection,
    organizations: &[Uuid],
    ids: &[Uuid],
    emails: &[String],
) -> Result<Vec<Model>> {
    if ids.is_empty() && emails.is_empty() {
        return Ok(Vec::new());
    }
    if connection.backend() == DbBackend::Sqlite {
        return load(connection, ids, emails).await;
    }
    let mut sql = select(connection.backend());
    sql.is_in("organization_id", organizations).push(" AND (");
    sql.is_in("id", ids).push(" OR ").is_in("email", emails).push(") ORDER BY id FOR UPDATE");
    connection.all(sql.build()).await
}

/// Who has these e-mails and phone numbers, in whichever organization.
pub async fn owners(
    connection: &mut PinnedConnection,
    emails: &[String],
    phone_numbers: &[String],
) -> Result<Vec<Owner>> {
    let mut sql = Sql::new(connection.backend());
    sql.push("SELECT id, organization_id, email, phone_number FROM profile WHERE ");
    // One empty list would make SQLite read the whole table.
    match (emails, phone_numbers) {
        (emails, []) => sql.is_in("email", emails),
        ([], numbers) => sql.is_in("phone_number", numbers),
        (emails, numbers) => sql.is_in("email", emails).push(" OR ").is_in("phone_number", numbers),
    };
    connection.all(sql.build()).await
}

/// The beginning of a query for whole profiles.
pub(super) fn select(backend: DbBackend) -> Sql {
    let mut sql = Sql::new(backend);
    sql.push("SELECT ").columns::<Entity>("").push(" FROM profile WHERE ");
    sql
}

async fn one(store: &Store, query: Select<Entity>) -> Result<Option<Model>> {
    Ok(store.all(query.build(store.backend())).await?.pop())
}

fn of(organization: Uuid) -> Select<Entity> {
    Entity::find().filter(Column::OrganizationId.eq(organization))
}
