//! A database for each test.

use std::{env, time::Duration};

use sea_orm::{
    ConnectionTrait as _, Database as SeaOrm, DatabaseConnection, DatabaseTransaction, SqliteTransactionMode,
    Statement, TransactionOptions, TransactionTrait as _,
};
use tempfile::TempDir;
use uuid::Uuid;

use super::{Proxy, until};

/// A database that ends with its owner.
pub enum Database {
    Sqlite { directory: TempDir },
    Postgres { server: String, name: String },
}

impl Database {
    /// A new one, empty: SQLite, or PostgreSQL where `TEST_DATABASE_URL` says where it is.
    pub fn create() -> Self {
        match env::var("TEST_DATABASE_URL") {
            Ok(server) => {
                let name = format!("test_{}", Uuid::now_v7().simple());
                on_server(&server, format!("CREATE DATABASE {name}"));
                Self::Postgres { server, name }
            }
            Err(_) => Self::embedded(),
        }
    }

    /// A new one, empty: SQLite, whatever the tests run on.
    pub fn embedded() -> Self {
        Self::Sqlite { directory: tempfile::tempdir().expect("a directory") }
    }

    /// Another one with what this one has, which nobody may use meanwhile.
    pub fn copy(&self) -> Self {
        let copy = Self::create();
        match (self, &copy) {
            (Self::Sqlite { directory: from }, Self::Sqlite { directory: to }) => {
                let file = |directory: &TempDir| directory.path().join("profiles.db");
                std::fs::copy(file(from), file(to)).expect("a copy");
            }
            (Self::Postgres { server, name: from }, Self::Postgres { server: _, name: to }) => {
                on_server(server, format!("DROP DATABASE {to}"));
                on_server(server, format!("CREATE DATABASE {to} TEMPLATE {from}"));
            }
            _ => unreachable!("databases are of one kind"),
        }
        copy
    }

    /// Its URL.
    pub fn url(&self) -> String {
        match self {
            Self::Sqlite { directory } => format!("sqlite://{}/profiles.db?mode=rwc", directory.path().display()),
            Self::Postgres { server, name } => {
                let base = server.rsplit_once('/').expect("postgres://…/DATABASE").0;
                format!("{base}/{name}")
            }
        }
    }

    /// A URL that leads to PostgreSQL through a proxy; SQLite has no way that anything could happen on.
    pub async fn behind_a_proxy(&self, delay: Duration) -> (String, Option<Proxy>) {
        let url = self.url();
        if !self.is_postgres() {
            return (url, None);
        }
        let (front, name) = url.rsplit_once('/').expect("a database");
        let server = front.rsplit(['@', '/']).next().expect("a server").to_owned();
        let credentials = front.strip_suffix(&server).expect("what stands before it").to_owned();
        let proxy = Proxy::start(server, delay).await;
        (format!("{credentials}{}/{name}", proxy.address), Some(proxy))
    }

    pub fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres { .. })
    }

    /// A connection, to see what is stored.
    pub async fn connect(&self) -> DatabaseConnection {
        SeaOrm::connect(self.url()).await.expect("a connection")
    }

    /// The number that this statement answers in its column `number`.
    pub async fn number(&self, sql: &str) -> i64 {
        let connection = self.connect().await;
        let statement = Statement::from_string(connection.get_database_backend(), sql);
        let row = connection.query_one_raw(statement).await.expect("an answer").expect("a row");
        connection.close().await.expect("a connection that closes");
        row.try_get("", "number").expect("a number")
    }

    /// Waits until every change is in the feed.
    pub async fn sequenced(&self) {
        let pending = "SELECT COUNT(*) AS number FROM feed_pending";
        until("every change is in the feed", async || self.number(pending).await == 0).await;
    }

    /// Runs this statement.
    pub async fn execute(&self, sql: &str) {
        let connection = self.connect().await;
        connection.execute_unprepared(sql).await.expect("a statement that is taken");
        connection.close().await.expect("a connection that closes");
    }

    /// Keeps every write waiting: all of them on SQLite, those to existing profiles on PostgreSQL.
    pub async fn hold(&self) -> Held {
        let connection = self.connect().await;
        let immediate = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        let transaction = connection.begin_with_options(immediate).await.expect("a transaction");
        if self.is_postgres() {
            transaction.execute_unprepared("SELECT FROM profile FOR UPDATE").await.expect("locks");
        }
        Held { transaction }
    }
}

/// A lock that others wait for until it is released.
pub struct Held {
    transaction: DatabaseTransaction,
}

impl Held {
    pub async fn release(self) {
        self.transaction.rollback().await.expect("a rollback");
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Self::Postgres { server, name } = self {
            on_server(server, format!("DROP DATABASE {name} WITH (FORCE)"));
        }
    }
}

/// Runs one statement on the server, from a thread of its own: tests are asynchronous, and dropping is not.
fn on_server(server: &str, statement: String) {
    let server = server.to_owned();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let connection = SeaOrm::connect(server).await.expect("TEST_DATABASE_URL answers");
            connection.execute_unprepared(&statement).await.expect("a statement that the server takes");
            connection.close().await.expect("a connection that closes");
        });
    };
    std::thread::spawn(run).join().expect("a statement that ran");
}
