//! A connection that is kept for queries which follow each other: the pool asks PostgreSQL twice whether it still lives
//! whenever one comes back, and that costs more than a query for a few profiles.

use std::{sync::Arc, time::Duration};

use sea_orm::{
    ColumnTrait as _, DatabaseConnection, DbBackend, DbErr, EntityTrait as _, FromQueryResult as _, QueryFilter as _,
    QueryResult, QueryTrait as _, RuntimeErr,
    sqlx::{self, AssertSqlSafe, Postgres, pool::PoolConnection},
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    entity::profile::{Column, Entity, Model},
    error::Result,
};

/// How long a connection is kept: shorter than anyone notices who waits for it, or for the end of the program.
const KEPT: Duration = Duration::from_millis(50);

/// A way to the database for one query after the other.
pub struct Line {
    door: DatabaseConnection,
    kept: Option<(PoolConnection<Postgres>, Instant)>,
}

impl Line {
    pub const fn new(door: DatabaseConnection) -> Self {
        Self { door, kept: None }
    }

    /// When the connection is to go back to the pool, if one is kept.
    pub fn release_at(&self) -> Option<Instant> {
        self.kept.as_ref().map(|(_, since)| *since + KEPT)
    }

    /// Gives the connection back to the pool.
    pub fn release(&mut self) {
        self.kept = None;
    }

    /// The profiles with these ids, of whatever organizations: who asks for many compares the organization of each.
    pub async fn profiles(&mut self, ids: Vec<Uuid>) -> Result<Vec<Model>> {
        if self.door.get_database_backend() != DbBackend::Postgres {
            return Ok(Entity::find().filter(Column::Id.is_in(ids)).all(&self.door).await?);
        }
        // Taken out until the query has ended: one that is cut off leaves a connection that the pool must look at.
        let (mut connection, since) = match self.kept.take() {
            Some(kept) => kept,
            None => (self.door.get_postgres_connection_pool().acquire().await.map_err(failure)?, Instant::now()),
        };
        // One parameter, so that one prepared statement serves every number of ids.
        let statement = Entity::find().filter(Column::Id.eq_any(ids.iter().copied())).build(DbBackend::Postgres);
        let rows = sqlx::query(AssertSqlSafe(statement.sql)).bind(ids).fetch_all(&mut *connection).await;
        let rows = rows.map_err(failure)?;
        self.kept = Some((connection, since));
        let models = rows.into_iter().map(|row| Model::from_query_result(&QueryResult::from(row), ""));
        Ok(models.collect::<Result<_, _>>()?)
    }
}

fn failure(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}
