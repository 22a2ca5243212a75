//! UpdateProfile: the e-mail says whose, and the other present fields change.

use serde_json::json;
use tonic::Code;

use crate::harness::client;

#[tokio::test]
async fn the_documents_example_updates_john_doe() {
    let (_service, north) = client().await;
    let john = north.person(json!({ "email": "john.doe@example.com" })).await;
    let updated = north
        .update(json!({
            "email": "john.doe@example.com", "firstName": "John", "lastName": "Doe", "dob": "1995-10-01",
            "phoneNumber": "+11111111111", "gender": "MALE", "address": "123 ABC street", "address2": "Apt 2",
            "city": "NYC", "state": "NY", "country": "US", "postalCode": "01010",
        }))
        .await
        .expect("updated");
    let expected = json!({
        "id": john["id"], "createdDate": john["createdDate"], "updatedDate": updated["updatedDate"], "etag": "\"2\"",
        "email": "john.doe@example.com", "firstName": "John", "lastName": "Doe", "dob": "1995-10-01",
        "phoneNumber": "+11111111111", "gender": "MALE", "address": "123 ABC street", "address2": "Apt 2",
        "city": "NYC", "state": "NY", "country": "US", "postalCode": "01010", "role": "USER",
    });
    assert_eq!(updated, expected);
    assert_eq!(north.get(&john).await, Ok(expected));
}

#[tokio::test]
async fn the_email_is_found_in_any_case_and_changes_nothing() {
    let (_service, north) = client().await;
    let person = north.person(json!({ "email": "ada@example.com" })).await;
    assert_eq!(north.update(json!({ "email": " ADA@Example.com" })).await, Ok(person));
}

#[tokio::test]
async fn what_is_present_and_empty_is_cleared() {
    let (_service, north) = client().await;
    north.person(json!({ "email": "ada@example.com", "city": "London", "country": "GB" })).await;
    let updated = north.update(json!({ "email": "ada@example.com", "city": "" })).await.expect("updated");
    assert_eq!((updated.get("city"), &updated["country"]), (None, &json!("GB")));
}

#[tokio::test]
async fn an_email_that_nobody_has_is_told_apart_from_one_of_another_organization() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    let ada = south.person(json!({ "email": "ada@example.com" })).await;
    let nobody = north.update(json!({ "email": " Nobody@example.com ", "city": "x" })).await.expect_err("nobody");
    assert_eq!((nobody.code, nobody.reason.as_str()), (Code::NotFound, "USER_NOT_FOUND"));
    assert_eq!(nobody.message, "User Nobody@example.com does not exist");
    let foreign = north.update(json!({ "email": "Ada@example.com", "city": "x" })).await.expect_err("not theirs");
    assert_eq!((foreign.code, foreign.reason.as_str()), (Code::NotFound, "USER_NOT_IN_ORGANIZATION"));
    assert_eq!(foreign.message, "User Ada@example.com does not exist in the organization");
    assert_eq!(south.get(&ada).await, Ok(ada));
}

#[tokio::test]
async fn an_action_may_be_left_out_and_must_be_known() {
    let (_service, north) = client().await;
    let ada = north.person(json!({ "email": "ada@example.com" })).await;
    let unset = json!({ "data": { "email": "ada@example.com" } });
    assert_eq!(north.call("ProfileService/UpdateProfile", unset).await, Ok(ada));
    let unknown = json!({ "action": 7, "data": { "dob": "never" } });
    let refused = north.call("ProfileService/UpdateProfile", unknown).await.expect_err("an unknown action");
    assert_eq!(refused.paths(), ["action", "data.email", "data.dob"]);
}

#[tokio::test]
async fn a_phone_number_that_another_user_has_is_refused() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    south.person(json!({ "phoneNumber": "+15513446634" })).await;
    let ada = north.person(json!({ "email": "ada@example.com" })).await;
    let taken = north.update(json!({ "email": "ada@example.com", "phoneNumber": "+1 551 344 6634" })).await;
    assert_eq!(taken.expect_err("taken").reason, "PHONE_NUMBER_IN_USE");
    assert_eq!(north.get(&ada).await, Ok(ada));
}
