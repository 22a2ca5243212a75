//! A database for each test.

use std::env;

use sea_orm::{ConnectionTrait as _, Database as SeaOrm, DatabaseConnection};
use tempfile::TempDir;
use uuid::Uuid;

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
            Err(_) => Self::Sqlite { directory: tempfile::tempdir().expect("a directory") },
        }
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

    /// A connection, to see what is stored.
    pub async fn connect(&self) -> DatabaseConnection {
        SeaOrm::connect(self.url()).await.expect("a connection")
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
