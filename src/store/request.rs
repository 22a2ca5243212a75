//! Remembered request ids.

use chrono::{DateTime, Utc};
use sea_orm::{
    ColumnTrait as _, ExprTrait as _,
    sea_query::{ArrayType, Expr, Query},
};

use super::{PinnedConnection, Store, rows::Sql};
use crate::{
    entity::write_request::{Column, Entity, Key, Model},
    error::Result,
};

/// The claims with these keys.
pub async fn load(connection: &mut PinnedConnection, keys: &[Key]) -> Result<Vec<Model>> {
    let values = |(organization, rpc, id): &Key| [(*organization).into(), rpc.clone().into(), id.clone().into()];
    let values: Vec<_> = keys.iter().map(values).collect();
    let mut sql = Sql::new(connection.backend());
    sql.push("SELECT ").columns::<Entity>("").push(" FROM write_request WHERE ");
    let types = [ArrayType::Uuid, ArrayType::String, ArrayType::String];
    sql.tuple_is_in("organization_id, rpc, request_id", types, &values);
    connection.all(sql.build()).await
}

/// How many ids one step of a sweep forgets: few, so that no write waits for it.
const SWEEP_STEP: u64 = 500;

/// Forgets ids that were claimed before this time, a few of them; true while there may be more.
pub async fn sweep(store: &Store, before: DateTime<Utc>) -> Result<bool> {
    let key = [Column::OrganizationId, Column::Rpc, Column::RequestId];
    let old =
        Query::select().columns(key).from(Entity).and_where(Column::CreatedAt.lt(before)).limit(SWEEP_STEP).take();
    let mut sweep = Query::delete();
    sweep.from_table(Entity).and_where(Expr::tuple(key.map(Expr::col)).in_subquery(old));
    sweep.returning_col(Column::RequestId);
    let swept = store.write(store.backend().build(&sweep)).await?;
    Ok(swept.len() as u64 == SWEEP_STEP)
}
