//! A database that a program of before has written: tests/fixtures has its dump, and what that program was asked and has
//! answered (tests/prove/fixture.py).

use std::{collections::BTreeMap, fs, sync::Arc};

use chrono::{SubsecRound as _, Utc};
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::Value as Json;

use super::{Client, Database, Service};

/// What the first schema has had, from a program of commit 802b451.
pub struct Before {
    pub database: Arc<Database>,
    story: Json,
}

/// An address that the program of before has taken. Who has it is found by everything else.
const REFUSED_TODAY: &str = "root@localhost";

/// Rows of each table, as text.
pub type Rows = BTreeMap<&'static str, Vec<String>>;

impl Before {
    /// Restores the dump. Request ids are as old as if their writes had just been made.
    pub async fn restore() -> Self {
        let database = Arc::new(Database::create());
        let kind = if database.is_postgres() { "postgresql" } else { "sqlite" };
        let read = |extension| {
            let file = format!("{}/tests/fixtures/802b451/{kind}.{extension}", env!("CARGO_MANIFEST_DIR"));
            fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"))
        };
        database.execute(&read("sql")).await;
        let connection = database.connect().await;
        let renew = "UPDATE write_request SET created_at = $1";
        let now = [Utc::now().trunc_subsecs(6).into()];
        let renew = Statement::from_sql_and_values(connection.get_database_backend(), renew, now);
        connection.execute_raw(renew).await.expect("request ids of now");
        connection.close().await.expect("a connection that closes");
        Self { database, story: serde_json::from_str(&read("json")).expect("a story") }
    }

    /// What the story has under this name.
    pub fn list(&self, name: &str) -> &[Json] {
        self.story[name].as_array().expect("a list")
    }

    /// Who is in an organization, by the id and what the folded name begins with.
    pub fn people_of<'a>(&'a self, organization: &'a str) -> impl Iterator<Item = &'a Json> {
        self.list("people").iter().filter(move |person| person["organization"] == organization)
    }

    /// Clients of a service, by the names of the keys that the program of before has made.
    async fn clients(&self, service: &Service) -> BTreeMap<&str, Client> {
        let mut clients = BTreeMap::new();
        for (name, key) in self.story["keys"].as_object().expect("keys") {
            clients.insert(name.as_str(), service.client(key.as_str().expect("a key")).await);
        }
        clients
    }

    /// Asks what the program of before was asked: whatever it has answered is answered again.
    pub async fn is_answered_again_by(&self, service: &Service) {
        let clients = self.clients(service).await;
        assert!(self.list("reads").len() > 80);
        for Call { key, rpc, request, answer, error } in self.list("reads").iter().map(Call::of) {
            let answered = clients[key].call(rpc, request.clone()).await;
            if request["email"] == REFUSED_TODAY {
                assert_eq!(answered.expect_err("refused").reason, "INVALID_FIELDS");
                continue;
            }
            match answered {
                Ok(answered) => assert_eq!(Some(&answered), answer, "{rpc} {request}"),
                Err(failure) => assert_eq!(Some(failure.reason.as_str()), error, "{rpc} {request}"),
            }
        }
    }

    /// The tables and indexes that there are, and the migrations.
    pub async fn schema(&self) -> Vec<String> {
        let columns = if self.database.is_postgres() {
            "SELECT relname || ' ' || coalesce(string_agg(attname, ',' ORDER BY attnum), '') AS line FROM pg_class c \
             LEFT JOIN pg_attribute a ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped \
             WHERE relnamespace = 'public'::regnamespace GROUP BY c.oid, relname"
        } else {
            "SELECT name || ' ' || coalesce(sql, '') AS line FROM sqlite_master"
        };
        self.lines(&format!("{columns} UNION ALL SELECT version FROM seaql_migrations ORDER BY 1")).await
    }

    /// The rows of each table that the program of before has made, in the columns that it has had.
    pub async fn rows(&self) -> Rows {
        let quote = if self.database.is_postgres() { "quote_nullable" } else { "quote" };
        let mut rows = Rows::new();
        for (table, columns) in TABLES {
            let columns: Vec<_> = columns.split(' ').map(|column| format!("{quote}({column})")).collect();
            let all = format!("SELECT {} AS line FROM {table} ORDER BY 1", columns.join(" || ',' || "));
            rows.insert(table, self.lines(&all).await);
        }
        rows
    }

    /// The texts that a query answers in its column `line`.
    async fn lines(&self, query: &str) -> Vec<String> {
        let connection = self.database.connect().await;
        let query = Statement::from_string(connection.get_database_backend(), query);
        let rows = connection.query_all_raw(query).await.expect("rows");
        connection.close().await.expect("a connection that closes");
        rows.iter().map(|row| row.try_get("", "line").expect("a line")).collect()
    }
}

/// A call of the story, with its answer or the reason why there was none.
struct Call<'a> {
    key: &'a str,
    rpc: &'a str,
    request: &'a Json,
    answer: Option<&'a Json>,
    error: Option<&'a str>,
}

impl<'a> Call<'a> {
    fn of(call: &'a Json) -> Self {
        Self {
            key: call["key"].as_str().expect("a key"),
            rpc: call["rpc"].as_str().expect("an RPC"),
            request: &call["request"],
            answer: call.get("answer"),
            error: call["error"].as_str(),
        }
    }
}

/// The tables of the first schema.
const TABLES: [(&str, &str); 6] = [
    ("organization", "id name created_at"),
    ("api_key", "id organization_id name secret_sha256 scopes created_at expires_at revoked_at last_used_at"),
    (
        "profile",
        "id organization_id revision locked role first_name last_name email dob gender phone_number address address2 \
         city state country postal_code created_at updated_at",
    ),
    ("profile_case", "organization_id case_id profile_id status status_time"),
    (
        "profile_change",
        "profile_id revision organization_id changed_at rpc key_id key_name request_id reason ticket case_id \
         lock_overridden fields old_values new_values",
    ),
    ("write_request", "organization_id rpc request_id payload_sha256 profile_id created_at"),
];
