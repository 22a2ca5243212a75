//! What the pools of connections say of themselves.

use sea_orm::{
    DatabaseConnection, DbBackend,
    sqlx::{Database, Pool},
};

use super::Store;

/// A pool of connections to the database.
pub struct ConnectionPool {
    pub name: &'static str,
    connections: DatabaseConnection,
}

impl Store {
    /// Its pools: PostgreSQL has one, SQLite's writer one of its own.
    pub(crate) fn pools(&self) -> Vec<ConnectionPool> {
        let pool = |name, connections: &DatabaseConnection| ConnectionPool { name, connections: connections.clone() };
        match self.backend() {
            DbBackend::Sqlite => vec![pool("readers", &self.reader), pool("writer", &self.writer)],
            _ => vec![pool("shared", &self.reader)],
        }
    }
}

impl ConnectionPool {
    /// How many connections somebody has.
    pub fn in_use(&self) -> usize {
        let State { open, idle, most: _ } = self.state();
        open.saturating_sub(idle)
    }

    /// How many connections there are.
    pub fn open(&self) -> usize {
        self.state().open
    }

    /// How many there may be.
    pub fn most(&self) -> usize {
        self.state().most
    }

    fn state(&self) -> State {
        match self.connections.get_database_backend() {
            DbBackend::Sqlite => State::of(self.connections.get_sqlite_connection_pool()),
            _ => State::of(self.connections.get_postgres_connection_pool()),
        }
    }
}

struct State {
    open: usize,
    idle: usize,
    most: usize,
}

impl State {
    fn of<D: Database>(pool: &Pool<D>) -> Self {
        let most = pool.options().get_max_connections() as usize;
        Self { open: pool.size() as usize, idle: pool.num_idle(), most }
    }
}
