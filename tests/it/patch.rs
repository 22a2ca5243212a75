//! PatchProfile: the fields that the mask names, and no other.

use serde_json::json;
use tonic::Code;

use crate::harness::client;

#[tokio::test]
async fn without_a_mask_what_is_present_changes() {
    let (_service, north) = client().await;
    let person = north.person(json!({ "city": "London", "state": "LN", "gender": "FEMALE" })).await;
    let fields = json!({ "city": "Ockham", "state": "", "gender": "GENDER_UNSPECIFIED" });
    let patched = north.patch(&person, fields.clone()).await.expect("patched");
    assert_eq!((&patched["city"], patched.get("state"), patched.get("gender")), (&json!("Ockham"), None, None));
    assert_eq!(patched["firstName"], person["firstName"]);
    assert_eq!(patched["etag"], "\"2\"");
    assert_eq!(north.patch_masked(&person, fields, &[]).await, Ok(patched.clone()));
    assert_eq!(north.get(&person).await, Ok(patched));
}

#[tokio::test]
async fn a_mask_names_what_changes_and_what_is_absent_is_cleared() {
    let (_service, north) = client().await;
    let person = north.person(json!({ "city": "London", "country": "GB", "email": "ada@example.com" })).await;
    let fields = json!({ "city": "Ockham", "country": "nowhere", "lastName": "" });
    let patched = north.patch_masked(&person, fields, &["city", "email", "city"]).await.expect("patched");
    assert_eq!((&patched["city"], patched.get("email")), (&json!("Ockham"), None));
    assert_eq!((&patched["country"], &patched["lastName"]), (&json!("GB"), &json!("Byron")));
}

#[tokio::test]
async fn a_star_replaces_the_whole() {
    let (_service, north) = client().await;
    let person = north.person(json!({ "city": "London" })).await;
    let fields = json!({ "firstName": "Augusta", "lastName": "King" });
    let patched = north.patch_masked(&person, fields, &["*"]).await.expect("patched");
    assert_eq!((&patched["firstName"], patched.get("city")), (&json!("Augusta"), None));
    let refused = north.patch_masked(&person, json!({ "city": "Ockham" }), &["*"]).await.expect_err("no names");
    assert_eq!(refused.paths(), ["profile.first_name", "profile.last_name"]);
}

#[tokio::test]
async fn a_required_field_cannot_be_cleared() {
    let (_service, north) = client().await;
    let person = north.person(json!({})).await;
    let empty = north.patch(&person, json!({ "firstName": "" })).await.expect_err("present and empty");
    let absent = north.patch_masked(&person, json!({}), &["last_name"]).await.expect_err("named and absent");
    assert_eq!((empty.paths(), absent.paths()), (vec!["profile.first_name"], vec!["profile.last_name"]));
}

#[tokio::test]
async fn a_bad_mask_is_told_alone_before_any_value() {
    let (_service, north) = client().await;
    let person = north.person(json!({})).await;
    for path in ["nickname", "profile.city", "firstName", "role", "locked_fields", "id", "etag", "created_date", ""] {
        let refused = north.patch_masked(&person, json!({ "dob": "never" }), &["city", path]).await.expect_err(path);
        assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "INVALID_UPDATE_MASK"), "{path}");
        assert!(refused.fields.is_empty());
    }
    let refused = north.patch_masked(&person, json!({}), &["*", "city"]).await.expect_err("* among others");
    assert_eq!(refused.reason, "INVALID_UPDATE_MASK");
    assert_eq!(north.get(&person).await, Ok(person));
}

#[tokio::test]
async fn a_bad_mask_is_told_which_paths_are_bad_and_what_was_meant() {
    let (_service, north) = client().await;
    let person = north.person(json!({})).await;
    let paths = ["city", "postalCode", "role", "ada@example.com"];
    let refused = north.patch_masked(&person, json!({}), &paths).await.expect_err("a bad mask");
    assert_eq!(
        refused.message,
        "The update mask cannot have `postalCode` (did you mean `postal_code`?), `role`, 1 path that is not named \
         here. It must be empty, or `*` alone, or name fields that can be changed: first_name, last_name, email, dob, \
         gender, phone_number, address, address2, city, state, country, postal_code."
    );
    let endless: Vec<_> = (0..3000).map(|number| format!("path_number_{number}")).collect();
    let endless: Vec<_> = endless.iter().map(String::as_str).collect();
    let refused = north.patch_masked(&person, json!({}), &endless).await.expect_err("a bad mask");
    assert!(refused.message.contains("2990 paths that are not named here"), "{}", refused.message);
}

#[tokio::test]
async fn a_patch_that_changes_nothing_leaves_the_version_and_the_date() {
    let (_service, north) = client().await;
    let person = north.person(json!({ "phoneNumber": "+15550001", "city": "London" })).await;
    let same = json!({ "firstName": " Ada ", "phoneNumber": "+1 (555) 0001", "city": "London", "state": "" });
    assert_eq!(north.patch(&person, same).await, Ok(person.clone()));
    assert_eq!(north.patch(&person, json!({})).await, Ok(person));
}

#[tokio::test]
async fn an_email_moves_to_another_address_and_frees_the_old_one() {
    let (_service, north) = client().await;
    let person = north.person(json!({ "email": "ada@example.com" })).await;
    let other = north.person(json!({ "email": "augusta@example.com" })).await;
    let taken = north.patch(&other, json!({ "email": "ada@example.com" })).await.expect_err("taken");
    assert_eq!(taken.reason, "EMAIL_IN_USE");
    north.patch(&person, json!({ "email": "king@example.com" })).await.expect("moved");
    north.patch(&other, json!({ "email": "ada@example.com" })).await.expect("free");
}
