//! What the tables have after the calls with a mark, and what must hold of them whatever the calls were.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend, DbErr, QueryResult, Statement};
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use super::{
    call::{Call, OWNERS, last_name, request_id},
    model::{CREATED, Person, Revision, State},
};

/// What is stored, and who is who in it.
pub struct Stored {
    pub state: State,
    pub keys: HashMap<Uuid, usize>,
}

/// A row of the history.
struct Row {
    profile: Uuid,
    revision: i64,
    rpc: String,
    actor: Option<String>,
    request_id: Option<String>,
    changed_at: DateTime<Utc>,
    fields: String,
    old: Map<String, Json>,
    new: Map<String, Json>,
}

/// Reads what is stored about the three people with these ids and those whom these calls have created.
///
/// # Errors
///
/// Says what does not fit together.
pub async fn read(
    database: &DatabaseConnection,
    organizations: [Uuid; 2],
    mark: u32,
    ids: &[Uuid],
    calls: &[Call],
) -> Result<Stored, String> {
    let tables = Tables { database, organizations, mark };
    let people = tables.people().await;
    let histories = tables.histories(ids.iter().chain(people.keys())).await;
    let mut stored =
        Stored { state: State::default(), keys: ids.iter().enumerate().map(|(key, id)| (*id, key)).collect() };
    for (id, rows) in &histories {
        let key = match (stored.keys.get(id), rows[0].by(mark, calls)?) {
            (Some(key), _) => *key,
            (None, Some(by)) => CREATED + by,
            (None, None) => return Err(format!("{id} was created by nobody")),
        };
        let history = told(key, rows, mark, calls)?;
        let last = rows.last().map(|row| row.changed_at);
        match people.get(id) {
            Some((person, updated_at)) => {
                if history.last().and_then(|revision| revision.left.as_ref()) != Some(person)
                    || last != Some(*updated_at)
                {
                    return Err(format!(
                        "{key} is {person:?} of {updated_at}, and its history {history:?} ends at {last:?}"
                    ));
                }
                stored.state.people.insert(key, person.clone());
            }
            None if is_erased(rows) => {}
            None => return Err(format!("{key} has a history {history:?} and no row")),
        }
        stored.state.history.insert(key, history);
        stored.keys.insert(*id, key);
    }
    if let Some(id) = people.keys().find(|id| !histories.contains_key(*id)) {
        return Err(format!("{:?} has no history", people[id].0));
    }
    tables.claims(&mut stored).await?;
    tables.cases(&mut stored).await?;
    tables.identifiers(&stored).await?;
    Ok(stored)
}

/// The tables, as far as calls with a mark have filled them.
struct Tables<'a> {
    database: &'a DatabaseConnection,
    organizations: [Uuid; 2],
    mark: u32,
}

impl Tables<'_> {
    async fn query(&self, sql: String) -> Vec<QueryResult> {
        let statement = Statement::from_string(self.database.get_database_backend(), sql);
        self.database.query_all_raw(statement).await.expect("an answer")
    }

    fn organization(&self, row: &QueryResult) -> usize {
        let id: Uuid = get(row, "organization_id");
        self.organizations.iter().position(|organization| *organization == id).expect("one of both")
    }

    /// The people by their ids, with when they were changed last.
    async fn people(&self) -> HashMap<Uuid, (Person, DateTime<Utc>)> {
        let rows = self.query(format!(
            "SELECT id, organization_id, revision, locked, first_name, email, phone_number, city, identifiers, updated_at \
             FROM profile WHERE last_name = '{}'",
            last_name(self.mark)
        ));
        let of = |row: QueryResult| (get(&row, "id"), (person(&row, self.organization(&row)), get(&row, "updated_at")));
        rows.await.into_iter().map(of).collect()
    }

    /// The histories of people with these ids, and what else the calls have left in the history.
    async fn histories(&self, ids: impl Iterator<Item = &Uuid>) -> BTreeMap<Uuid, Vec<Row>> {
        let about = ids.map(|id| literal(self.database, *id)).collect::<Vec<_>>().join(", ");
        let rows = self.query(format!(
            "SELECT profile_id, revision, rpc, actor, request_id, changed_at, fields, old_values, new_values \
             FROM profile_change WHERE profile_id IN ({about}) OR actor LIKE '{}.%' ORDER BY profile_id, revision",
            self.mark
        ));
        let mut histories = BTreeMap::<_, Vec<_>>::new();
        for row in rows.await {
            let row = Row::from(&row);
            histories.entry(row.profile).or_default().push(row);
        }
        histories
    }

    async fn claims(&self, stored: &mut Stored) -> Result<(), String> {
        let sql = "SELECT organization_id, rpc, request_id, profile_id FROM write_request WHERE request_id LIKE";
        for row in self.query(format!("{sql} '{}-%'", self.mark)).await {
            let request = get::<String>(&row, "request_id");
            let request = request.rsplit('-').next().and_then(|number| number.parse().ok()).expect("a number");
            let claim = (self.organization(&row), get(&row, "rpc"), request);
            let key = stored.keys.get(&get(&row, "profile_id"));
            let key = *key.ok_or_else(|| format!("{claim:?} stands for nobody"))?;
            stored.state.claims.insert(claim, key);
        }
        Ok(())
    }

    async fn cases(&self, stored: &mut Stored) -> Result<(), String> {
        let sql =
            "SELECT organization_id, case_id, profile_id, status, status_time FROM profile_case WHERE case_id LIKE";
        for row in self.query(format!("{sql} '{}.%'", self.mark)).await {
            let (time, status): (DateTime<Utc>, String) = (get(&row, "status_time"), get(&row, "status"));
            let time = u8::try_from(time.timestamp() % 10).expect("a digit");
            let about = stored.keys.get(&get(&row, "profile_id")).ok_or("a case is about nobody")?;
            let case = last(&get::<String>(&row, "case_id"));
            stored.state.cases.insert((self.organization(&row), case), (*about, (time, status == "ASSIGNED")));
        }
        Ok(())
    }

    /// Whether the identifiers of people are those that the index has.
    async fn identifiers(&self, stored: &Stored) -> Result<(), String> {
        let sql = "SELECT organization_id, value, profile_id FROM profile_identifier WHERE value LIKE";
        let rows = self.query(format!("{sql} '{}.%'", self.mark)).await;
        let owner = |row: &QueryResult| {
            let key = stored.keys.get(&get(row, "profile_id")).copied();
            ((self.organization(row), last(&get::<String>(row, "value"))), key)
        };
        let owners: BTreeMap<_, _> = rows.iter().map(owner).collect();
        let have = stored.state.people.iter().flat_map(|(key, person)| {
            person.identifiers.iter().map(|value| ((person.organization, *value), Some(*key)))
        });
        let have: BTreeMap<_, _> = have.collect();
        if owners == have {
            Ok(())
        } else {
            Err(format!("people have the identifiers {have:?}, and the index {owners:?}"))
        }
    }
}

/// The person in a row.
pub fn person(row: &QueryResult, organization: usize) -> Person {
    let text = |column: &str| -> Option<String> { get(row, column) };
    let revision = u64::try_from(get::<i64>(row, "revision")).expect("a revision");
    let mut person = Person { organization, revision, locked: get(row, "locked"), ..Person::default() };
    for column in ["first_name", "email", "phone_number", "city"] {
        person.set(column, text(column).as_deref());
    }
    person.identifiers = text("identifiers").iter().flat_map(|lines| lines.lines()).map(last).collect();
    person
}

/// Whether the person with this history was erased.
fn is_erased(rows: &[Row]) -> bool {
    rows.last().is_some_and(|row| row.rpc.ends_with("EraseProfile"))
}

/// The revisions that a history tells of.
fn told(key: usize, rows: &[Row], mark: u32, calls: &[Call]) -> Result<Vec<Revision>, String> {
    let erased = is_erased(rows);
    let (mut history, mut person) = (Vec::<Revision>::new(), Person::default());
    let mut before = DateTime::<Utc>::MIN_UTC;
    for (number, row) in rows.iter().enumerate() {
        if row.revision != i64::try_from(number + 1).expect("a small number") {
            return Err(format!("revision {} of {key} is where {} should be", row.revision, number + 1));
        }
        if row.changed_at < before {
            return Err(format!(
                "revision {} of {key} is of {}, and the one before it of {before}",
                row.revision, row.changed_at
            ));
        }
        before = row.changed_at;
        let by = row.by(mark, calls)?;
        if erased {
            if !row.old.is_empty() || !row.new.is_empty() {
                return Err(format!("revision {} of {key}, who was erased, has values", row.revision));
            }
            history.push(Revision { by, left: None });
            continue;
        }
        row.apply_to(&mut person).map_err(|error| format!("revision {} of {key}: {error}", row.revision))?;
        if number == 0 {
            person.organization = match (key.checked_sub(CREATED), by) {
                (Some(_), Some(by)) => calls[by].organization(),
                _ => OWNERS[key],
            };
        }
        person.revision = u64::try_from(row.revision).expect("a revision");
        history.push(Revision { by, left: Some(person.clone()) });
    }
    Ok(history)
}

impl Row {
    fn from(row: &QueryResult) -> Self {
        let values = |column: &str| {
            let text: Option<String> = get(row, column);
            text.map(|text| serde_json::from_str(&text).expect("an object")).unwrap_or_default()
        };
        Self {
            profile: get(row, "profile_id"),
            revision: get(row, "revision"),
            rpc: get(row, "rpc"),
            actor: get(row, "actor"),
            request_id: get(row, "request_id"),
            changed_at: get(row, "changed_at"),
            fields: get(row, "fields"),
            old: values("old_values"),
            new: values("new_values"),
        }
    }

    /// The call that it names, which must be of its RPC and have its request id.
    fn by(&self, mark: u32, calls: &[Call]) -> Result<Option<usize>, String> {
        let Some(actor) = &self.actor else { return Ok(None) };
        let number = actor.strip_prefix(&format!("{mark}.")).and_then(|number| number.parse::<usize>().ok());
        let Some((number, call)) = number.and_then(|number| Some((number, calls.get(number)?))) else {
            return Err(format!("a revision was made by {actor}"));
        };
        let request = call.request().map(|request| request_id(mark, request));
        if self.rpc != call.rpc() || self.request_id != request {
            return Err(format!("call {number} {call:?} is told as {} {:?}", self.rpc, self.request_id));
        }
        Ok(Some(number))
    }

    /// Applies the values to what was there before, which the row must know.
    fn apply_to(&self, person: &mut Person) -> Result<(), String> {
        for field in self.fields.split_ascii_whitespace() {
            let (old, new) = (self.old.get(field), self.new.get(field));
            if field == "identifiers" {
                let pairs = |value: Option<&Json>| -> Vec<u8> {
                    let pairs = value.and_then(Json::as_array).into_iter().flatten();
                    pairs.map(|pair| last(pair.as_str().expect("text"))).collect()
                };
                let known = pairs(old).iter().all(|value| person.identifiers.remove(value));
                if !known || !pairs(new).into_iter().all(|value| person.identifiers.insert(value)) {
                    return Err(format!(
                        "{old:?} and {new:?} are no identifiers that were lost and gained by {person:?}"
                    ));
                }
            } else if field == "locked" {
                if (old.is_some(), new.is_some()) != (person.locked, !person.locked) {
                    return Err(format!("locked from {old:?} to {new:?}, but it was {}", person.locked));
                }
                person.locked = new.is_some();
            } else {
                let mut known = person.clone();
                known.set(field, old.and_then(Json::as_str));
                if known != *person {
                    return Err(format!("{field} is said to have been {old:?} of {person:?}"));
                }
                person.set(field, new.and_then(Json::as_str));
            }
        }
        Ok(())
    }
}

impl Person {
    /// Sets what the column of this name tells.
    pub fn set(&mut self, column: &str, text: Option<&str>) {
        let field = match column {
            "city" => &mut self.city,
            "email" => &mut self.email,
            "phone_number" => &mut self.phone,
            "first_name" => &mut self.name,
            _ => return,
        };
        *field = text.filter(|text| *text != "Ada").map(last);
    }

    /// Who is answered.
    pub fn of(profile: &Json, organization: usize) -> Self {
        let etag = profile["etag"].as_str().and_then(|etag| etag.trim_matches('"').parse().ok());
        let mut person = Self { organization, revision: etag.unwrap_or_default(), ..Self::default() };
        for (column, field) in
            [("city", "city"), ("email", "email"), ("phone_number", "phoneNumber"), ("first_name", "firstName")]
        {
            person.set(column, profile[field].as_str());
        }
        let identifiers = profile["identifiers"].as_array().into_iter().flatten();
        person.identifiers = identifiers.map(|pair| last(pair["value"].as_str().expect("a value"))).collect();
        person.locked = profile.get("lockedFields").is_some();
        person
    }
}

/// The number of what a value stands for: the last one in it, or a phone number's last digit.
fn last(text: &str) -> u8 {
    let text = text.split('@').next().unwrap_or_default();
    let digits = if text.starts_with('+') {
        &text[text.len() - 1..]
    } else {
        text.rsplit(['.', ' ', '|']).next().unwrap_or_default()
    };
    digits.parse().unwrap_or_else(|_| panic!("no number in {text}"))
}

/// The id as the database's SQL has it.
pub fn literal(database: &DatabaseConnection, id: Uuid) -> String {
    match database.get_database_backend() {
        DbBackend::Sqlite => format!("x'{}'", id.simple()),
        _ => format!("'{id}'"),
    }
}

fn get<T: sea_orm::TryGetable>(row: &QueryResult, column: &str) -> T {
    let value: Result<T, DbErr> = row.try_get("", column);
    value.unwrap_or_else(|error| panic!("{column}: {error}"))
}

/// What there was before the calls: three people, two of whom have e-mail addresses.
pub fn before() -> State {
    let mut state = State::default();
    for (key, organization) in OWNERS.into_iter().enumerate() {
        let email = (key != 1).then_some(u8::try_from(key).expect("a small number"));
        let person = Person { organization, revision: 1, email, ..Person::default() };
        state.history.insert(key, vec![Revision { by: None, left: Some(person.clone()) }]);
        state.people.insert(key, person);
    }
    state
}
