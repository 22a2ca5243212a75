//! A connection that is kept for queries which follow each other: the pool asks PostgreSQL twice whether it still lives
//! whenever one comes back, and that costs more than a query for a few profiles.

use std::{sync::Arc, time::Duration};

use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DatabaseConnection, DbBackend, DbErr, EntityTrait as _,
    FromQueryResult as _, IdenStatic as _, QueryFilter as _, QueryResult, QueryTrait as _, RuntimeErr,
    sqlx::{self, AssertSqlSafe, PgPool, Postgres, pool::PoolConnection},
};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::{
    entity::profile::{Column, Entity, Model},
    error::{Error, Result},
};

/// How long one try to get a connection may take: a dead one that is found costs as much, and a new one must be made in
/// that time.
const ACQUIRE_STEP: Duration = Duration::from_secs(1);

/// A way to the database for one query after the other.
pub struct Line {
    door: DatabaseConnection,
    /// The statement for PostgreSQL: its one parameter are all ids, so that it is the same for every number of them.
    statement: Arc<str>,
    kept: Option<(PoolConnection<Postgres>, Instant)>,
}

impl Line {
    pub fn new(door: DatabaseConnection) -> Self {
        let statement = Entity::find().filter(Column::Id.eq_any([Uuid::nil()])).build(DbBackend::Postgres).sql.into();
        Self { door, statement, kept: None }
    }

    /// When the connection is to go back to the pool, if one is kept.
    pub fn release_at(&self) -> Option<Instant> {
        self.kept.as_ref().map(|(_, since)| *since + super::KEPT)
    }

    /// Gives the connection back to the pool.
    pub fn release(&mut self) {
        self.kept = None;
    }

    /// The profiles with these ids by organization and id: who asks for many compares both. A row that cannot be read is
    /// an error of its own.
    pub async fn profiles(&mut self, ids: Vec<Uuid>) -> Result<Vec<((Uuid, Uuid), Result<Model>)>> {
        let rows = match self.door.get_database_backend() {
            DbBackend::Postgres => self.postgres(ids).await?,
            backend => {
                let query = Entity::find().filter(Column::Id.is_in(ids)).build(backend);
                self.door.query_all_raw(query).await?
            }
        };
        rows.iter().map(read).collect()
    }

    async fn postgres(&mut self, ids: Vec<Uuid>) -> Result<Vec<QueryResult>> {
        let pool = self.door.get_postgres_connection_pool().clone();
        // Taken out until the query has ended: one that is cut off leaves a connection that the pool must look at.
        let (mut connection, since) = match self.kept.take() {
            Some(kept) => kept,
            None => (acquire(&pool).await?, Instant::now()),
        };
        let query = sqlx::query(AssertSqlSafe(Arc::clone(&self.statement))).bind(ids);
        let rows = query.fetch_all(&mut *connection).await;
        let rows = rows.map_err(failure)?;
        // Nobody may have to wait for a connection that is kept.
        let others = pool.num_idle() > 0 || pool.size() < pool.options().get_max_connections();
        if others && since.elapsed() < super::KEPT {
            self.kept = Some((connection, since));
        }
        Ok(rows.into_iter().map(QueryResult::from).collect())
    }
}

fn read(row: &QueryResult) -> Result<((Uuid, Uuid), Result<Model>)> {
    let key = (row.try_get("", Column::OrganizationId.as_str())?, row.try_get("", Column::Id.as_str())?);
    Ok((key, Model::from_query_result(row, "").map_err(Error::from)))
}

/// A connection of the pool, in as many tries as the caller has time for.
async fn acquire(pool: &PgPool) -> Result<PoolConnection<Postgres>> {
    loop {
        if let Ok(acquired) = timeout(ACQUIRE_STEP, pool.acquire()).await {
            return Ok(acquired.map_err(failure)?);
        }
    }
}

fn failure(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}
