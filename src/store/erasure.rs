//! Erasures: all about a person that the tables hold goes or is emptied, and that it was so is remembered.

use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, QueryTrait as _,
};
use uuid::Uuid;

use super::{PinnedConnection, Store, failure::unsaved, rows::Sql, save::insert_history};
use crate::{
    entity::{
        erasure::{Column, Entity, Model},
        personal::{self, Erase},
        profile_change,
    },
    error::Result,
};

/// Those of these profiles that have been erased.
pub async fn load(connection: &mut PinnedConnection, profiles: &[Uuid]) -> Result<Vec<Model>> {
    let mut sql = Sql::new(connection.backend());
    sql.push("SELECT ").columns::<Entity>("").push(" FROM erasure WHERE ").is_in("profile_id", profiles);
    connection.all(sql.build()).await
}

/// The erasure of an organization's profile, if it has been erased.
pub async fn find(store: &Store, organization: Uuid, profile: Uuid) -> Result<Option<Model>> {
    let erasures = Entity::find_by_id(profile).filter(Column::OrganizationId.eq(organization));
    Ok(store.all(erasures.build(store.backend())).await?.pop())
}

/// At most `limit` erasures of all organizations with profiles above this one, in the order of their profiles.
pub async fn walk(store: &Store, above: Uuid, limit: u64) -> Result<Vec<Model>> {
    let erasures = Entity::find().filter(Column::ProfileId.gt(above)).order_by_asc(Column::ProfileId).limit(limit);
    store.all(erasures.build(store.backend())).await
}

/// Erases a person, as the table of columns says, with the last row of the history. Of a profile that is not there it is
/// only remembered.
pub async fn save(
    connection: &mut PinnedConnection,
    erasure: &Model,
    history: Option<&profile_change::Model>,
) -> Result<()> {
    let profile = erasure.profile_id;
    let emptied: Vec<_> = personal::erased_by(Erase::Value).collect();
    for columns in emptied.chunk_by(|one, next| one.table == next.table) {
        let names: Vec<_> = columns.iter().map(|column| format!("{} = NULL", column.name)).collect();
        execute(connection, |sql| {
            sql.push("UPDATE ").push(columns[0].table).push(" SET ").push(&names.join(", "));
            sql.push(" WHERE profile_id = ").bind(profile.into());
        })
        .await?;
    }
    for column in personal::erased_by(Erase::Row).filter(|column| names_the_profile(column)) {
        execute(connection, |sql| {
            sql.push("DELETE FROM ").push(column.table).push(" WHERE ").push(column.name).push(" = ");
            sql.bind(profile.into());
        })
        .await?;
    }
    insert_history(connection, history.as_slice()).await?;
    execute(connection, |sql| {
        sql.push("INSERT INTO erasure (").columns::<Entity>("").push(") ").rows::<Entity>(&[erasure], &[]);
        // Two who remember an erasure of before a restore have no profile to lock.
        sql.push(" ON CONFLICT (profile_id) DO UPDATE SET organization_id = excluded.organization_id, ");
        sql.push("erase_time = excluded.erase_time, reason_code = excluded.reason_code");
    })
    .await
}

/// Whether the column says whose row it is.
const fn names_the_profile(column: &personal::Column) -> bool {
    matches!((column.table.as_bytes(), column.name.as_bytes()), (b"profile", b"id") | (_, b"profile_id"))
}

async fn execute(connection: &mut PinnedConnection, write: impl FnOnce(&mut Sql)) -> Result<()> {
    let mut sql = Sql::new(connection.backend());
    write(&mut sql);
    connection.fetch(sql.build()).await.map_err(unsaved).map(drop)
}
