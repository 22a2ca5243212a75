//! Cases about profiles.

use sea_orm::{ActiveEnum as _, DbBackend, IdenStatic as _, Value, sea_query::ArrayType};
use uuid::Uuid;

use super::{PinnedConnection, Store, failure::unsaved, rows::Sql};
use crate::{
    entity::profile_case::{Column, Entity, Key, Model, Status},
    error::{Error, Result},
};

/// The types of a key's columns.
const KEY: [ArrayType; 2] = [ArrayType::Uuid, ArrayType::String];

/// The cases with these keys.
pub async fn load(connection: &mut PinnedConnection, keys: &[Key]) -> Result<Vec<Model>> {
    let mut sql = Sql::new(connection.backend());
    sql.push("SELECT ").columns::<Entity>("").push(" FROM profile_case WHERE ");
    sql.tuple_is_in("organization_id, case_id", KEY, &values(keys));
    connection.all(sql.build()).await
}

/// At most `limit` cases about a profile with ids above this one, in the order of their bytes.
pub async fn list(store: &Store, organization: Uuid, profile: Uuid, above: String, limit: u64) -> Result<Vec<Model>> {
    let backend = store.backend();
    let case_id = if backend == DbBackend::Postgres { "case_id COLLATE \"C\"" } else { "case_id" };
    let mut sql = Sql::new(backend);
    sql.push("SELECT ").columns::<Entity>("").push(" FROM profile_case WHERE profile_id = ").bind(profile.into());
    sql.push(" AND organization_id = ").bind(organization.into()).push(" AND ").push(case_id).push(" > ");
    sql.bind(above.into()).push(&format!(" ORDER BY {case_id} LIMIT {limit}"));
    store.all(sql.build()).await
}

/// Those of these profiles that have a case in one of these statuses besides the cases with these keys.
pub async fn in_status_besides(
    connection: &mut PinnedConnection,
    profiles: &[Uuid],
    statuses: &[Status],
    keys: &[Key],
) -> Result<Vec<Uuid>> {
    let statuses: Vec<_> = statuses.iter().map(Status::to_value).collect();
    let mut sql = Sql::new(connection.backend());
    sql.push("SELECT p.id FROM profile p WHERE ").is_in("p.id", profiles);
    sql.push(" AND EXISTS (SELECT 1 FROM profile_case c WHERE c.profile_id = p.id AND ").is_in("c.status", &statuses);
    sql.push(" AND c.organization_id = p.organization_id AND NOT ");
    sql.tuple_is_in("c.organization_id, c.case_id", KEY, &values(keys)).push(")");
    let rows = connection.fetch(sql.build()).await?;
    rows.iter().map(|row| row.try_get("", "id").map_err(Error::from)).collect()
}

/// Stores cases as they were decided. A case that has meanwhile been reported about another profile is a conflict.
pub async fn save(connection: &mut PinnedConnection, cases: &[Model]) -> Result<()> {
    for case in cases {
        let mut sql = Sql::new(connection.backend());
        sql.push("INSERT INTO profile_case (").columns::<Entity>("").push(") ").rows::<Entity>(&[case], &[]);
        sql.push(" ON CONFLICT (organization_id, case_id) DO UPDATE SET ");
        for (n, column) in [Column::Status, Column::StatusTime].into_iter().enumerate() {
            let name = column.as_str();
            sql.push(if n == 0 { "" } else { ", " }).push(name).push(" = excluded.").push(name);
        }
        sql.push(" WHERE profile_case.profile_id = excluded.profile_id RETURNING case_id");
        if connection.fetch(sql.build()).await.map_err(unsaved)?.is_empty() {
            let cause = "the case was reported about another profile at the same moment".to_owned();
            return Err(Error::TransactionConflict { cause, retryable: true });
        }
    }
    Ok(())
}

fn values(keys: &[Key]) -> Vec<[Value; 2]> {
    keys.iter().map(|(organization, case)| [(*organization).into(), case.clone().into()]).collect()
}
