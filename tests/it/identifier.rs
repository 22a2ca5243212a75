//! What other systems call a person.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use tokio::task::JoinSet;
use tonic::Code;

use crate::harness::{Client, Database, Service, client, rounds};

const CREATE: &str = "ProfileService/CreateProfile";
const LOOK_UP: &str = "ProfileQueryService/LookUpProfile";

/// Identifiers as an answer has them.
fn pairs(pairs: &[(&str, &str)]) -> Json {
    pairs.iter().map(|(system, value)| json!({ "system": system, "value": value })).collect()
}

async fn look_up(client: &Client, (system, value): (&str, &str)) -> Json {
    let request = json!({ "identifier": { "system": system, "value": value } });
    match client.call(LOOK_UP, request).await {
        Ok(profile) => profile["id"].clone(),
        Err(refused) => json!(refused.reason),
    }
}

#[tokio::test]
async fn every_answer_has_the_identifiers_in_their_order_each_once() {
    let (_service, north) = client().await;
    let sent = [
        ("mrn", "b"),
        ("crm/2", "7"),
        ("crm", "9"),
        ("mrn", "\u{c5}"),
        ("mrn", "B"),
        (" mrn ", "b"),
        ("mrn", "A\u{30a}"),
    ];
    let all = pairs(&[("crm", "9"), ("crm/2", "7"), ("mrn", "B"), ("mrn", "b"), ("mrn", "\u{c5}")]);
    let ada = north.person(json!({ "email": "ada@example.com", "identifiers": pairs(&sent) })).await;
    assert_eq!(ada["identifiers"], all);
    let (id, of_ada) = (&ada["id"], json!({ "id": ada["id"] }));
    for (rpc, request) in [
        ("ProfileService/GetProfile", of_ada.clone()),
        (LOOK_UP, json!({ "identifier": { "system": "mrn", "value": "b" } })),
        (LOOK_UP, json!({ "email": "ada@example.com" })),
        ("SupportService/FindProfile", json!({ "identifier": { "system": "mrn", "value": " A\u{30a}" } })),
    ] {
        assert_eq!(north.call(rpc, request).await.as_ref(), Ok(&ada), "{rpc}");
    }
    for (rpc, request) in [
        ("ProfileQueryService/BatchGetProfiles", json!({ "ids": [id] })),
        ("ProfileQueryService/ListProfiles", json!({ "namePrefix": "byron" })),
    ] {
        assert_eq!(north.call(rpc, request).await.expect(rpc)["profiles"], json!([ada]), "{rpc}");
    }
    let patched = north.patch(&ada, json!({ "city": "London" })).await.expect("patched");
    assert_eq!(patched["identifiers"], all);
    let plain = north.person(json!({})).await;
    assert_eq!(plain.get("identifiers"), None);
}

#[tokio::test]
async fn only_their_own_rpcs_change_them_and_a_replace_loses_none() {
    let (_service, north) = client().await;
    let ada = north.person(json!({ "email": "ada@example.com", "identifiers": pairs(&[("mrn", "7")]) })).await;
    let other = pairs(&[("crm", "9")]);
    let names = json!({ "id": ada["id"], "firstName": "Ada", "lastName": "King", "email": "ada@example.com" });
    for (sent, city) in [(None, "Rome"), (Some(&other), "Oslo")] {
        let with = |mut fields: Json| {
            fields["city"] = json!(city);
            if let Some(sent) = sent {
                fields["identifiers"] = sent.clone();
            }
            fields
        };
        for (step, outcome) in [
            ("replace", north.replace(with(names.clone())).await),
            ("patch", north.patch(&ada, with(json!({ "address": city }))).await),
            ("update", north.update(with(json!({ "email": "ada@example.com", "address2": city }))).await),
            ("correct", north.correct(&ada, with(json!({ "state": &city[..2] })), "why").await),
        ] {
            let changed = outcome.expect(step);
            assert_eq!((&changed["identifiers"], &changed["city"]), (&pairs(&[("mrn", "7")]), &json!(city)), "{step}");
        }
    }
    let refused = north.patch_masked(&ada, json!({}), &["identifiers"]).await.expect_err("output only");
    assert_eq!(refused.reason, "INVALID_UPDATE_MASK");
    assert_eq!(look_up(&north, ("mrn", "7")).await, ada["id"]);
    assert_eq!(look_up(&north, ("crm", "9")).await, "PROFILE_NOT_FOUND");
}

#[tokio::test]
async fn to_add_what_is_there_and_to_remove_what_is_not_changes_nothing() {
    let (_service, north) = client().await;
    let (ada, eve) = (north.person(json!({})).await, north.person(json!({})).await);
    let none = || json!({});
    let added = north.identify("Add", &ada, ("mrn", "7"), json!({ "etag": ada["etag"] })).await.expect("added");
    assert_eq!((&added["identifiers"], &added["etag"]), (&pairs(&[("mrn", "7")]), &json!("\"2\"")));
    assert_eq!(north.identify("Add", &ada, ("mrn", "7"), none()).await.as_ref(), Ok(&added));
    assert_eq!(north.identify("Remove", &ada, ("mrn", "8"), none()).await.as_ref(), Ok(&added));
    // Another profile's is not there either.
    assert_eq!(north.identify("Remove", &eve, ("mrn", "7"), none()).await.as_ref(), Ok(&eve));
    for (verb, pair) in
        [("Add", ("mrn", "7")), ("Add", ("mrn", "9")), ("Remove", ("mrn", "8")), ("Remove", ("mrn", "7"))]
    {
        let refused = north.identify(verb, &ada, pair, json!({ "etag": "\"1\"" })).await.expect_err("stale");
        assert_eq!(refused.reason, "ETAG_MISMATCH");
    }
    let removed = north.identify("Remove", &ada, ("mrn", "7"), json!({ "etag": "\"2\"" })).await.expect("removed");
    assert_eq!((removed.get("identifiers"), &removed["etag"]), (None, &json!("\"3\"")));
    assert_eq!(look_up(&north, ("mrn", "7")).await, "PROFILE_NOT_FOUND");
    north.identify("Add", &eve, ("mrn", "7"), none()).await.expect("free again");
    assert_eq!(look_up(&north, ("mrn", "7")).await, eve["id"]);
    let gone = json!({ "id": "01890000-0000-7000-8000-000000000000" });
    for verb in ["Add", "Remove"] {
        let refused = north.identify(verb, &gone, ("mrn", "7"), none()).await.expect_err("nobody");
        assert_eq!(refused.reason, "PROFILE_NOT_FOUND");
    }
}

#[tokio::test]
async fn a_pair_has_one_owner_within_its_organization() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    let ada = north.person(json!({ "identifiers": pairs(&[("mrn", "7"), ("mrn", "9"), ("crm", "7")]) })).await;
    let eve = north.person(json!({})).await;
    let message = "Unable to use this identifier. Please use a different one";
    for validate_only in [false, true] {
        let profile = json!({ "firstName": "A", "lastName": "B", "identifiers": pairs(&[("a", "1"), ("mrn", "9")]) });
        let create = json!({ "profile": profile, "validateOnly": validate_only });
        for outcome in [
            north.call(CREATE, create).await,
            north.identify("Add", &eve, ("crm", "7"), json!({ "validateOnly": validate_only })).await,
            north.identify("Add", &eve, ("crm", "7"), json!({ "validateOnly": validate_only, "requestId": "r" })).await,
        ] {
            let refused = outcome.expect_err("taken");
            assert_eq!((refused.code, refused.reason.as_str()), (Code::AlreadyExists, "IDENTIFIER_IN_USE"));
            assert_eq!(refused.message, message);
        }
    }
    assert_eq!(look_up(&north, ("a", "1")).await, "PROFILE_NOT_FOUND", "a refused create leaves nothing");
    // The value has case, and another organization its own names.
    north.identify("Add", &eve, ("mrn", "7a"), json!({})).await.expect("added");
    north.identify("Add", &eve, ("mrn", "7A"), json!({})).await.expect("added");
    let other = south.person(json!({ "identifiers": pairs(&[("mrn", "7")]) })).await;
    assert_eq!(look_up(&south, ("mrn", "7")).await, other["id"]);
    assert_eq!(look_up(&north, ("mrn", "7")).await, ada["id"]);
    assert_eq!(look_up(&south, ("mrn", "9")).await, "PROFILE_NOT_FOUND");
}

#[tokio::test]
async fn a_profile_has_20_at_the_most() {
    let (_service, north) = client().await;
    let many =
        |count: u32| -> Vec<Json> { (0..count).map(|n| json!({ "system": "mrn", "value": n.to_string() })).collect() };
    let person = |identifiers: Vec<Json>| json!({ "firstName": "A", "lastName": "B", "identifiers": identifiers });
    let refused = north.create(person(many(21))).await.expect_err("too many");
    assert_eq!((refused.paths(), refused.field_reasons[0].as_str()), (vec!["profile.identifiers"], "TOO_MANY"));
    // The same one twice counts once.
    let ada = north.create(person([many(20), many(20)].concat())).await.expect("20");
    let refused = north.identify("Add", &ada, ("mrn", "20"), json!({})).await.expect_err("too many");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::FailedPrecondition, "TOO_MANY_IDENTIFIERS"));
    assert_eq!(north.identify("Add", &ada, ("mrn", "19"), json!({})).await.as_ref(), Ok(&ada));
    north.identify("Remove", &ada, ("mrn", "0"), json!({})).await.expect("removed");
    north.identify("Add", &ada, ("mrn", "20"), json!({})).await.expect("room for one");
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once_as_far_as_an_error_can_carry_it() {
    let (_service, north) = client().await;
    let pair = |system: &str, value: &str| json!({ "system": system, "value": value });
    let long = "9".repeat(201);
    let sent = [pair("MRN", "7"), pair("", "a|b"), pair("mrn", &long), pair("mrn", "a\nb"), pair("m|n", "")];
    let refused = north.create(json!({ "firstName": "A", "identifiers": sent })).await.expect_err("wrong");
    let told: Vec<_> = refused.paths().into_iter().zip(refused.field_reasons.iter().map(String::as_str)).collect();
    assert_eq!(
        told,
        [
            ("profile.last_name", "REQUIRED"),
            ("profile.identifiers[0].system", "INVALID_SYSTEM"),
            ("profile.identifiers[1].system", "REQUIRED"),
            ("profile.identifiers[1].value", "VERTICAL_LINE"),
            ("profile.identifiers[2].value", "TOO_LONG"),
            ("profile.identifiers[3].value", "CONTROL_CHARACTER"),
            ("profile.identifiers[4].system", "INVALID_SYSTEM"),
            ("profile.identifiers[4].value", "REQUIRED"),
        ]
    );
    let request = json!({ "profileId": "x", "identifier": pair("M", "|"), "etag": "7" });
    for verb in ["Add", "Remove"] {
        let rpc = format!("ProfileIdentifierService/{verb}Identifier");
        let refused = north.call(&rpc, request.clone()).await.expect_err("wrong");
        assert_eq!(refused.paths(), ["profile_id", "identifier.system", "identifier.value", "etag"]);
        let refused = north.call(&rpc, json!({})).await.expect_err("empty");
        assert_eq!(refused.paths(), ["profile_id", "identifier.system", "identifier.value"]);
    }
    for rpc in [LOOK_UP, "SupportService/FindProfile"] {
        let refused = north.call(rpc, json!({ "identifier": pair("M", "") })).await.expect_err("wrong");
        assert_eq!(refused.paths(), ["identifier.system", "identifier.value"]);
        let refused = north.call(rpc, json!({})).await.expect_err("nothing");
        assert_eq!(refused.fields, [("email".to_owned(), "is required, or phone_number or identifier".to_owned())]);
    }
    let flood: Vec<_> = (0..15_000).map(|_| json!({})).collect();
    let refused = north.create(json!({ "identifiers": flood })).await.expect_err("a flood");
    assert_eq!((refused.reason.as_str(), refused.fields.len()), ("INVALID_FIELDS", 20));
}

#[tokio::test]
async fn each_pair_that_changed_is_a_change_in_the_history() {
    let (_service, north) = client().await;
    let ada = north.person(json!({ "identifiers": pairs(&[("mrn", "7"), ("crm", "9")]) })).await;
    north.identify("Add", &ada, ("badge", "\"A\""), json!({ "requestId": "r-1" })).await.expect("added");
    north.identify("Remove", &ada, ("mrn", "7"), json!({})).await.expect("removed");
    let changes = north.changes(&ada).await;
    let told: Vec<_> = changes.iter().map(|change| (&change["rpc"], &change["requestId"], &change["fields"])).collect();
    let (service, added) =
        ("ProfileIdentifierService", |pair: &str| json!({ "field": "identifiers", "newValue": pair }));
    assert_eq!(*told[0].2, json!([{ "field": "identifiers", "oldValue": "mrn|7" }]));
    assert_eq!(*told[1].2, json!([added("badge|\"A\"")]));
    assert_eq!(told[2].2.as_array().expect("fields")[3..], [added("crm|9"), added("mrn|7")]);
    assert_eq!((told[0].0, told[0].1), (&json!(format!("{service}/RemoveIdentifier")), &Json::Null));
    assert_eq!((told[1].0, told[1].1), (&json!(format!("{service}/AddIdentifier")), &json!("r-1")));
}

#[tokio::test]
async fn the_feed_tells_that_they_changed_and_shows_them() {
    let (service, _north) = client().await;
    let north = service.client(&service.key("north", &["profiles.write", "profiles.list"])).await;
    let now = json!({ "skipExisting": true });
    let mut watch = north.stream("ProfileQueryService/WatchProfiles", now).await.expect("a stream");
    watch.next().await.expect("a message").expect("a message");
    let ada = north.person(json!({ "identifiers": pairs(&[("mrn", "7")]) })).await;
    let created = watch.next().await.expect("a message").expect("a message");
    assert_eq!((&created["kind"], &created["profile"]), (&json!("KIND_CREATED"), &ada));
    assert_eq!(created["fields"], json!(["role", "first_name", "last_name", "identifiers"]));
    let added = north.identify("Add", &ada, ("crm", "9"), json!({})).await.expect("added");
    let changed = watch.next().await.expect("a message").expect("a message");
    assert_eq!((&changed["kind"], &changed["fields"]), (&json!("KIND_CHANGED"), &json!(["identifiers"])));
    assert_eq!(changed["profile"], added);
}

#[tokio::test]
async fn a_repeat_adds_and_removes_nothing_more() {
    let (_service, north) = client().await;
    let ada = north.person(json!({})).await;
    let add = async || north.identify("Add", &ada, ("mrn", "7"), json!({ "requestId": "r" })).await;
    let remove = async || north.identify("Remove", &ada, ("mrn", "7"), json!({ "requestId": "r" })).await;
    let added = add().await.expect("added");
    assert_eq!(add().await.as_ref(), Ok(&added));
    let removed = remove().await.expect("removed");
    for outcome in [add().await, remove().await] {
        assert_eq!(outcome.as_ref(), Ok(&removed), "the profile as it is now");
    }
    let refused = north.identify("Add", &ada, ("mrn", "8"), json!({ "requestId": "r" })).await.expect_err("another");
    assert_eq!(refused.reason, "REQUEST_ID_REUSED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_people_with_as_many_identifiers_as_there_may_be_are_stored_together() {
    let (service, north) = client().await;
    let mut calls = JoinSet::new();
    for person in 0..40 {
        let north = north.clone();
        calls.spawn(async move {
            let long = |n| json!({ "system": "s".repeat(100), "value": format!("{person}.{n}.{}", "x".repeat(190)) });
            let identifiers: Vec<_> = (0..20).map(long).collect();
            let created = north.person(json!({ "identifiers": identifiers })).await;
            let last = created["identifiers"][19]["value"].as_str().expect("a value");
            north.identify("Remove", &created, (&"s".repeat(100), last), json!({})).await.expect("removed");
        });
    }
    calls.join_all().await;
    assert_eq!(service.database.number("SELECT COUNT(*) AS number FROM profile_identifier").await, 40 * 19);
    everybody_has_what_is_stored(&service).await;
}

/// Creates and adds race for one pair. `scripts/prove races` makes it 1,000 rounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_callers_who_want_one_pair_exactly_one_gets_it() {
    // No connection ends by its age, with a call on it, however long many rounds take.
    let service = Service::on(Arc::new(Database::create()), ["--max-connection-age", "1d"]);
    let north = service.organization("north").await;
    let mut people = Vec::new();
    for _ in 0..32 {
        people.push(north.person(json!({})).await);
    }
    for round in 0..rounds(20) {
        let value = round.to_string();
        let mut callers = JoinSet::new();
        for caller in 0..64 {
            let (north, value, person) = (north.clone(), value.clone(), people[caller / 2].clone());
            callers.spawn(async move {
                if caller % 2 == 0 {
                    north.identify("Add", &person, ("mrn", &value), json!({})).await
                } else {
                    let identifiers = pairs(&[("crm", &format!("{value}.{caller}")), ("mrn", &value)]);
                    north.create(json!({ "firstName": "A", "lastName": "B", "identifiers": identifiers })).await
                }
            });
        }
        let (owners, refused): (Vec<_>, Vec<_>) = callers.join_all().await.into_iter().partition(Result::is_ok);
        for refused in refused {
            assert_eq!(refused.expect_err("refused").reason, "IDENTIFIER_IN_USE", "round {round}");
        }
        assert_eq!(owners.len(), 1, "round {round}");
        let owner = owners[0].as_ref().expect("an owner");
        assert_eq!(look_up(&north, ("mrn", &value)).await, owner["id"]);
        if let Some(person) = people.iter_mut().find(|person| person["id"] == owner["id"]) {
            *person = north.identify("Remove", owner, ("mrn", &value), json!({})).await.expect("removed"); // room for more
        }
    }
    everybody_has_what_is_stored(&service).await;
}

/// Each row is a pair of its profile's column, and no column has one more.
async fn everybody_has_what_is_stored(service: &Service) {
    let line = "i.system || '|' || i.value";
    let joined = "profile_identifier i JOIN profile p ON p.id = i.profile_id AND p.organization_id = i.organization_id";
    let newline = if service.database.is_postgres() { "chr(10)" } else { "char(10)" };
    let has = format!("({newline} || p.identifiers || {newline}) LIKE '%' || {newline} || {line} || {newline} || '%'");
    let rows = service.database.number("SELECT COUNT(*) AS number FROM profile_identifier").await;
    let told = service.database.number(&format!("SELECT COUNT(*) AS number FROM {joined} WHERE {has}")).await;
    let counted = format!("LENGTH(identifiers) - LENGTH(REPLACE(identifiers, {newline}, '')) + 1");
    let columns = format!("SELECT CAST(COALESCE(SUM({counted}), 0) AS BIGINT) AS number FROM profile");
    assert_eq!((told, service.database.number(&columns).await), (rows, rows));
}
