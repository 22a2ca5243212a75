//! A person is forgotten: what goes, what stays, and that nothing brings anybody back.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::timeout;
use tonic::Code;

use crate::harness::{Client, Messages, Outcome, client, rounds};

const CREATE: &str = "ProfileService/CreateProfile";
const PATCH: &str = "ProfileService/PatchProfile";
const ERASE: &str = "SupportService/EraseProfile";
const EXPORT: &str = "SupportService/ExportProfile";
const WATCH: &str = "ProfileQueryService/WatchProfiles";
/// How long a message may take that comes at once, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(10);

const MONDAY: &str = "2026-01-05T10:00:00Z";

/// EraseProfile of this profile, with these fields besides.
async fn erase(north: &Client, person: &Json, further: Json) -> Outcome {
    let mut request = json!({ "id": person["id"], "reasonCode": "REASON_CODE_REQUEST_OF_PERSON" });
    request.as_object_mut().expect("an object").extend(further.as_object().expect("an object").clone());
    north.call(ERASE, request).await
}

fn reason(outcome: Outcome) -> String {
    outcome.expect_err("refused").reason
}

#[tokio::test]
async fn what_remains_is_which_fields_changed_when_and_by_which_key_and_that_it_was_erased() {
    let (service, north) = client().await;
    let create =
        json!({ "requestId": "r-1", "profile": { "firstName": "Ada", "lastName": "Byron", "dob": "1915-12-10" } });
    let ada = north.call(CREATE, create).await.expect("a new profile");
    north.report("c-1", &ada, "ASSIGNED", MONDAY).await.expect("reported");
    let correct =
        json!({ "profile": { "id": ada["id"], "dob": "1915-12-11" }, "reason": "Ada said so.", "ticket": "T-1" });
    north.call("SupportService/CorrectProfile", correct).await.expect("corrected");
    let before = north.changes(&ada).await;

    let key = service.key("north", &["privacy"]);
    let privacy = service.client(&key).await;
    let further = json!({ "evenIfLocked": true, "ticket": "T-2", "requestId": "r-2" });
    let erased = erase(&privacy, &ada, further).await.expect("erased");
    assert_eq!(erased["id"], ada["id"]);
    let after = north.changes(&ada).await;
    let last = json!({ "revision": "4", "changeTime": erased["eraseTime"], "keyId": key.split('_').nth(1),
        "keyName": after[0]["keyName"], "rpc": ERASE, "requestId": "r-2", "reason": "REASON_CODE_REQUEST_OF_PERSON",
        "ticket": "T-2", "lockOverridden": true });
    assert_eq!(after[0], last);
    let emptied = before.into_iter().map(|mut change| {
        let change_fields = change.as_object_mut().expect("an object");
        change_fields.retain(|name, _| !["requestId", "reason", "ticket", "caseId"].contains(&name.as_str()));
        for field in change["fields"].as_array_mut().expect("fields") {
            *field = json!({ "field": field["field"] });
        }
        change
    });
    assert_eq!(after[1..], emptied.collect::<Vec<_>>());
    for rpc in ["ProfileService/GetProfile", "SupportService/ListProfileCases", "SupportService/EraseProfile"] {
        let request = match rpc {
            ERASE => json!({ "id": ada["id"], "reasonCode": "REASON_CODE_RETENTION" }),
            _ => json!({ "id": ada["id"] }),
        };
        let refused = north.call(rpc, request).await.expect_err("gone");
        assert_eq!((refused.code, refused.reason.as_str()), (Code::NotFound, "PROFILE_NOT_FOUND"), "{rpc}");
    }
    assert_eq!(reason(north.report("c-2", &ada, "OPEN", MONDAY).await), "PROFILE_NOT_FOUND");
    let nobody = north.call("ProfileQueryService/ListProfiles", json!({})).await;
    assert_eq!(nobody, Ok(json!({})));
}

#[tokio::test]
async fn who_is_erased_leaves_everything_to_a_new_person() {
    let (_service, north) = client().await;
    let identifiers = json!([{ "system": "mrn", "value": "7" }]);
    let fields = json!({ "email": "ada@example.com", "phoneNumber": "+15550001", "identifiers": identifiers });
    let ada = north.person(fields.clone()).await;
    north.report("c-1", &ada, "OPEN", MONDAY).await.expect("reported");
    erase(&north, &ada, json!({})).await.expect("erased");
    assert_eq!(reason(north.update(json!({ "email": "ada@example.com" })).await), "USER_NOT_FOUND");
    let eve = north.person(fields).await;
    assert_ne!(eve["id"], ada["id"]);
    assert_eq!((&eve["etag"], &eve["identifiers"]), (&json!("\"1\""), &identifiers));
    north.report("c-1", &eve, "ASSIGNED", MONDAY).await.expect("a case of the new person");
}

#[tokio::test]
async fn a_locked_profile_is_erased_on_purpose_only() {
    let (_service, north) = client().await;
    let ada = north.person(json!({})).await;
    north.report("c-1", &ada, "APPROVED", MONDAY).await.expect("reported");
    let refused = erase(&north, &ada, json!({})).await.expect_err("locked");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::FailedPrecondition, "DEMOGRAPHICS_LOCKED"));
    assert_eq!(refused.paths(), ["first_name", "last_name", "dob", "gender"]);
    north.get(&ada).await.expect("still there");
    erase(&north, &ada, json!({ "evenIfLocked": true })).await.expect("erased");
}

#[tokio::test]
async fn an_erasure_has_an_etag_a_validation_and_all_violations_at_once() {
    let (_service, north) = client().await;
    let ada = north.person(json!({})).await;
    let refused =
        north.call(ERASE, json!({ "id": "x", "ticket": "t".repeat(101), "etag": "1", "requestId": "\t" })).await;
    let refused = refused.expect_err("invalid");
    assert_eq!(refused.paths(), ["id", "reason_code", "ticket", "etag"]);
    assert_eq!(refused.field_reasons, ["INVALID_UUID", "INVALID_REASON_CODE", "TOO_LONG", "INVALID_ETAG"]);
    assert_eq!(reason(erase(&north, &ada, json!({ "etag": "\"2\"" })).await), "ETAG_MISMATCH");
    let tried = erase(&north, &ada, json!({ "etag": ada["etag"], "validateOnly": true, "requestId": "r" })).await;
    assert_eq!(tried, Ok(json!({ "id": ada["id"] })));
    assert_eq!(north.get(&ada).await, Ok(ada.clone()));
    erase(&north, &ada, json!({ "etag": ada["etag"], "requestId": "r" })).await.expect("erased");
}

#[tokio::test]
async fn nobody_else_erases_a_profile() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    let ada = north.person(json!({})).await;
    assert_eq!(reason(erase(&south, &ada, json!({})).await), "PROFILE_NOT_FOUND");
    let support = service.client(&service.key("north", &["support", "profiles.write"])).await;
    assert_eq!(reason(erase(&support, &ada, json!({})).await), "SCOPE_MISSING");
    erase(&north, &ada, json!({})).await.expect("erased");
    let list = json!({ "id": ada["id"] });
    assert_eq!(reason(south.call("SupportService/ListProfileChanges", list).await), "PROFILE_NOT_FOUND");
}

#[tokio::test]
async fn a_late_repeat_brings_nobody_back_and_a_repeat_of_the_erasure_answers_the_same() {
    let (service, north) = client().await;
    let create =
        json!({ "requestId": "c", "profile": { "firstName": "Ada", "lastName": "Byron", "email": "ada@example.com" } });
    let ada = north.call(CREATE, create.clone()).await.expect("a new profile");
    let patch = json!({ "requestId": "p", "profile": { "id": ada["id"], "city": "London" } });
    north.call(PATCH, patch.clone()).await.expect("patched");
    let update = json!({ "requestId": "u", "data": { "email": "ada@example.com", "city": "Paris" } });
    north.call("ProfileService/UpdateProfile", update.clone()).await.expect("updated");
    let erased = erase(&north, &ada, json!({ "requestId": "e" })).await.expect("erased");
    for (rpc, request) in [(CREATE, &create), (PATCH, &patch), ("ProfileService/UpdateProfile", &update)] {
        let refused = north.call(rpc, request.clone()).await.expect_err("gone");
        assert_eq!(
            (refused.reason.as_str(), refused.resource.as_deref()),
            ("PROFILE_NOT_FOUND", ada["id"].as_str()),
            "{rpc}"
        );
    }
    for _ in 0..2 {
        assert_eq!(erase(&north, &ada, json!({ "requestId": "e" })).await, Ok(erased.clone()));
    }
    assert_eq!(reason(erase(&north, &ada, json!({ "requestId": "e", "ticket": "x" })).await), "REQUEST_ID_REUSED");
    assert_eq!(reason(erase(&north, &ada, json!({ "requestId": "e-2" })).await), "PROFILE_NOT_FOUND");
    assert_eq!(service.database.number("SELECT COUNT(*) AS number FROM profile").await, 0);
    assert_eq!(north.changes(&ada).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_race_with_the_erasure_leave_nothing_behind_it() {
    let (service, north) = client().await;
    for round in 0..rounds(25) {
        let ada = north.person(json!({ "email": format!("{round}@example.com") })).await;
        let writes = (0..4).map(|write| {
            let (north, ada) = (north.clone(), ada.clone());
            tokio::spawn(async move {
                let patch = json!({ "requestId": format!("{round}-{write}"), "profile": { "id": ada["id"], "city": format!("canary {write}") } });
                let case = format!("canary {round} {write}");
                let (patched, reported) = tokio::join!(north.call(PATCH, patch), north.report(&case, &ada, "OPEN", MONDAY));
                for outcome in [patched, reported] {
                    assert!(outcome.is_ok() || reason(outcome) == "PROFILE_NOT_FOUND");
                }
            })
        });
        let writes: Vec<_> = writes.collect();
        let id = format!("{round}");
        let erasures = (0..2).map(|_| {
            let (north, ada, id) = (north.clone(), ada.clone(), id.clone());
            tokio::spawn(async move { erase(&north, &ada, json!({ "requestId": id })).await.expect("erased") })
        });
        let erasures: Vec<_> = erasures.collect();
        for write in writes {
            write.await.expect("a write");
        }
        let mut answers = Vec::new();
        for erasure in erasures {
            answers.push(erasure.await.expect("an erasure"));
        }
        assert_eq!(answers[0], answers[1]);
        let changes = north.changes(&ada).await;
        assert_eq!(changes[0]["rpc"], ERASE);
        assert_eq!(changes.iter().filter(|change| change["rpc"] == ERASE).count(), 1);
    }
    let left = "SELECT (SELECT COUNT(*) FROM profile) + (SELECT COUNT(*) FROM profile_case) \
                + (SELECT COUNT(*) FROM profile_change WHERE COALESCE(old_values, new_values, case_id) IS NOT NULL) AS number";
    assert_eq!(service.database.number(left).await, 0);
}

#[tokio::test]
async fn followers_are_sent_of_an_erased_person_only_that_it_was_erased() {
    let (service, north) = client().await;
    let (ada, bob) = (north.person(json!({})).await, north.person(json!({})).await);
    service.database.sequenced().await;
    let mut live = north.stream(WATCH, json!({ "skipExisting": true })).await.expect("a stream");
    let token = live.next().await.expect("a message").expect("a heartbeat")["resumeToken"].clone();
    let patch = async |person: &Json, city: &str| north.patch(person, json!({ "city": city })).await.expect("patched");
    patch(&ada, "Paris").await;
    changed(&mut live).await;
    patch(&bob, "Rome").await;
    changed(&mut live).await;
    let erased = erase(&north, &ada, json!({})).await.expect("erased");
    let mut message = changed(&mut live).await;
    assert!(message.as_object_mut().expect("an object").remove("resumeToken").is_some());
    let told =
        json!({ "kind": "KIND_ERASED", "profileId": ada["id"], "revision": "3", "changeTime": erased["eraseTime"] });
    assert_eq!(message, told);
    patch(&bob, "Oslo").await;
    service.database.sequenced().await;

    let mut later = north.stream(WATCH, json!({ "resumeToken": token })).await.expect("a stream");
    let mut kinds = Vec::new();
    for _ in 0..3 {
        let message = changed(&mut later).await;
        kinds.push((message["kind"].clone(), message["profileId"].clone(), message["revision"].clone()));
    }
    let of = |kind: &str, person: &Json, revision: &str| (json!(kind), person["id"].clone(), json!(revision));
    let (rome, oslo) = (of("KIND_CHANGED", &bob, "2"), of("KIND_CHANGED", &bob, "3"));
    assert_eq!(kinds, [rome, of("KIND_ERASED", &ada, "3"), oslo]);

    let mut anew = north.stream(WATCH, json!({})).await.expect("a stream");
    assert_eq!(changed(&mut anew).await["profileId"], bob["id"]);
    assert_eq!(changed(&mut anew).await["kind"], "KIND_SNAPSHOT_END");
}

/// The next message that is no heartbeat.
async fn changed(messages: &mut Messages) -> Json {
    loop {
        let message = timeout(SOON, messages.next()).await.expect("a message in time");
        let message = message.expect("a message").expect("a stream that goes on");
        if message["kind"] != "KIND_HEARTBEAT" {
            return message;
        }
    }
}

#[tokio::test]
async fn erasing_and_exporting_leave_a_line_with_the_key_and_the_profile() {
    let (mut service, north) = client().await;
    let ada = north.person(json!({ "firstName": "Canary" })).await;
    let key = service.key("north", &["privacy"]);
    let privacy = service.client(&key).await;
    let mut export = privacy.stream(EXPORT, json!({ "id": ada["id"] })).await.expect("a stream");
    while export.next().await.expect("a record").is_some() {}
    erase(&privacy, &ada, json!({})).await.expect("erased");
    service.signal("TERM");
    let (_, log) = service.end().await;
    for rpc in [EXPORT, ERASE] {
        let line = log.iter().find(|line| line.contains(rpc)).expect("a line");
        let line: Json = serde_json::from_str(line).expect("JSON");
        let told = (&line["code"], &line["span"]["key_id"], &line["span"]["profile_id"]);
        assert_eq!(told, (&json!("Ok"), &json!(key.split('_').nth(1)), &ada["id"]));
    }
    assert!(!log.iter().any(|line| line.contains("Canary")));
}
