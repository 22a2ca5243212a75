//! Two programs on one database, and what happens to them while calls are made.

use std::{sync::Arc, time::Duration};

use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, SqlErr, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait as _,
};
use serde_json::{Map, Value as Json, json};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::{Code, transport::Channel};
use uuid::Uuid;

use super::{
    call::{self, Call, Fault, OWNERS, Planned, Scenario},
    model::Person,
    stored,
};
use crate::harness::{Client, Database, Proxy, SCOPES, Service, until};

/// What a caller is told, before it is known who is who.
#[derive(Clone, Debug)]
pub enum Heard {
    Profile(Uuid, Person),
    Done,
    Refused(String),
    /// That it was not made.
    NotMade(String),
    /// That nobody knows whether it was made.
    OutcomeUnknown,
    /// The connection to the program has ended.
    Lost,
    /// The caller has gone away.
    Left,
}

impl Heard {
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown | Self::Lost | Self::Left)
    }
}

pub struct Programs {
    database: Arc<Database>,
    /// To write and to look with, beside the programs.
    pub sql: DatabaseConnection,
    both: Vec<Program>,
    keys: Vec<String>,
    pub organizations: [Uuid; 2],
}

struct Program {
    service: Service,
    /// The way from its callers.
    callers: Proxy,
    channel: Channel,
    /// The way to PostgreSQL.
    rows: Option<Proxy>,
}

impl Program {
    async fn start(database: Arc<Database>) -> Self {
        let (url, rows) = database.behind_a_proxy(Duration::ZERO).await;
        // Few connections: what does not get one gathers.
        let start = move || Service::by_url(database, &url, ["--database-connections", "4"]);
        let service = tokio::task::spawn_blocking(start).await.expect("a program");
        let callers = Proxy::start(service.address.clone(), Duration::ZERO).await;
        let endpoint = Channel::from_shared(format!("http://{}", callers.address)).expect("an address");
        let channel = endpoint.connect().await.expect("a connection");
        Self { service, callers, channel, rows }
    }
}

impl Programs {
    pub async fn start() -> Self {
        let database = Arc::new(Database::create());
        let first = Program::start(Arc::clone(&database)).await;
        let second = Program::start(Arc::clone(&database)).await;
        let mut keys = Vec::new();
        for name in ["north", "south"] {
            first.service.run(["organization", "create", name]);
            keys.push(first.service.key(name, &SCOPES));
        }
        let sql = database.connect().await;
        let statement = Statement::from_string(sql.get_database_backend(), "SELECT id FROM organization ORDER BY name");
        let rows = sql.query_all_raw(statement).await.expect("an answer");
        let organizations = [0, 1].map(|row: usize| rows[row].try_get("", "id").expect("an id"));
        Self { database, sql, both: vec![first, second], keys, organizations }
    }

    pub fn is_postgres(&self) -> bool {
        self.database.is_postgres()
    }

    /// A client of an organization, who says that this call is theirs.
    fn client(&self, program: usize, organization: usize, actor: Option<String>) -> Client {
        let metadata = [("cv-api-key", Some(self.keys[organization].clone())), ("x-actor", actor)];
        let metadata = metadata.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        Client::with_metadata(self.both[program].channel.clone(), metadata)
    }

    /// Makes the three people that there are before the calls with this mark, and answers their ids.
    pub async fn people(&self, mark: u32) -> Vec<Json> {
        let mut ids = Vec::new();
        for (key, organization) in OWNERS.into_iter().enumerate() {
            let mut fields = json!({ "lastName": call::last_name(mark) });
            if key != 1 {
                fields["email"] = json!(call::email(mark, u8::try_from(key).expect("a small number")));
            }
            ids.push(self.client(0, organization, None).person(fields).await["id"].clone());
        }
        ids
    }

    /// Makes all calls of a scenario at once, while what it says happens, and answers what their callers hear. A program
    /// that was killed is still down.
    pub async fn at_once(&mut self, scenario: &Scenario, mark: u32, ids: &[Json]) -> Vec<Heard> {
        let gathering = match scenario.gathers {
            Some(millis) => Some((self.hold().await, millis)),
            None => None,
        };
        match scenario.fault {
            Fault::LostToCallers { program, nth } => self.both[program].callers.lose(nth.into()),
            Fault::LostToProgram { program, nth } => {
                self.both[program].rows.iter().for_each(|rows| rows.lose(nth.into()));
            }
            Fault::Nothing | Fault::Kill { .. } => {}
        }
        let mut made = JoinSet::new();
        for (number, planned) in scenario.calls.iter().cloned().enumerate() {
            let Planned { call, program, after, leaves } = planned;
            let client = self.client(program, call.organization(), Some(format!("{mark}.{number}")));
            let (sql, ids) = (self.sql.clone(), ids.to_vec());
            made.spawn(async move {
                sleep(Duration::from_millis(after.into())).await;
                let heard = match leaves.filter(|_| !matches!(call, Call::Write { .. })) {
                    None => make(&client, &sql, mark, number, &call, &ids).await,
                    Some(leaves) => {
                        let leaves = Duration::from_micros(leaves.into());
                        let made = timeout(leaves, make(&client, &sql, mark, number, &call, &ids)).await;
                        made.unwrap_or(Heard::Left)
                    }
                };
                (number, heard)
            });
        }
        let gathered = async {
            if let Some((transaction, millis)) = gathering {
                sleep(Duration::from_millis(millis.into())).await;
                transaction.rollback().await.expect("a rollback");
            }
        };
        let programs = &mut self.both;
        let killed = async {
            if let Fault::Kill { program, after } = scenario.fault {
                sleep(Duration::from_millis(after.into())).await;
                programs[program].service.signal("KILL");
                programs[program].service.end().await;
            }
        };
        let (mut heard, (), ()) = tokio::join!(made.join_all(), gathered, killed);
        for Program { callers, rows, .. } in &self.both {
            rows.iter().chain([callers]).for_each(Proxy::lose_nothing);
        }
        heard.sort_by_key(|(number, _)| *number);
        heard.into_iter().map(|(_, heard)| heard).collect()
    }

    /// Makes these calls at once, whose numbers follow on so many.
    pub async fn again(&self, calls: &[Call], from: usize, mark: u32, ids: &[Json]) -> Vec<Heard> {
        let made = calls.iter().enumerate().map(|(number, call)| async move {
            let number = from + number;
            let client = self.client(number % 2, call.organization(), Some(format!("{mark}.{number}")));
            make(&client, &self.sql, mark, number, call, ids).await
        });
        futures_util::future::join_all(made).await
    }

    /// Ends both programs, waits until nothing of theirs is under way in the database, and starts them again.
    pub async fn restart(&mut self) {
        for Program { service, .. } in &mut self.both {
            if service.is_running() {
                service.signal("TERM");
                let (code, log) = service.end().await;
                assert_eq!(code, Some(0), "{log:#?}");
            }
        }
        self.both.clear();
        if self.is_postgres() {
            let sessions = "SELECT COUNT(*) AS number FROM pg_stat_activity \
                            WHERE datname = current_database() AND application_name = 'profile-service'";
            until("no session is left", async || self.number(sessions).await == 0).await;
        }
        let start = || Program::start(Arc::clone(&self.database));
        let (first, second) = tokio::join!(start(), start());
        self.both = vec![first, second];
    }

    async fn number(&self, sql: &str) -> i64 {
        let statement = Statement::from_string(self.sql.get_database_backend(), sql);
        let row = self.sql.query_one_raw(statement).await.expect("an answer").expect("a row");
        row.try_get("", "number").expect("a number")
    }

    /// Keeps everybody off the profiles: on SQLite all who write, on PostgreSQL all who read as well.
    async fn hold(&self) -> DatabaseTransaction {
        let transaction = begin(&self.sql).await;
        if self.is_postgres() {
            let lock = "LOCK TABLE profile IN ACCESS EXCLUSIVE MODE";
            transaction.execute_unprepared(lock).await.expect("a lock");
        }
        transaction
    }
}

async fn begin(sql: &DatabaseConnection) -> DatabaseTransaction {
    let immediate =
        TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate), ..Default::default() };
    sql.begin_with_options(immediate).await.expect("a transaction")
}

/// Makes the call with this number.
async fn make(client: &Client, sql: &DatabaseConnection, mark: u32, number: usize, call: &Call, ids: &[Json]) -> Heard {
    if let Call::Write { person, city, email, millis } = call {
        let id: Uuid = ids[*person].as_str().and_then(|id| id.parse().ok()).expect("an id");
        let email = email.map(|email| call::email(mark, email));
        return write(sql, id, OWNERS[*person], &call::city(*city), email, &format!("{mark}.{number}"), *millis).await;
    }
    match client.call(call.rpc(), call.message(mark, ids)).await {
        Ok(_) if matches!(call, Call::Report { .. } | Call::Erase { .. }) => Heard::Done,
        Ok(profile) => match profile["id"].as_str().and_then(|id| id.parse().ok()) {
            Some(id) => Heard::Profile(id, Person::of(&profile, call.organization())),
            None => Heard::Refused("an answer without an id".to_owned()),
        },
        Err(refused) => match (refused.code, refused.reason.as_str()) {
            (Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal, "") => Heard::Lost,
            (_, "OUTCOME_UNKNOWN") => Heard::OutcomeUnknown,
            (_, "DATABASE_UNAVAILABLE" | "TRANSACTION_CONFLICT") => Heard::NotMade(refused.reason),
            _ => Heard::Refused(refused.reason),
        },
    }
}

/// A second writer's change of a person, as the program would save it.
async fn write(
    sql: &DatabaseConnection,
    id: Uuid,
    organization: usize,
    city: &str,
    email: Option<String>,
    actor: &str,
    millis: u8,
) -> Heard {
    let transaction = begin(sql).await;
    let backend = sql.get_database_backend();
    let literal = stored::literal(sql, id);
    if backend == sea_orm::DbBackend::Postgres {
        let lock = format!("SELECT FROM profile WHERE id = {literal} FOR UPDATE");
        if transaction.execute_unprepared(&lock).await.is_err() {
            return Heard::NotMade("deadlock".to_owned());
        }
    }
    let statement = Statement::from_string(backend, format!("SELECT city, email FROM profile WHERE id = {literal}"));
    let Some(row) = transaction.query_one_raw(statement).await.expect("an answer") else {
        return Heard::Refused("PROFILE_NOT_FOUND".to_owned());
    };
    sleep(Duration::from_millis(millis.into())).await;
    let (mut fields, mut old, mut new) = (Vec::new(), Map::new(), Map::new());
    for (column, value) in [("city", Some(city.to_owned())), ("email", email)] {
        let before: Option<String> = row.try_get("", column).expect("text");
        if let Some(value) = value.filter(|value| before.as_ref() != Some(value)) {
            fields.push(column);
            old.extend(before.map(|before| (column.to_owned(), json!(before))));
            new.insert(column.to_owned(), json!(value));
        }
    }
    let sets: Vec<_> =
        new.iter().map(|(column, value)| format!("{column} = '{}'", value.as_str().expect("text"))).collect();
    let update = format!(
        "UPDATE profile SET revision = revision + 1{} WHERE id = {literal}",
        [&[String::new()], &sets[..]].concat().join(", ")
    );
    let record = format!(
        "INSERT INTO profile_change (profile_id, revision, organization_id, changed_at, rpc, key_id, key_name, actor, lock_overridden, fields, old_values, new_values) \
         SELECT id, revision, organization_id, updated_at, 'SQL', 'sql', 'sql', '{actor}', FALSE, '{}', '{}', '{}' FROM profile WHERE id = {literal}",
        fields.join(" "),
        Json::Object(old),
        Json::Object(new),
    );
    for statement in [update, record] {
        if let Err(error) = transaction.execute_unprepared(&statement).await {
            return match error.sql_err() {
                Some(SqlErr::UniqueConstraintViolation(_)) => Heard::Refused("EMAIL_IN_USE".to_owned()),
                _ => Heard::NotMade("deadlock".to_owned()),
            };
        }
    }
    let statement = Statement::from_string(
        backend,
        format!(
            "SELECT revision, locked, first_name, email, phone_number, city, identifiers FROM profile WHERE id = {literal}"
        ),
    );
    let row = transaction.query_one_raw(statement).await.expect("an answer").expect("a row");
    let person = stored::person(&row, organization);
    match transaction.commit().await {
        Ok(()) => Heard::Profile(id, person),
        Err(_) => Heard::NotMade("deadlock".to_owned()),
    }
}
