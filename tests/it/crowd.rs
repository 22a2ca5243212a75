//! People of every kind in two organizations, and what these read and write of their own.

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, join_all},
};
use serde_json::{Value as Json, json};

use crate::{
    harness::{Client, POOL},
    whom::{CORRECT, CREATE, MONDAY, PATCH, UPDATE, Whom, edit, edits, some_fields, text},
};

/// How many changes an organization makes of one person, and how many people it creates, meanwhile.
pub const BUSY: usize = 32;

/// Somebody whom there is, or was.
pub struct Person {
    pub whom: Whom,
    pub role: String,
    pub status: String,
    /// As it is read by its own organization; null once it is erased.
    pub profile: Json,
    /// Whether it has an e-mail, a phone number, an identifier, a case and a request id that is remembered.
    pub is_known: bool,
}

/// The values of an enum of the contract but for the first, which is no value.
fn values(name: &str) -> Vec<String> {
    let values = POOL.get_enum_by_name(&format!("profiles.v1.{name}")).expect("an enum");
    values.values().skip(1).map(|value| value.name().to_owned()).collect()
}

/// Who may set what: None, or the reason why not.
fn refusal(rpc: &str, person: &Person, field: &str) -> Option<&'static str> {
    let locked = ["ASSIGNED", "IN_PROGRESS", "APPROVED", "REJECTED", "NO_DECISION"].contains(&person.status.as_str());
    if rpc == UPDATE && person.role != "USER" {
        Some("UPDATE_NOT_ALLOWED")
    } else if rpc != CORRECT && locked && ["firstName", "lastName", "dob", "gender"].contains(&field) {
        Some("DEMOGRAPHICS_LOCKED")
    } else {
        None
    }
}

/// Stores somebody of this role, with a case of this status.
async fn somebody(north: &Client, number: usize, role: &str, status: &str) -> Person {
    let mut whom = Whom::new(number);
    let create = json!({ "requestId": whom.request,
        "profile": { "firstName": "Ada", "lastName": whom.name, "identifiers": [whom.identifier] } });
    let profile = north.call(CREATE, create).await.expect("a new profile");
    text(&profile["id"]).clone_into(&mut whom.id);
    let known = json!({ "email": whom.email, "phoneNumber": whom.phone });
    north.patch(&profile, known).await.expect("patched");
    // What others will send with this request id too.
    let remembered = edit(PATCH, &whom, json!({ "city": "Rome" }), json!({ "requestId": whom.request }));
    north.call(PATCH, remembered).await.expect("patched");
    north.set_role(&profile, role).await.expect("a role");
    if status != "none" {
        north.report(&whom.case, &profile, status, MONDAY).await.expect("reported");
    }
    let profile = north.get(&profile).await.expect("a profile");
    text(&profile["etag"]).clone_into(&mut whom.etag);
    Person { whom, role: role.to_owned(), status: status.to_owned(), profile, is_known: true }
}

/// Somebody of whom nothing is known but a name.
pub async fn a_stranger(north: &Client, number: usize) -> Person {
    let mut whom = Whom::new(number);
    let profile = north.person(json!({ "lastName": whom.name })).await;
    text(&profile["id"]).clone_into(&mut whom.id);
    text(&profile["etag"]).clone_into(&mut whom.etag);
    Person { whom, role: "USER".to_owned(), status: "none".to_owned(), profile, is_known: false }
}

/// People of every kind.
pub async fn people(north: &Client) -> Vec<Person> {
    let statuses = [vec!["none".to_owned()], values("Case.Status")].concat();
    let kinds: Vec<_> = values("Profile.Role")
        .into_iter()
        .flat_map(|role| statuses.iter().map(move |status| (role.clone(), status.clone())))
        .collect();
    let known = kinds.iter().enumerate().map(|(number, (role, status))| somebody(north, number, role, status));
    let mut people = join_all(known).await;
    people.push(a_stranger(north, people.len()).await);
    let erased = somebody(north, people.len(), "ADMIN", "APPROVED").await;
    let erase = json!({ "id": erased.whom.id, "requestId": erased.whom.request, "reasonCode": "REASON_CODE_LEGAL_ORDER",
        "evenIfLocked": true });
    north.call("SupportService/EraseProfile", erase).await.expect("erased");
    people.push(Person { profile: Json::Null, is_known: false, ..erased });
    people
}

/// Somebody of another organization who is created by the same request with the same request id, and has the same case.
pub async fn twin(south: &Client, of: &Person) -> Person {
    let mut whom = of.whom.clone();
    let create = json!({ "requestId": whom.request,
        "profile": { "firstName": "Ada", "lastName": whom.name, "identifiers": [whom.identifier] } });
    let profile = south.call(CREATE, create).await.expect("a new profile");
    text(&profile["id"]).clone_into(&mut whom.id);
    assert_ne!(whom.id, of.whom.id, "a request id is its organization's own");
    south.report(&whom.case, &profile, "OPEN", MONDAY).await.expect("reported");
    let patched =
        south.call(PATCH, edit(PATCH, &whom, json!({ "city": "Rome" }), json!({ "requestId": whom.request }))).await;
    let profile = patched.expect("patched");
    assert_eq!(profile["id"], whom.id);
    Person { whom, role: "USER".to_owned(), status: "OPEN".to_owned(), profile, is_known: false }
}

/// Each edit of each field of somebody by the own organization, as the policy has it.
pub fn own_edits(client: &Client, person: &Person) -> Vec<BoxFuture<'static, ()>> {
    let mut calls = Vec::new();
    for rpc in edits().into_iter().filter(|rpc| *rpc != UPDATE || person.is_known) {
        for (field, value) in some_fields(&rpc, person.whom.number) {
            let request = edit(&rpc, &person.whom, json!({ &*field: value }), json!({ "validateOnly": true }));
            let (refusal, client, rpc, id) =
                (refusal(&rpc, person, &field), client.clone(), rpc.clone(), person.profile["id"].clone());
            // An update has the address for a selector; identifiers have RPCs of their own.
            let is_set = !(field == "identifiers" || (rpc == UPDATE && field == "email"));
            let call = async move {
                match (client.call(&rpc, request).await, refusal) {
                    (Ok(changed), None) => {
                        assert_eq!(changed["id"], id, "{rpc} {field}");
                        assert!(!is_set || changed[&field] == value, "{rpc} {field}: {changed}");
                    }
                    (outcome, refusal) => {
                        assert_eq!(outcome.err().map(|refused| refused.reason).as_deref(), refusal, "{rpc} {field}");
                    }
                }
            };
            calls.push(call.boxed());
        }
    }
    calls
}

/// What the own organization is shown of somebody, by every RPC that shows anything.
pub fn own_reads(client: &Client, person: &Person) -> Vec<(&'static str, BoxFuture<'static, ()>)> {
    let Person { whom, profile, status, .. } = person;
    let case = json!({ "cases": [{ "case": { "caseId": whom.case, "profileId": whom.id, "status": status, "statusTime": MONDAY } }] });
    let mut reads = vec![
        ("ProfileService/GetProfile", json!({ "id": whom.id }), profile.clone()),
        ("ProfileQueryService/BatchGetProfiles", json!({ "ids": [whom.id] }), json!({ "profiles": [profile] })),
        ("ProfileQueryService/ListProfiles", json!({ "namePrefix": whom.name }), json!({ "profiles": [profile] })),
        ("ProfileQueryService/CountProfiles", json!({ "namePrefix": whom.name }), json!({ "count": 1 })),
    ];
    for rpc in ["ProfileQueryService/LookUpProfile", "SupportService/FindProfile"] {
        if person.is_known {
            reads.push((rpc, json!({ "email": whom.email }), profile.clone()));
            reads.push((rpc, json!({ "phoneNumber": whom.phone }), profile.clone()));
        }
        if profile["identifiers"].is_array() {
            reads.push((rpc, json!({ "identifier": whom.identifier }), profile.clone()));
        }
    }
    let mut calls: Vec<_> = reads
        .into_iter()
        .map(|(rpc, request, shown)| {
            let client = client.clone();
            (rpc, async move { assert_eq!(client.call(rpc, request).await, Ok(shown), "{rpc}") }.boxed())
        })
        .collect();
    let (shown, client, id) = (profile.clone(), client.clone(), json!({ "id": whom.id }));
    let stored = if status == "none" { json!({}) } else { case };
    let changes: usize = text(&profile["etag"]).trim_matches('"').parse().expect("a revision");
    let rest = async move {
        let mut cases = client.call("SupportService/ListProfileCases", id.clone()).await.expect("cases");
        if let Some(case) = cases.pointer_mut("/cases/0") {
            case.as_object_mut().expect("a case").remove("locks");
        }
        assert_eq!(cases, stored);
        assert_eq!(client.changes(&shown).await.len(), changes);
        let mut records = client.stream("SupportService/ExportProfile", id).await.expect("a stream");
        let mut exported = Vec::new();
        while let Some(record) = records.next().await.expect("a record") {
            exported.push(record);
        }
        assert_eq!(exported[0], json!({ "profile": shown }));
        assert_eq!(exported.len(), 1 + stored.as_object().map_or(0, serde_json::Map::len) + changes);
    };
    calls.push(("SupportService/ExportProfile", rest.boxed()));
    calls
}

/// Writes of an organization that are made, among those that are refused: they have the same words in every organization.
pub fn own_writes(client: &Client, busy: &Json) -> Vec<BoxFuture<'static, ()>> {
    (0..BUSY)
        .map(|number| {
            let (client, busy) = (client.clone(), busy.clone());
            async move {
                let known = json!([{ "system": "busy", "value": format!("busy.{number}") }]);
                let create = json!({ "requestId": format!("busy.{number}"),
                    "profile": { "firstName": "Ada", "lastName": "Busy", "identifiers": known } });
                let (created, changed) = tokio::join!(
                    client.call(CREATE, create),
                    client.patch(&busy, json!({ "city": format!("City {number}") }))
                );
                let created = created.expect("created");
                assert_eq!(changed.expect("changed")["id"], busy["id"]);
                let find = json!({ "identifier": known[0] });
                assert_eq!(client.call("ProfileQueryService/LookUpProfile", find).await, Ok(created));
            }
            .boxed()
        })
        .collect()
}
