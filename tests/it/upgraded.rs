//! A database that a program of before has written, under this program.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value as Json, json};

use crate::harness::{Before, Messages, SCOPES, Service};

#[tokio::test]
async fn an_upgrade_leaves_every_row_of_before_as_it_was() {
    let before = Before::restore().await;
    let rows = before.rows().await;
    for (table, rows) in &rows {
        assert!(rows.len() > 2, "{table}");
    }
    let _service = Service::on(Arc::clone(&before.database), []);
    assert_eq!(before.rows().await, rows);
}

#[tokio::test]
async fn keys_pages_and_request_ids_of_before_are_answered_as_they_were() {
    let before = Before::restore().await;
    let service = Service::on(Arc::clone(&before.database), []);
    before.is_answered_again_by(&service).await;
}

#[tokio::test]
async fn people_of_before_are_listed_exported_and_followed_with_their_cases() {
    let before = Before::restore().await;
    let service = Service::on(Arc::clone(&before.database), []);
    let mut there = BTreeMap::new();
    for organization in ["north", "south"] {
        let client = service.client(&service.key(organization, &SCOPES)).await;
        let mut of_this = Vec::new();
        for person in before.people_of(organization) {
            let profile = client.get(person).await.expect("a profile");
            let list = json!({ "namePrefix": person["prefix"], "pageSize": 200 });
            let list = client.call("ProfileQueryService/ListProfiles", list).await.expect("a list");
            let found = list["profiles"].as_array().is_some_and(|profiles| profiles.contains(&profile));
            assert!(found, "{profile} in {list}");
            let export = json!({ "id": person["id"] });
            let mut export = client.stream("SupportService/ExportProfile", export).await.expect("a stream");
            let first = export.next().await.expect("a message").expect("a record");
            assert_eq!(first["profile"], profile);
            of_this.push(profile);
        }
        let mut followed = client.stream(WATCH, json!({})).await.expect("a stream");
        let mut told = Vec::new();
        loop {
            let message = followed.next().await.expect("a message").expect("no end");
            if message["kind"] == "KIND_SNAPSHOT_END" {
                break;
            }
            told.extend(message.get("profile").cloned());
        }
        told.sort_by_key(|profile| profile["id"].to_string());
        of_this.sort_by_key(|profile| profile["id"].to_string());
        assert_eq!(told, of_this);
        there.insert(organization, client);
    }
    for case in before.list("cases") {
        let list = json!({ "id": case["profileId"] });
        let list = there["north"].call("SupportService/ListProfileCases", list).await.expect("cases");
        let cases: Vec<_> = list["cases"].as_array().expect("a list").iter().map(|each| &each["case"]).collect();
        assert!(cases.contains(&case), "{case} in {list}");
    }
}

#[tokio::test]
async fn people_of_before_are_changed_unlocked_and_erased_and_followers_are_told() {
    let before = Before::restore().await;
    let service = Service::on(Arc::clone(&before.database), []);
    let north = service.client(&service.key("north", &SCOPES)).await;
    let mut followed = north.stream(WATCH, json!({ "skipExisting": true })).await.expect("a stream");
    followed.next().await.expect("a message").expect("where it begins");
    for (number, person) in before.people_of("north").enumerate() {
        let was = north.get(person).await.expect("a profile");
        let patch = json!({ "etag": was["etag"], "city": format!("Town {number}") });
        let patched = north.patch(person, patch).await.expect("patched");
        assert_eq!(revision(&patched), revision(&was) + 1);
        assert_eq!(next_change(&mut followed).await["profile"], patched);
        let identified = north.identify("Add", person, ("crm", number.to_string().as_str()), json!({})).await;
        assert_eq!(next_change(&mut followed).await["profile"], identified.expect("identified"));
        if was.get("lockedFields").is_some() {
            let refused = north.patch(person, json!({ "dob": "1980-01-01" })).await.expect_err("locked");
            assert_eq!(refused.reason, "DEMOGRAPHICS_LOCKED");
        }
    }
    for case in before.list("cases").iter().filter(|case| case["status"] != "CANCELLED") {
        let id = case["caseId"].as_str().expect("an id");
        let profile = json!({ "id": case["profileId"] });
        north.report(id, &profile, "CANCELLED", "2026-11-02T00:00:00Z").await.expect("a case");
    }
    for person in before.people_of("north") {
        assert_eq!(north.get(person).await.expect("a profile").get("lockedFields"), None);
        let erase = json!({ "id": person["id"], "reasonCode": "REASON_CODE_RETENTION" });
        north.call("SupportService/EraseProfile", erase).await.expect("erased");
        assert_eq!(north.get(person).await.expect_err("erased").reason, "PROFILE_NOT_FOUND");
    }
}

const WATCH: &str = "ProfileQueryService/WatchProfiles";

/// The next message that is no heartbeat.
async fn next_change(followed: &mut Messages) -> Json {
    loop {
        let message = followed.next().await.expect("a message").expect("no end");
        if message["kind"] != "KIND_HEARTBEAT" {
            return message;
        }
    }
}

fn revision(profile: &Json) -> i64 {
    profile["etag"].as_str().expect("an etag").trim_matches('"').parse().expect("a number")
}
