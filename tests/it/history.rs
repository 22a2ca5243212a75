//! One row of history for each revision, with who, when, by what and why.

use prost::Message as _;
use serde_json::{Value as Json, json};
use tonic::Code;

use crate::{
    harness::{Client, SCOPES, client, message},
    walk::{change_of, is_stream, rpcs, to_change, writing_rpcs},
};

const CREATE: &str = "ProfileService/CreateProfile";
const ERASE: &str = "SupportService/EraseProfile";
const LIST: &str = "SupportService/ListProfileChanges";
const MONDAY: &str = "2026-01-05T10:00:00Z";

#[tokio::test]
async fn a_profiles_life_is_told_from_the_newest_change_to_its_creation() {
    let (service, _north) = client().await;
    let key = service.key("north", &["profiles.write", "support", "cases.report"]);
    let lookup = key.split('_').nth(1).expect("a key");
    let north = service.client(&key).await;
    let create =
        json!({ "requestId": "r-1", "profile": { "firstName": "Ada", "lastName": "Byron", "dob": "1915-12-10" } });
    let ada = north.call("ProfileService/CreateProfile", create).await.expect("a new profile");
    north.patch(&ada, json!({ "city": "London", "dob": "" })).await.expect("patched");
    north.patch(&ada, json!({ "city": "London" })).await.expect("no change");
    north.report("c-1", &ada, "ASSIGNED", MONDAY).await.expect("reported");
    north.patch(&ada, json!({ "dob": "1999-01-01" })).await.expect_err("locked");
    let correct = json!({ "profile": { "id": ada["id"], "dob": "1915-12-10", "city": "Ockham" }, "reason": "It was lost.\nFound.", "ticket": "T-1" });
    north.call("SupportService/CorrectProfile", correct).await.expect("corrected");
    north.correct(&ada, json!({ "city": "" }), "moved").await.expect("corrected");
    north.set_role(&ada, "PROVIDER").await.expect("set");
    north.report("c-1", &ada, "CANCELLED", "2026-01-06T10:00:00Z").await.expect("reported");

    let mut changes = north.changes(&ada).await;
    for change in &mut changes {
        let change = change.as_object_mut().expect("an object");
        assert_eq!(change.remove("keyId"), Some(json!(lookup)));
        assert!(
            change.remove("keyName").is_some_and(|name| name.as_str().is_some_and(|name| name.starts_with("test-")))
        );
        assert!(change.remove("changeTime").is_some());
    }
    let locked = "first_name,last_name,dob,gender";
    let expected = json!([
        { "revision": "7", "rpc": "CaseService/ReportCaseStatus", "caseId": "c-1",
          "fields": [{ "field": "locked_fields", "oldValue": locked }] },
        { "revision": "6", "rpc": "SupportService/SetProfileRole", "reason": "a new post",
          "fields": [{ "field": "role", "oldValue": "USER", "newValue": "PROVIDER" }] },
        { "revision": "5", "rpc": "SupportService/CorrectProfile", "reason": "moved",
          "fields": [{ "field": "city", "oldValue": "Ockham" }] },
        { "revision": "4", "rpc": "SupportService/CorrectProfile", "reason": "It was lost.\nFound.", "ticket": "T-1",
          "lockOverridden": true,
          "fields": [{ "field": "dob", "newValue": "1915-12-10" }, { "field": "city", "oldValue": "London", "newValue": "Ockham" }] },
        { "revision": "3", "rpc": "CaseService/ReportCaseStatus", "caseId": "c-1",
          "fields": [{ "field": "locked_fields", "newValue": locked }] },
        { "revision": "2", "rpc": "ProfileService/PatchProfile",
          "fields": [{ "field": "dob", "oldValue": "1915-12-10" }, { "field": "city", "newValue": "London" }] },
        { "revision": "1", "rpc": "ProfileService/CreateProfile", "requestId": "r-1",
          "fields": [
            { "field": "role", "newValue": "USER" }, { "field": "first_name", "newValue": "Ada" },
            { "field": "last_name", "newValue": "Byron" }, { "field": "dob", "newValue": "1915-12-10" } ] },
    ]);
    assert_eq!(json!(changes), expected);
}

#[tokio::test]
async fn no_writing_rpc_leaves_the_history_out() {
    let (_service, north) = client().await;
    for rpc in writing_rpcs() {
        let ada = north.person(to_change(&rpc)).await;
        let answer = north.call(&rpc, change_of(&rpc, &ada)).await.expect(&rpc);
        let changed = match rpc.as_str() {
            CREATE => answer,
            ERASE => json!({ "id": ada["id"], "updatedDate": answer["eraseTime"], "etag": "\"2\"" }),
            _ => north.get(&ada).await.expect("the profile"),
        };
        let newest = north.changes(&changed).await.remove(0);
        assert_eq!((&newest["rpc"], &newest["changeTime"]), (&json!(rpc), &changed["updatedDate"]));
        let revision = if rpc == CREATE { "1" } else { "2" };
        assert_eq!((&newest["revision"], &changed["etag"]), (&json!(revision), &json!(format!("\"{revision}\""))));
    }
}

#[tokio::test]
async fn the_list_has_pages_that_join_without_gap_or_overlap() {
    let (_service, north) = client().await;
    let ada = north.person(json!({})).await;
    for number in 0..11 {
        north.patch(&ada, json!({ "city": format!("City {number}") })).await.expect("patched");
    }
    let (mut token, mut revisions, mut pages) = (json!(""), Vec::new(), 0);
    while pages == 0 || token != Json::Null {
        let page =
            north.call(LIST, json!({ "id": ada["id"], "pageSize": 4, "pageToken": token })).await.expect("a page");
        revisions.extend(page["changes"].as_array().expect("changes").iter().map(|change| change["revision"].clone()));
        (token, pages) = (page["nextPageToken"].clone(), pages + 1);
    }
    let expected: Vec<_> = (1..=12).rev().map(|revision: i32| json!(revision.to_string())).collect();
    assert_eq!((revisions, pages), (expected, 3));
}

#[tokio::test]
async fn a_page_has_50_changes_unless_told_and_200_at_the_most() {
    let (_service, north) = client().await;
    let ada = north.person(json!({})).await;
    for number in 0..204 {
        north.patch(&ada, json!({ "city": format!("City {number}") })).await.expect("patched");
    }
    for (size, expected) in [(0, 50), (1, 1), (200, 200), (10_000, 200)] {
        let page = north.call(LIST, json!({ "id": ada["id"], "pageSize": size })).await.expect("a page");
        assert_eq!(page["changes"].as_array().expect("changes").len(), expected);
    }
    let refused = north.call(LIST, json!({ "id": ada["id"], "pageSize": -1 })).await.expect_err("negative");
    assert_eq!(refused.paths(), ["page_size"]);
}

#[tokio::test]
async fn a_page_token_is_bound_to_its_profile() {
    let (_service, north) = client().await;
    let (ada, eve) = (north.person(json!({})).await, north.person(json!({})).await);
    north.patch(&ada, json!({ "city": "London" })).await.expect("patched");
    let page = north.call(LIST, json!({ "id": ada["id"], "pageSize": 1 })).await.expect("a page");
    for token in [page["nextPageToken"].as_str().expect("a token"), "nonsense", "é", &"0".repeat(48)] {
        let refused = north.call(LIST, json!({ "id": eve["id"], "pageToken": token })).await.expect_err(token);
        assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "INVALID_PAGE_TOKEN"));
    }
}

#[tokio::test]
async fn the_history_of_another_organizations_profile_is_not_found() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    let ada = north.person(json!({})).await;
    assert_eq!(south.call(LIST, json!({ "id": ada["id"] })).await.expect_err("not theirs").reason, "PROFILE_NOT_FOUND");
}

#[tokio::test]
async fn a_page_has_256_kib_at_the_most_and_the_next_one_goes_on_there() {
    let (_service, north) = client().await;
    let ada = north.person(json!({})).await;
    for number in 0..80 {
        // Of the characters that take the most bytes.
        let long = format!("{number}{}", "\u{1f600}".repeat(190));
        north
            .correct(&ada, json!({ "address": long, "address2": long }), &"\u{1f600}".repeat(500))
            .await
            .expect("corrected");
    }
    let (mut token, mut revisions) = (String::new(), vec![]);
    loop {
        let request = json!({ "id": ada["id"], "pageSize": 200, "pageToken": token });
        let bytes = north.raw(LIST, vec![message(LIST, request.clone()).encode_to_vec()]).await.expect("a page");
        assert!(bytes.len() < 256 * 1024 + 100, "{}", bytes.len());
        let page = north.call(LIST, request).await.expect("a page");
        revisions.extend(page["changes"].as_array().expect("changes").iter().map(|change| change["revision"].clone()));
        match page["nextPageToken"].as_str() {
            Some(next) => next.clone_into(&mut token),
            None => break,
        }
        assert!(bytes.len() > 240 * 1024, "{}", bytes.len());
    }
    let all: Vec<_> = (1..=81).rev().map(|revision| json!(revision.to_string())).collect();
    assert_eq!(revisions, all);
}

#[tokio::test]
async fn the_history_says_who_of_the_callers_people_acted() {
    let (service, north) = client().await;
    let acting = async |actors: &[&str]| {
        let key = service.key("north", &["profiles.write", "support", "cases.report", "privacy"]);
        let actors = actors.iter().map(|actor| ("x-actor", (*actor).to_owned()));
        Client::with_metadata(service.channel().await, [("cv-api-key", key)].into_iter().chain(actors).collect())
    };
    let of_north = acting(&["sso/north:Ada-L_1.2"]).await;
    for rpc in writing_rpcs() {
        let ada = north.person(to_change(&rpc)).await;
        let answer = of_north.call(&rpc, change_of(&rpc, &ada)).await.expect(&rpc);
        let person = if rpc == CREATE { answer } else { ada };
        let told = north.changes(&person).await;
        assert_eq!(told[0]["actor"], "sso/north:Ada-L_1.2", "{rpc}");
        assert!(rpc == CREATE || told[1].get("actor").is_none(), "{rpc}");
    }
    let ada = north.person(json!({})).await;
    acting(&["ada", " ada "]).await.patch(&ada, json!({ "city": "Rome" })).await.expect("the same twice");
    assert_eq!(north.changes(&ada).await[0]["actor"], "ada");
    for actors in [&[""][..], &["ada@example.com"], &["Ada Byron"], &["ada", "eve"], &[&"a".repeat(101)]] {
        let refused = acting(actors).await.patch(&ada, json!({ "dob": "x" })).await.expect_err("no actor");
        let told = [("x-actor", "INVALID_ACTOR"), ("profile.dob", "INVALID_DATE_OF_BIRTH")];
        let reasons = refused.field_reasons.iter().map(String::as_str);
        assert_eq!(refused.paths().into_iter().zip(reasons).collect::<Vec<_>>(), told, "{actors:?}");
    }
    assert_eq!(north.changes(&ada).await.len(), 2);
}

#[tokio::test]
async fn the_log_line_of_any_call_says_who_acts_and_no_call_takes_another_text_for_it() {
    let (mut service, _north) = client().await;
    let key = service.key("north", &SCOPES);
    for (actor, refused) in [("eve.7", false), ("eve@example.com", true)] {
        let metadata = vec![("cv-api-key", key.clone()), ("x-actor", actor.to_owned())];
        let eve = Client::with_metadata(service.channel().await, metadata);
        for rpc in rpcs() {
            let outcome = if is_stream(&rpc) {
                match eve.stream(&rpc, json!({})).await {
                    Ok(mut messages) => messages.next().await.map(drop),
                    Err(refused) => Err(refused),
                }
            } else {
                eve.call(&rpc, json!({})).await.map(drop)
            };
            assert_eq!(outcome.is_err_and(|error| error.paths().contains(&"x-actor")), refused, "{rpc}");
        }
    }
    service.signal("TERM");
    let (_, log) = service.end().await;
    let calls = log.iter().map(|line| serde_json::from_str::<Json>(line).expect("JSON"));
    let calls: Vec<_> =
        calls.filter(|line| line["message"] == "call" && line["span"]["key_id"] == key[3..19]).collect();
    assert_eq!(calls.len(), 2 * rpcs().len());
    let (named, others): (Vec<_>, Vec<_>) = calls.iter().partition(|line| line["span"]["actor"] == "eve.7");
    assert_eq!(named.len(), rpcs().len());
    assert!(others.iter().all(|line| line["span"].get("actor").is_none()));
    assert!(!log.iter().any(|line| line.contains("eve@")), "a text that is no actor is in the log");
}
