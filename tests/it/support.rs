//! What only support may do.

use serde_json::json;
use tonic::Code;

use crate::harness::client;

const CORRECT: &str = "SupportService/CorrectProfile";
const FIND: &str = "SupportService/FindProfile";
const MONDAY: &str = "2026-01-05T10:00:00Z";

#[tokio::test]
async fn a_correction_passes_the_lock_and_leaves_it() {
    let (_service, north) = client().await;
    let ada = north.person(json!({ "dob": "1915-12-10" })).await;
    north.report("c-1", &ada, "APPROVED", MONDAY).await.expect("reported");
    let corrected = north.correct(&ada, json!({ "dob": "1915-12-11" }), "typing error").await.expect("corrected");
    assert_eq!(
        (&corrected["dob"], &corrected["lockedFields"]),
        (&json!("1915-12-11"), &json!("firstName,lastName,dob,gender"))
    );
    assert_eq!(
        north.patch(&ada, json!({ "dob": "1915-12-12" })).await.expect_err("locked").reason,
        "DEMOGRAPHICS_LOCKED"
    );
}

#[tokio::test]
async fn a_correction_needs_a_reason_and_is_judged_as_any_write() {
    let (_service, north) = client().await;
    let ada = north.person(json!({})).await;
    let refused = north.correct(&ada, json!({ "dob": "never" }), " \n ").await.expect_err("no reason");
    assert_eq!(refused.paths(), ["profile.dob", "reason"]);
    let long = json!({ "profile": { "id": ada["id"] }, "reason": "x".repeat(501), "ticket": "x".repeat(101) });
    assert_eq!(north.call(CORRECT, long).await.expect_err("too long").paths(), ["reason", "ticket"]);
    let lines = json!({ "profile": { "id": ada["id"], "city": "London" }, "reason": "She called.\r\nShe moved.", "ticket": "T-1" });
    assert_eq!(north.call(CORRECT, lines).await.expect("corrected")["city"], "London");
    let stale = north.correct(&ada, json!({ "city": "x", "etag": ada["etag"] }), "why").await;
    assert_eq!(stale.expect_err("stale").reason, "ETAG_MISMATCH");
}

#[tokio::test]
async fn a_correction_is_repeatable_and_can_be_tried() {
    let (_service, north) = client().await;
    let ada = north.person(json!({})).await;
    let tried = json!({ "profile": { "id": ada["id"], "city": "London" }, "reason": "why", "validateOnly": true });
    assert_eq!(north.call(CORRECT, tried).await.expect("valid")["city"], "London");
    assert_eq!(north.get(&ada).await, Ok(ada.clone()));
    let once = json!({ "profile": { "id": ada["id"], "city": "London" }, "reason": "why", "requestId": "r" });
    let done = north.call(CORRECT, once.clone()).await.expect("corrected");
    assert_eq!(north.call(CORRECT, once).await, Ok(done));
    assert_eq!(north.changes(&ada).await.len(), 2);
}

#[tokio::test]
async fn a_role_bars_update_profile_and_nothing_else() {
    let (_service, north) = client().await;
    let ada = north.person(json!({ "email": "ada@example.com" })).await;
    for role in ["PROVIDER", "SUPPORT", "ADMIN"] {
        assert_eq!(north.set_role(&ada, role).await.expect("set")["role"], role);
        let refused = north.update(json!({ "email": "ada@example.com", "city": role })).await.expect_err("not a user");
        assert_eq!((refused.code, refused.reason.as_str()), (Code::PermissionDenied, "UPDATE_NOT_ALLOWED"));
        assert_eq!(refused.message, "Not allowed to update the profile");
        let patched = north.patch(&ada, json!({ "city": role })).await.expect("patched");
        north.replace(patched).await.expect("replaced");
    }
    north.set_role(&ada, "USER").await.expect("set");
    north.update(json!({ "email": "ada@example.com", "city": "London" })).await.expect("a user again");
}

#[tokio::test]
async fn a_role_must_be_known_and_have_a_reason() {
    let (_service, north) = client().await;
    let refused = north.call("SupportService/SetProfileRole", json!({ "role": 9 })).await.expect_err("nothing said");
    let told: Vec<_> = refused.fields.iter().map(|(path, rule)| format!("{path} {rule}")).collect();
    assert_eq!(told, ["id is required", "role must be USER, PROVIDER, SUPPORT or ADMIN", "reason is required"]);
}

#[tokio::test]
async fn a_person_is_found_by_what_she_tells_in_her_organization_only() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    let ada = north.person(json!({ "email": "ada@example.com", "phoneNumber": "+15550001" })).await;
    for told in [json!({ "email": " ADA@example.com" }), json!({ "phoneNumber": "+1 (555) 0001" })] {
        assert_eq!(north.call(FIND, told.clone()).await, Ok(ada.clone()));
        let foreign = south.call(FIND, told).await.expect_err("not theirs");
        assert_eq!((foreign.code, foreign.reason.as_str()), (Code::NotFound, "PROFILE_NOT_FOUND"));
    }
    for (told, path) in
        [(json!({}), "email"), (json!({ "email": "ada" }), "email"), (json!({ "phoneNumber": "" }), "phone_number")]
    {
        assert_eq!(north.call(FIND, told).await.expect_err("no contact").paths(), [path]);
    }
}
