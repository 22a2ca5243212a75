//! Changes that are carried out together look as if each had been alone.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::{Value as Json, json};
use tokio::{task::JoinSet, time::timeout};

use crate::harness::{Client, Database, Outcome, STOP, Service, client, progress};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_of_one_profile_has_its_history_with_its_own_key_rpc_and_request() {
    let (mut service, north) = client().await;
    let ada = north.person(json!({ "email": "ada@example.com" })).await;
    let (mut calls, mut keys) = (JoinSet::new(), HashMap::new());
    for number in 0..60 {
        let key = service.key("north", &["profiles.write", "support"]);
        let north = service.client(&key).await;
        keys.insert(format!("r-{number}"), key.split('_').nth(1).expect("a lookup id").to_owned());
        let (rpc, mut request) = match number % 3 {
            0 => ("ProfileService/PatchProfile", json!({ "profile": { "id": ada["id"] } })),
            1 => ("ProfileService/UpdateProfile", json!({ "data": { "email": "ada@example.com" } })),
            _ => ("SupportService/CorrectProfile", json!({ "profile": { "id": ada["id"] }, "reason": "she says so" })),
        };
        let field = if number % 3 == 1 { "data" } else { "profile" };
        request[field]["city"] = json!(format!("City {number}"));
        request["requestId"] = json!(format!("r-{number}"));
        calls.spawn(async move { (rpc, number, north.call(rpc, request).await.expect("changed")) });
    }
    let answers: HashMap<_, _> =
        calls.join_all().await.into_iter().map(|(rpc, n, answer)| (n, (rpc, answer))).collect();

    let changes = north.changes(&ada).await;
    assert_eq!(changes.len(), 61);
    for change in &changes[..60] {
        let request = change["requestId"].as_str().expect("a request id");
        let number: i32 = request.trim_start_matches("r-").parse().expect("a number");
        let (rpc, answer) = &answers[&number];
        assert_eq!((&change["rpc"], &change["keyId"]), (&json!(rpc), &json!(keys[request])));
        assert_eq!(change["fields"][0]["newValue"], json!(format!("City {number}")));
        assert_eq!(answer["etag"], json!(format!("\"{}\"", change["revision"].as_str().expect("a revision"))));
        assert_eq!(answer["city"], change["fields"][0]["newValue"]);
    }
    service.signal("TERM");
    let (_, log) = service.end().await;
    let lines = log.iter().map(|line| serde_json::from_str::<Json>(line).expect("JSON"));
    let calls: Vec<_> = lines.filter(|line| line["message"] == "call").map(|line| line["span"].clone()).collect();
    let logged: HashSet<_> = calls.iter().filter_map(|span| span["key_id"].as_str()).collect();
    assert!(keys.values().all(|key| logged.contains(key.as_str())), "a call has another key's line");
    assert!(calls.iter().all(|span| span["profile_id"] == ada["id"]), "a call has another profile's line");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_refused_fails_no_other() {
    let (_service, north) = client().await;
    north.person(json!({ "email": "taken@example.com", "phoneNumber": "+15550000" })).await;
    let ada = north.person(json!({})).await;
    let mut calls = JoinSet::new();
    for number in 0..400 {
        let (north, ada) = (north.clone(), ada.clone());
        calls.spawn(async move {
            let names = json!({ "firstName": "Eve", "lastName": "King" });
            let with = |field: &str, value: &str| {
                let mut person = names.clone();
                person[field] = json!(value);
                person
            };
            let (outcome, reason) = match number % 5 {
                0 => (north.create(with("email", "taken@example.com")).await, "EMAIL_IN_USE"),
                1 => (north.create(with("phoneNumber", "+15550000")).await, "PHONE_NUMBER_IN_USE"),
                2 => (north.patch(&ada, json!({ "city": "x", "etag": "\"99999\"" })).await, "ETAG_MISMATCH"),
                3 => (north.create(with("email", &format!("{number}@example.com"))).await, ""),
                _ => (north.patch(&ada, json!({ "city": format!("City {number}") })).await, ""),
            };
            assert_eq!(outcome.map_or_else(|refused| refused.reason, |_| String::new()), reason);
        });
    }
    calls.join_all().await;
    assert_eq!(north.changes(&ada).await.len(), 81);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_somebody_else_has_locked_holds_up_its_own_changes_alone() {
    let (service, north) = client().await;
    if !service.database.is_postgres() {
        println!("nothing to do: SQLite locks no rows");
        return;
    }
    let (ada, eve) = (north.person(json!({})).await, north.person(json!({})).await);
    let connection = service.database.connect().await;
    let other = connection.begin().await.expect("a transaction");
    let lock = format!("SELECT FROM profile WHERE id = '{}' FOR UPDATE", ada["id"].as_str().expect("an id"));
    other.execute_unprepared(&lock).await.expect("a lock");
    let mut waiting = JoinSet::new();
    for number in 0..16 {
        let (north, ada) = (north.clone(), ada.clone());
        waiting.spawn(async move { north.patch(&ada, json!({ "city": format!("City {number}") })).await });
    }
    for number in 0..200 {
        let patched = timeout(Duration::from_secs(1), north.patch(&eve, json!({ "city": format!("City {number}") })));
        patched.await.expect("no wait for somebody else's row").expect("patched");
    }
    other.rollback().await.expect("a rollback");
    for outcome in waiting.join_all().await {
        assert!(outcome.is_ok() || outcome.is_err_and(|refused| refused.reason == "TRANSACTION_CONFLICT"));
    }
}

/// More calls than may wait for one profile: those are told at once, and the others' permits go with their callers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_locked_row_is_bounded_and_gives_its_permits_back() {
    let service = Service::on(Arc::new(Database::create()), ["--max-in-flight", "64"]);
    let north = service.organization("north").await;
    if !service.database.is_postgres() {
        println!("nothing to do: SQLite locks no rows");
        return;
    }
    let (ada, eve) = (north.person(json!({})).await, north.person(json!({})).await);
    let held = service.database.hold().await;
    let calls = |from: usize, to: usize| {
        let mut calls = JoinSet::new();
        for number in from..to {
            let (north, ada) = (north.clone(), ada.clone());
            calls.spawn(async move { north.patch(&ada, json!({ "city": format!("City {number}") })).await });
        }
        calls
    };
    let mut waiting = calls(0, 60);
    let refused = waiting.join_next().await.expect("an answer").expect("a call").expect_err("one too many");
    assert_eq!(refused.reason, "TRANSACTION_CONFLICT");
    waiting.abort_all();
    while waiting.join_next().await.is_some() {}
    // Whoever waited has gone, and so have the permits: as many may come again.
    let read = async { while north.get(&eve).await.is_err() {} };
    timeout(Duration::from_secs(1), read).await.expect("a permit");
    held.release().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_gives_fewer_connections_than_asked_is_used_with_those() {
    let database = Arc::new(Database::create());
    if !database.is_postgres() {
        println!("nothing to do: SQLite refuses no connection");
        return;
    }
    let role = format!("few_{}", database.url().rsplit_once('_').expect("a name").1);
    database.execute(&format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 3")).await;
    database.execute(&format!("GRANT ALL ON SCHEMA public TO {role}")).await;
    let url = database.url().replacen("://postgres@", &format!("://{role}@"), 1);
    assert!(url.contains(&role), "the tests' user is postgres");
    let service = Service::by_url(Arc::clone(&database), &url, []);
    service.run(["organization", "create", "north"]);
    let key = service.key("north", &["profiles.read", "profiles.write"]);
    let north = service.client(&key).await;
    let successes = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for caller in 0..32 {
        let (north, successes) = (north.clone(), Arc::clone(&successes));
        callers.spawn(async move {
            for number in 0.. {
                if successes.load(Ordering::SeqCst) >= STOP {
                    break;
                }
                let person = north.person(json!({ "email": format!("{caller}.{number}@example.com") })).await;
                assert_eq!(north.get(&person).await.as_ref(), Ok(&person));
                successes.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    progress(&successes, 1000).await;
    successes.fetch_add(STOP, Ordering::SeqCst);
    callers.join_all().await;
    drop(service);
    database.execute(&format!("DROP OWNED BY {role}")).await;
    database.execute(&format!("DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_organizations_flood_leaves_another_its_writes() {
    let database = Arc::new(Database::create());
    let (url, _proxy) = database.behind_a_proxy(Duration::from_millis(4)).await;
    let service = Service::by_url(Arc::clone(&database), &url, []);
    let (north, south) = (service.organization("north").await, service.organization("south").await);
    let (ada, eve) = (north.person(json!({})).await, south.person(json!({})).await);
    let floods = Arc::new(AtomicU64::new(0));
    let mut flood = JoinSet::new();
    for caller in 0..400 {
        let (north, ada, floods) = (north.clone(), ada.clone(), Arc::clone(&floods));
        flood.spawn(async move {
            while floods.fetch_add(1, Ordering::SeqCst) < STOP {
                let _ = north.patch(&ada, json!({ "city": format!("City {caller}") })).await;
            }
        });
    }
    progress(&floods, 800).await;
    for number in 0..50 {
        south.patch(&eve, json!({ "city": format!("City {number}") })).await.expect("its turn");
    }
    floods.fetch_add(STOP, Ordering::SeqCst);
    flood.join_all().await;
}

/// A call, in small numbers: addresses and request ids are meant to meet.
#[derive(Clone, Debug, PartialEq)]
enum Call {
    Create {
        organization: usize,
        email: Option<u8>,
        phone: Option<u8>,
        request: Option<u8>,
    },
    Patch {
        organization: usize,
        person: usize,
        city: Option<u8>,
        email: Option<u8>,
        phone: Option<u8>,
        name: Option<u8>,
        etag: Option<u8>,
        request: Option<u8>,
        validate_only: bool,
    },
    Update {
        organization: usize,
        email: u8,
        city: u8,
        request: Option<u8>,
    },
    Report {
        person: usize,
        case: u8,
        locks: bool,
        time: u8,
    },
}

fn any_call() -> impl Strategy<Value = Call> {
    let request = || proptest::option::weighted(0.3, 0..3u8);
    let address = || proptest::option::weighted(0.4, 0..4u8);
    prop_oneof![
        2 => (0..2usize, address(), address(), request())
            .prop_map(|(organization, email, phone, request)| Call::Create { organization, email, phone, request }),
        5 => (
            (0..2usize, 0..3usize, proptest::option::of(0..3u8), address(), address()),
            (proptest::option::weighted(0.2, 0..2u8), proptest::option::weighted(0.2, 1..4u8), request(), prop::bool::weighted(0.1)),
        )
            .prop_map(|((organization, person, city, email, phone), (name, etag, request, validate_only))| Call::Patch {
                organization, person, city, email, phone, name, etag, request, validate_only,
            }),
        2 => (0..2usize, 0..4u8, 0..3u8, request())
            .prop_map(|(organization, email, city, request)| Call::Update { organization, email, city, request }),
        1 => (0..3usize, 0..2u8, any::<bool>(), 0..3u8)
            .prop_map(|(person, case, locks, time)| Call::Report { person, case, locks, time }),
    ]
}

/// The organization of each of the three people that there are.
const OWNERS: [usize; 3] = [0, 0, 1];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Person {
    organization: usize,
    revision: u64,
    city: Option<u8>,
    email: Option<u8>,
    phone: Option<u8>,
    name: Option<u8>,
    locked: bool,
}

/// The contract for these calls, as one would write it for a single caller.
#[derive(Clone, Debug, Default)]
struct Model {
    people: BTreeMap<usize, Person>,
    claims: HashMap<(usize, &'static str, u8), (Call, usize)>,
    cases: BTreeMap<(usize, u8), (usize, (u8, bool))>,
}

/// What a call answers: the person, or the reason why not.
type Answered = Result<Person, &'static str>;

impl Model {
    /// Carries out the call with this number.
    fn carry_out(&mut self, number: usize, call: &Call) -> Answered {
        let claim = match call {
            Call::Create { organization, request, .. } => request.map(|id| (*organization, "create", id)),
            Call::Patch { organization, request, validate_only, .. } => {
                request.filter(|_| !validate_only).map(|id| (*organization, "patch", id))
            }
            Call::Update { organization, request, .. } => request.map(|id| (*organization, "update", id)),
            Call::Report { .. } => None,
        };
        if let Some((earlier, person)) = claim.and_then(|claim| self.claims.get(&claim)) {
            return if earlier == call { Ok(self.people[person]) } else { Err("REQUEST_ID_REUSED") };
        }
        let (key, person) = self.change(number, call)?;
        if let Some(claim) = claim {
            self.claims.insert(claim, (call.clone(), key));
        }
        Ok(person)
    }

    fn change(&mut self, number: usize, call: &Call) -> Result<(usize, Person), &'static str> {
        match *call {
            Call::Create { organization, email, phone, request: _ } => {
                let key = 100 + number;
                let person = Person { organization, revision: 1, email, phone, ..Person::default() };
                self.free(key, &person, &Person::default())?;
                self.people.insert(key, person);
                Ok((key, person))
            }
            Call::Patch { organization, person: key, city, email, phone, name, etag, request: _, validate_only } => {
                let before = self.people[&key];
                if before.organization != organization {
                    return Err("PROFILE_NOT_FOUND");
                }
                if etag.is_some_and(|etag| u64::from(etag) != before.revision) {
                    return Err("ETAG_MISMATCH");
                }
                let after = Person {
                    city: city.or(before.city),
                    email: email.or(before.email),
                    phone: phone.or(before.phone),
                    name: name.or(before.name),
                    ..before
                };
                if before.locked && after.name != before.name {
                    return Err("DEMOGRAPHICS_LOCKED");
                }
                self.free(key, &after, &before)?;
                if validate_only {
                    return Ok((key, after));
                }
                Ok((key, self.keep(key, after)))
            }
            Call::Update { organization, email, city, request: _ } => {
                let found = self.people.iter().find(|(_, person)| person.email == Some(email));
                let (key, person) = found.ok_or("USER_NOT_FOUND")?;
                if person.organization != organization {
                    return Err("USER_NOT_IN_ORGANIZATION");
                }
                let (key, person) = (*key, Person { city: Some(city), ..*person });
                Ok((key, self.keep(key, person)))
            }
            Call::Report { person: key, case, locks, time } => {
                let stored = self.cases.entry((OWNERS[key], case)).or_insert((key, (time, locks)));
                if stored.0 != key {
                    return Err("CASE_OF_ANOTHER_PROFILE");
                }
                stored.1 = stored.1.max((time, locks));
                let locked = self.cases.values().any(|(person, (_, locks))| *person == key && *locks);
                let person = Person { locked, ..self.people[&key] };
                Ok((key, self.keep(key, person)))
            }
        }
    }

    /// Whether nobody else has the addresses that a change sets.
    fn free(&self, key: usize, after: &Person, before: &Person) -> Result<(), &'static str> {
        let others = || self.people.iter().filter(|(other, _)| **other != key).map(|(_, other)| other);
        if after.email.is_some() && after.email != before.email && others().any(|other| other.email == after.email) {
            Err("EMAIL_IN_USE")
        } else if after.phone.is_some()
            && after.phone != before.phone
            && others().any(|other| other.phone == after.phone)
        {
            Err("PHONE_NUMBER_IN_USE")
        } else {
            Ok(())
        }
    }

    /// Keeps what a change leaves, which is a new revision if it changes anything.
    fn keep(&mut self, key: usize, after: Person) -> Person {
        let before = &self.people[&key];
        let changed = after != *before;
        let after = Person { revision: before.revision + u64::from(changed), ..after };
        self.people.insert(key, after);
        after
    }

    /// What can be told apart of two models with the same calls behind them.
    fn state(&self) -> String {
        let mut claims: Vec<_> = self.claims.iter().map(|(key, (_, person))| (*key, *person)).collect();
        claims.sort_unstable();
        format!("{:?} {claims:?} {:?}", self.people, self.cases)
    }
}

/// Whether some order of these calls, one by one, answers what was answered and leaves these three people.
fn has_an_order(
    model: &Model,
    calls: &[(Call, Answered)],
    left: &[usize],
    end: &[Person],
    seen: &mut HashSet<String>,
) -> bool {
    if left.is_empty() {
        return model.people.values().take(3).eq(end);
    }
    if !seen.insert(format!("{left:?} {}", model.state())) {
        return false;
    }
    left.iter().any(|number| {
        let (call, answered) = &calls[*number];
        let mut next = model.clone();
        let rest: Vec<_> = left.iter().copied().filter(|other| other != number).collect();
        same(call, &next.carry_out(*number, call), answered) && has_an_order(&next, calls, &rest, end, seen)
    })
}

/// Whether an answer is that of the model: where both addresses are taken, either is told. A report answers its case.
fn same(call: &Call, modelled: &Answered, answered: &Answered) -> bool {
    match (modelled, answered) {
        (Ok(_), Ok(_)) if matches!(call, Call::Report { .. }) => true,
        (Err("EMAIL_IN_USE"), Err("PHONE_NUMBER_IN_USE")) => matches!(call, Call::Create { .. } | Call::Patch { .. }),
        _ => modelled == answered,
    }
}

/// Makes a call, and answers what the model would.
async fn make(clients: [Client; 2], ids: Arc<[Json]>, mark: usize, call: Call) -> Answered {
    let email = |email: u8| json!(format!("{mark}.{email}@example.com"));
    let phone = |phone: u8| json!(format!("+1555{mark}{phone}"));
    let mut fields = json!({});
    let set = |fields: &mut Json, name: &str, value: Option<Json>| {
        if let Some(value) = value {
            fields[name] = value;
        }
    };
    let (organization, rpc, mut request) = match &call {
        Call::Create { organization, email: address, phone: number, request } => {
            fields = json!({ "firstName": "Ada", "lastName": "Byron" });
            set(&mut fields, "email", address.map(email));
            set(&mut fields, "phoneNumber", number.map(phone));
            (*organization, "ProfileService/CreateProfile", json!({ "profile": fields, "requestId": request }))
        }
        Call::Patch {
            organization,
            person,
            city,
            email: address,
            phone: number,
            name,
            etag,
            request,
            validate_only,
        } => {
            fields["id"] = ids[*person].clone();
            set(&mut fields, "city", city.map(|city| json!(format!("City {city}"))));
            set(&mut fields, "email", address.map(email));
            set(&mut fields, "phoneNumber", number.map(phone));
            set(&mut fields, "firstName", name.map(|name| json!(format!("Name {name}"))));
            set(&mut fields, "etag", etag.map(|etag| json!(format!("\"{etag}\""))));
            let request = json!({ "profile": fields, "requestId": request, "validateOnly": validate_only });
            (*organization, "ProfileService/PatchProfile", request)
        }
        Call::Update { organization, email: address, city, request } => {
            let data = json!({ "email": email(*address), "city": format!("City {city}") });
            (*organization, "ProfileService/UpdateProfile", json!({ "data": data, "requestId": request }))
        }
        Call::Report { person, case, locks, time } => {
            let request = json!({
                "caseId": format!("{mark}.{case}"),
                "profileId": ids[*person],
                "status": if *locks { "ASSIGNED" } else { "OPEN" },
                "statusTime": format!("2026-01-05T10:00:0{time}Z"),
            });
            (OWNERS[*person], "CaseService/ReportCaseStatus", request)
        }
    };
    if let Some(id) = request.get("requestId").and_then(Json::as_u64) {
        request["requestId"] = json!(format!("{mark}-{id}"));
    }
    answered(clients[organization].call(rpc, request).await, organization)
}

fn answered(outcome: Outcome, organization: usize) -> Answered {
    let reasons = [
        "REQUEST_ID_REUSED",
        "PROFILE_NOT_FOUND",
        "ETAG_MISMATCH",
        "DEMOGRAPHICS_LOCKED",
        "EMAIL_IN_USE",
        "PHONE_NUMBER_IN_USE",
        "USER_NOT_FOUND",
        "USER_NOT_IN_ORGANIZATION",
        "CASE_OF_ANOTHER_PROFILE",
    ];
    match outcome {
        Ok(profile) => Ok(person(&profile, organization)),
        Err(refused) => Err(reasons.into_iter().find(|reason| *reason == refused.reason).unwrap_or("UNEXPECTED")),
    }
}

fn person(profile: &Json, organization: usize) -> Person {
    let last = |field: &str, tail: fn(&str) -> Option<&str>| -> Option<u8> {
        profile.get(field).and_then(Json::as_str).and_then(tail).and_then(|digit| digit.parse().ok())
    };
    Person {
        organization,
        revision: profile["etag"].as_str().and_then(|etag| etag.trim_matches('"').parse().ok()).unwrap_or_default(),
        city: last("city", |text| text.strip_prefix("City ")),
        email: last("email", |text| text.split('@').next()?.split('.').nth(1)),
        phone: last("phoneNumber", |text| text.get(text.len() - 1..)),
        name: last("firstName", |text| text.strip_prefix("Name ")),
        locked: profile.get("lockedFields").is_some(),
    }
}

/// Any list of changes that are given at once, to two programs on one database, ends as some order of them one by one.
#[test]
fn grouping_is_invisible() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let (services, clients) = runtime.block_on(async {
        let database = Arc::new(Database::create());
        let services = [Service::on(Arc::clone(&database), []), Service::on(Arc::clone(&database), [])];
        let scopes = ["profiles.read", "profiles.write", "cases.report"];
        let mut clients = Vec::new();
        for service in &services {
            for name in ["north", "south"] {
                if clients.len() < 2 {
                    service.run(["organization", "create", name]);
                }
                clients.push(service.client(&service.key(name, &scopes)).await);
            }
        }
        (services, clients)
    });
    let clients: Vec<[Client; 2]> = clients.chunks(2).map(|pair| [pair[0].clone(), pair[1].clone()]).collect();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(60);
    let mark = std::cell::Cell::new(100);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let result = runner.run(&proptest::collection::vec(any_call(), 2..14), |calls| {
        mark.set(mark.get() + 1);
        let (answers, end) = runtime.block_on(at_once(&clients, mark.get(), &calls));
        let people = OWNERS.into_iter().enumerate().map(|(key, organization)| {
            let email = (key != 1).then_some(u8::try_from(key).expect("a small number"));
            (key, Person { organization, revision: 1, email, ..Person::default() })
        });
        let model = Model { people: people.collect(), ..Model::default() };
        let answered: Vec<_> = calls.into_iter().zip(answers).collect();
        let left: Vec<_> = (0..answered.len()).collect();
        prop_assert!(
            has_an_order(&model, &answered, &left, &end, &mut HashSet::new()),
            "no order of {answered:#?} leaves {end:?}"
        );
        Ok(())
    });
    drop(services);
    result.expect("an order");
}

/// Makes all calls at once, and answers what they answer and the three people at the end.
async fn at_once(clients: &[[Client; 2]], mark: usize, calls: &[Call]) -> (Vec<Answered>, Vec<Person>) {
    let mut ids = Vec::new();
    for (key, organization) in OWNERS.into_iter().enumerate() {
        let fields = if key == 1 { json!({}) } else { json!({ "email": format!("{mark}.{key}@example.com") }) };
        ids.push(clients[0][organization].person(fields).await["id"].clone());
    }
    let ids: Arc<[Json]> = ids.into();
    let mut made = JoinSet::new();
    for (number, call) in calls.iter().cloned().enumerate() {
        let (clients, ids) = (clients[number % clients.len()].clone(), Arc::clone(&ids));
        made.spawn(async move { (number, make(clients, ids, mark, call).await) });
    }
    let mut answers = made.join_all().await;
    answers.sort_by_key(|(number, _)| *number);
    let mut end = Vec::new();
    for (id, organization) in ids.iter().zip(OWNERS) {
        let profile = clients[1][organization].get(&json!({ "id": id })).await.expect("the profile");
        end.push(person(&profile, organization));
    }
    (answers.into_iter().map(|(_, answer)| answer).collect(), end)
}
