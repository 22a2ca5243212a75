//! All that is stored about a person, and the list of cases.

use prost::Message as _;
use serde_json::{Value as Json, json};

use crate::harness::{
    Client, Failure, Service, client, message,
    wire::{Wire, frame},
};

const EXPORT: &str = "SupportService/ExportProfile";
const CASES: &str = "SupportService/ListProfileCases";
const MONDAY: &str = "2026-01-05T10:00:00Z";

/// What an export answers, and how it ends.
async fn export(client: &Client, person: &Json) -> (Vec<Json>, Option<Failure>) {
    let mut records = Vec::new();
    let mut messages = match client.stream(EXPORT, json!({ "id": person["id"] })).await {
        Ok(messages) => messages,
        Err(refused) => return (records, Some(refused)),
    };
    loop {
        match messages.next().await {
            Ok(Some(record)) => records.push(record),
            Ok(None) => return (records, None),
            Err(failure) => return (records, Some(failure)),
        }
    }
}

/// A person with more cases and changes than are read at once.
async fn known(service: &Service, north: &Client) -> Json {
    let south = service.organization("south").await;
    let ada = north.person(json!({ "email": "ada@example.com" })).await;
    let other = north.person(json!({})).await;
    north.report("other", &other, "ASSIGNED", MONDAY).await.expect("reported");
    south.report("c-00", &south.person(json!({})).await, "OPEN", MONDAY).await.expect("reported");
    for number in (0..40).rev() {
        let status = if number % 2 == 0 { "ASSIGNED" } else { "OPEN" };
        north.report(&format!("c-{number:02}"), &ada, status, MONDAY).await.expect("reported");
    }
    for number in 0..40 {
        north.patch(&ada, json!({ "city": format!("City {number}") })).await.expect("patched");
    }
    ada
}

#[tokio::test]
async fn an_export_has_the_profile_its_cases_and_its_changes_and_nothing_of_anybody_else() {
    let (service, north) = client().await;
    let ada = known(&service, &north).await;
    let privacy = service.client(&service.key("north", &["privacy"])).await;
    let (records, end) = export(&privacy, &ada).await;
    assert_eq!(end, None);
    let mut expected = vec![json!({ "profile": north.get(&ada).await.expect("the profile") })];
    expected.extend((0..40).map(|number| {
        let status = if number % 2 == 0 { "ASSIGNED" } else { "OPEN" };
        let case = json!({ "caseId": format!("c-{number:02}"), "profileId": ada["id"], "status": status, "statusTime": MONDAY });
        if number % 2 == 0 { json!({ "case": { "case": case, "locks": true } }) } else { json!({ "case": { "case": case } }) }
    }));
    let changes = north.changes(&ada).await;
    assert_eq!(changes.len(), 42);
    expected.extend(changes.into_iter().map(|change| json!({ "change": change })));
    assert_eq!(records, expected);
}

#[tokio::test]
async fn exports_that_nobody_reads_take_nothing_from_others_and_end_with_the_drain() {
    let (mut service, north) = client().await;
    let ada = north.person(json!({})).await;
    for number in 0..20 {
        let long = format!("{number}{}", "\u{1f600}".repeat(190));
        north
            .correct(&ada, json!({ "address": long, "address2": long }), &"\u{1f600}".repeat(500))
            .await
            .expect("corrected");
    }
    let key = service.key("north", &["privacy"]);
    let wire = Wire::deaf(&service.address).await;
    let mut unread = Vec::new();
    for _ in 0..90 {
        let body = frame(&message(EXPORT, json!({ "id": ada["id"] })).encode_to_vec());
        let mut export = wire.begin(EXPORT, &[("cv-api-key", key.as_str())], body, true).await;
        export.head().await;
        unread.push(export);
    }
    for _ in 0..20 {
        north.patch(&ada, json!({ "city": "London" })).await.expect("patched");
        north.get(&ada).await.expect("read");
        assert_eq!(export(&north, &ada).await.1, None, "nor from those who read");
    }
    drop(north);
    service.signal("TERM");
    assert_eq!(service.end().await.0, Some(0));
}

#[tokio::test]
async fn an_export_of_nobody_is_not_found() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    let ada = north.person(json!({})).await;
    let reason = |(records, end): (Vec<Json>, Option<Failure>)| {
        assert_eq!(records, [] as [Json; 0]);
        end.expect("an error").reason
    };
    assert_eq!(reason(export(&south, &ada).await), "PROFILE_NOT_FOUND");
    assert_eq!(reason(export(&north, &json!({ "id": "x" })).await), "INVALID_FIELDS");
    let support = service.client(&service.key("north", &["support"])).await;
    assert_eq!(reason(export(&support, &ada).await), "SCOPE_MISSING");
    let erase = json!({ "id": ada["id"], "reasonCode": "REASON_CODE_RETENTION" });
    north.call("SupportService/EraseProfile", erase).await.expect("erased");
    assert_eq!(reason(export(&north, &ada).await), "PROFILE_NOT_FOUND");
}

#[tokio::test]
async fn the_cases_of_a_profile_come_in_the_order_of_their_ids_page_by_page() {
    let (service, north) = client().await;
    let ada = known(&service, &north).await;
    for case in ["C-99", "\u{e9}", "b", "a B"] {
        north.report(case, &ada, "OPEN", MONDAY).await.expect("reported");
    }
    let (mut token, mut ids, mut pages) = (json!(""), Vec::new(), 0);
    while pages == 0 || token != Json::Null {
        let page = json!({ "id": ada["id"], "pageSize": 11, "pageToken": token });
        let page = north.call(CASES, page).await.expect("a page");
        for case in page["cases"].as_array().expect("cases") {
            assert_eq!(case["locks"] == json!(true), case["case"]["status"] == "ASSIGNED");
            ids.push(case["case"]["caseId"].as_str().expect("an id").to_owned());
        }
        (token, pages) = (page["nextPageToken"].clone(), pages + 1);
        assert!(!token.to_string().contains(&hex::encode(ids.last().expect("a case"))), "a token shows no id");
    }
    let mut expected: Vec<_> = (0..40).map(|number| format!("c-{number:02}")).collect();
    expected.extend(["C-99", "\u{e9}", "b", "a B"].map(str::to_owned));
    expected.sort(); // by their bytes
    assert_eq!((ids, pages), (expected, 4));
}

#[tokio::test]
async fn a_page_of_cases_is_of_its_profile_alone() {
    let (service, north) = client().await;
    let ada = known(&service, &north).await;
    let eve = north.person(json!({})).await;
    let page = north.call(CASES, json!({ "id": ada["id"], "pageSize": 1 })).await.expect("a page");
    assert_eq!(north.call(CASES, json!({ "id": eve["id"] })).await, Ok(json!({})));
    for token in [page["nextPageToken"].clone(), json!("nonsense")] {
        let refused = north.call(CASES, json!({ "id": eve["id"], "pageToken": token })).await.expect_err("a token");
        assert_eq!(refused.reason, "INVALID_PAGE_TOKEN");
    }
    let refused = north.call(CASES, json!({ "pageSize": -1 })).await.expect_err("invalid");
    assert_eq!(refused.paths(), ["id", "page_size"]);
    let south = service.client(&service.key("south", &["support"])).await;
    let foreign = south.call(CASES, json!({ "id": ada["id"] })).await.expect_err("not theirs");
    assert_eq!(foreign.reason, "PROFILE_NOT_FOUND");
}
