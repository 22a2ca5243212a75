//! What makes a write safe to repeat, to race and to try: etag, request id, validation.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{TimeDelta, Utc};
use serde_json::{Value as Json, json};
use tonic::Code;

use crate::{
    harness::{Client, Outcome, Service, client},
    walk::{change_of, rpcs_with, to_change},
};

const CREATE: &str = "ProfileService/CreateProfile";
const PATCH: &str = "ProfileService/PatchProfile";
const UPDATE: &str = "ProfileService/UpdateProfile";

#[tokio::test]
async fn a_write_with_a_stale_etag_is_aborted_and_changes_nothing() {
    let (_service, north) = client().await;
    let old = north.person(json!({ "email": "ada@example.com" })).await;
    let now = north.patch(&old, json!({ "city": "London" })).await.expect("patched");
    for etag in [old["etag"].as_str().expect("an etag"), "W/\"2\"", "\"nonsense\"", "\"\""] {
        let mut whole = now.clone();
        whole["etag"] = json!(etag);
        for outcome in [
            north.replace(whole).await,
            north.patch(&old, json!({ "etag": etag, "city": "x" })).await,
            north.update(json!({ "email": "ada@example.com", "etag": etag, "city": "x" })).await,
        ] {
            let refused = outcome.expect_err(etag);
            assert_eq!((refused.code, refused.reason.as_str()), (Code::Aborted, "ETAG_MISMATCH"), "{etag}");
        }
    }
    assert_eq!(north.get(&old).await, Ok(now.clone()));
    north.patch(&old, json!({ "etag": now["etag"], "city": "Ockham" })).await.expect("the current etag");
}

#[tokio::test]
async fn an_etag_that_is_no_entity_tag_is_told_so_on_its_field() {
    let (_service, north) = client().await;
    let ada = north.person(json!({ "email": "ada@example.com" })).await;
    for etag in ["1", "*", "nonsense", "\"1", "'1'", "w/\"1\"", "\"1\", \"2\"", "\u{201c}1\u{201d}", "\\\"1\\\""] {
        let mut whole = ada.clone();
        whole["etag"] = json!(etag);
        let role = json!({ "id": ada["id"], "role": "ADMIN", "reason": "a new post", "etag": etag });
        for (outcome, field) in [
            (north.create(whole.clone()).await, "profile.etag"),
            (north.replace(whole).await, "profile.etag"),
            (north.patch(&ada, json!({ "etag": etag, "city": "x" })).await, "profile.etag"),
            (north.update(json!({ "email": "ada@example.com", "etag": etag, "city": "x" })).await, "data.etag"),
            (north.correct(&ada, json!({ "etag": etag, "city": "x" }), "why").await, "profile.etag"),
            (north.call("SupportService/SetProfileRole", role).await, "etag"),
        ] {
            let refused = outcome.expect_err(etag);
            assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"), "{etag}");
            assert_eq!(refused.fields, [(field.to_owned(), "must be an etag as answered, with its quotes".to_owned())]);
            assert_eq!(refused.field_reasons, ["INVALID_ETAG"]);
        }
    }
    assert_eq!(north.get(&ada).await, Ok(ada));
}

#[tokio::test]
async fn a_create_has_no_current_etag() {
    let (_service, north) = client().await;
    let refused = north.create(json!({ "firstName": "A", "lastName": "B", "etag": "\"1\"" })).await;
    assert_eq!(refused.expect_err("nothing is current").reason, "ETAG_MISMATCH");
}

#[tokio::test]
async fn a_repeat_changes_nothing_and_answers_the_profile_as_it_is_now() {
    let (_service, north) = client().await;
    let create = json!({ "requestId": "c-1", "profile": { "firstName": "Ada", "lastName": "Byron", "email": "ada@example.com" } });
    let ada = north.call(CREATE, create.clone()).await.expect("a new profile");
    assert_eq!(north.call(CREATE, create.clone()).await, Ok(ada.clone()));

    let patch = json!({ "requestId": "p-1", "profile": { "id": ada["id"], "city": "London", "etag": ada["etag"] } });
    let london = north.call(PATCH, patch.clone()).await.expect("patched");
    let update = json!({ "requestId": "u-1", "data": { "email": "ada@example.com", "city": "Ockham" } });
    let ockham = north.call(UPDATE, update.clone()).await.expect("updated");
    assert_eq!((&london["etag"], &ockham["etag"]), (&json!("\"2\""), &json!("\"3\"")));

    let moved = north.patch(&ada, json!({ "email": "king@example.com", "city": "Paris" })).await.expect("moved");
    for (rpc, request) in [(CREATE, create), (PATCH, patch), (UPDATE, update)] {
        assert_eq!(north.call(rpc, request).await, Ok(moved.clone()), "{rpc}");
    }
}

#[tokio::test]
async fn a_request_id_stands_for_one_payload_of_one_rpc_in_one_organization() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    let create = |name: &str| json!({ "requestId": "same", "profile": { "firstName": name, "lastName": "B" } });
    let ada = north.call(CREATE, create("Ada")).await.expect("a new profile");
    let reused = north.call(CREATE, create("Eve")).await.expect_err("another payload");
    assert_eq!((reused.code, reused.reason.as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));
    let foreign = south.call(CREATE, create("Ada")).await.expect("another organization");
    assert_ne!(foreign["id"], ada["id"]);
    let patch = json!({ "requestId": "same", "profile": { "id": ada["id"], "city": "London" } });
    assert_eq!(north.call(PATCH, patch).await.expect("another RPC")["city"], "London");
}

#[tokio::test]
async fn a_failure_is_not_remembered() {
    let (_service, north) = client().await;
    let ada = north.person(json!({ "email": "ada@example.com" })).await;
    let create =
        json!({ "requestId": "r", "profile": { "firstName": "A", "lastName": "B", "email": "ada@example.com" } });
    assert_eq!(north.call(CREATE, create.clone()).await.expect_err("taken").reason, "EMAIL_IN_USE");
    north.patch(&ada, json!({ "email": "" })).await.expect("freed");
    assert_eq!(north.call(CREATE, create).await.expect("now free")["email"], "ada@example.com");
}

#[tokio::test]
async fn a_validation_answers_what_would_be_and_stores_nothing() {
    let (_service, north) = client().await;
    let profile = json!({ "firstName": "Ada", "lastName": "Byron", "email": "ada@example.com" });
    let tried = validate(&north, CREATE, json!({ "profile": profile })).await.expect("valid");
    assert_eq!(tried, json!({ "firstName": "Ada", "lastName": "Byron", "email": "ada@example.com", "role": "USER" }));
    let ada = north.create(profile).await.expect("the e-mail is still free");

    let fields = json!({ "id": ada["id"], "city": "London", "etag": ada["etag"] });
    let mut expected = ada.clone();
    expected["city"] = json!("London");
    assert_eq!(validate(&north, PATCH, json!({ "profile": fields })).await, Ok(expected.clone()));
    let data = json!({ "email": "ada@example.com", "city": "London" });
    assert_eq!(validate(&north, UPDATE, json!({ "data": data })).await, Ok(expected.clone()));
    assert_eq!(
        validate(&north, "ProfileService/ReplaceProfile", json!({ "profile": expected.clone() })).await,
        Ok(expected)
    );
    assert_eq!(north.get(&ada).await, Ok(ada));
}

#[tokio::test]
async fn a_validation_fails_as_the_write_would_and_remembers_no_request_id() {
    let (_service, north) = client().await;
    let ada = north.person(json!({ "email": "ada@example.com" })).await;
    let taken = json!({ "profile": { "firstName": "A", "lastName": "B", "email": "ada@example.com" } });
    assert_eq!(validate(&north, CREATE, taken).await.expect_err("taken").reason, "EMAIL_IN_USE");
    let stale = json!({ "profile": { "id": ada["id"], "city": "x", "etag": "\"9\"" } });
    assert_eq!(validate(&north, PATCH, stale).await.expect_err("stale").reason, "ETAG_MISMATCH");
    let missing = json!({ "data": { "email": "eve@example.com" } });
    assert_eq!(validate(&north, UPDATE, missing).await.expect_err("nobody").reason, "USER_NOT_FOUND");
    let long = json!({ "requestId": "x".repeat(101), "profile": { "id": ada["id"] } });
    assert_eq!(validate(&north, PATCH, long).await.expect_err("too long").paths(), ["request_id"]);

    let patch = |city: &str| json!({ "requestId": "r", "profile": { "id": ada["id"], "city": city } });
    validate(&north, PATCH, patch("Paris")).await.expect("valid");
    assert_eq!(north.call(PATCH, patch("London")).await.expect("not remembered")["city"], "London");
    validate(&north, PATCH, patch("Paris")).await.expect("the request id of a validation claims nothing");
}

async fn validate(client: &Client, rpc: &str, mut request: Json) -> Outcome {
    request["validateOnly"] = json!(true);
    client.call(rpc, request).await
}

#[tokio::test]
async fn a_repeat_is_answered_although_the_lock_fell_and_the_role_changed() {
    let (_service, north) = client().await;
    let ada = north.person(json!({ "email": "ada@example.com" })).await;
    let update =
        json!({ "requestId": "r", "data": { "email": "ada@example.com", "firstName": "Eve", "etag": ada["etag"] } });
    north.call(UPDATE, update.clone()).await.expect("updated");
    north.report("c-1", &ada, "ASSIGNED", "2026-01-05T10:00:00Z").await.expect("reported");
    let now = north.set_role(&ada, "ADMIN").await.expect("set");
    assert_eq!(north.call(UPDATE, update).await, Ok(now));
}

#[tokio::test]
async fn a_validation_of_any_rpc_stores_nothing() {
    let (service, north) = client().await;
    let tables = "SELECT (SELECT COUNT(*) FROM profile) + (SELECT COUNT(*) FROM profile_change) \
                  + (SELECT COUNT(*) FROM profile_identifier) + (SELECT COUNT(*) FROM write_request) AS number";
    let rpcs = rpcs_with("validate_only");
    assert_eq!(rpcs.len(), 9);
    for rpc in rpcs {
        let ada = north.person(to_change(&rpc)).await;
        let before = service.database.number(tables).await;
        let mut request = change_of(&rpc, &ada);
        request["requestId"] = json!("r");
        let tried = validate(&north, &rpc, request).await.expect(&rpc);
        assert_ne!(tried, ada, "{rpc}");
        assert_eq!(north.get(&ada).await, Ok(ada));
        assert_eq!(service.database.number(tables).await, before, "{rpc}");
    }
}

#[tokio::test]
async fn a_validation_holds_the_lock_and_the_role() {
    let (_service, north) = client().await;
    let ada = north.person(json!({ "email": "ada@example.com" })).await;
    north.report("c-1", &ada, "ASSIGNED", "2026-01-05T10:00:00Z").await.expect("reported");
    let locked = json!({ "data": { "email": "ada@example.com", "firstName": "Eve" } });
    assert_eq!(validate(&north, UPDATE, locked.clone()).await.expect_err("locked").reason, "DEMOGRAPHICS_LOCKED");
    north.set_role(&ada, "SUPPORT").await.expect("set");
    assert_eq!(validate(&north, UPDATE, locked).await.expect_err("no user").reason, "UPDATE_NOT_ALLOWED");
}

#[tokio::test]
async fn a_request_id_is_remembered_for_24_hours_also_where_clocks_are_25_hours_apart_and_then_forgotten() {
    let (mut service, north) = client().await;
    let create = |id: &str| json!({ "requestId": id, "profile": { "firstName": "Ada", "lastName": "Byron" } });
    for id in ["old", "young"] {
        north.call(CREATE, create(id)).await.expect("a new profile");
    }
    service.signal("TERM");
    service.end().await;
    for (id, hours) in [("old", 51), ("young", 49)] {
        let claimed = (Utc::now() - TimeDelta::hours(hours)).to_rfc3339();
        let age = format!("UPDATE write_request SET created_at = '{claimed}' WHERE request_id = '{id}'");
        service.database.execute(&age).await;
    }
    let again = Service::on(Arc::clone(&service.database), []);
    let remembered = |id| format!("SELECT COUNT(*) AS number FROM write_request WHERE request_id = '{id}'");
    let deadline = Instant::now() + Duration::from_secs(10);
    while again.database.number(&remembered("old")).await > 0 {
        assert!(Instant::now() < deadline, "the old id is still there");
    }
    assert_eq!(again.database.number(&remembered("young")).await, 1);
}
