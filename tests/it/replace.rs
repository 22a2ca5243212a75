//! ReplaceProfile: every field takes the request's value.

use serde_json::json;

use crate::harness::client;

#[tokio::test]
async fn what_is_absent_is_cleared() {
    let (_service, north) = client().await;
    let person = north.person(json!({ "email": "ada@example.com", "gender": "FEMALE", "dob": "1815-12-10".replace("18", "19"), "city": "London" })).await;
    let replaced = north
        .replace(json!({ "id": person["id"], "firstName": "Augusta", "lastName": "King", "city": "Ockham" }))
        .await
        .expect("replaced");
    let expected = json!({
        "id": person["id"], "createdDate": person["createdDate"], "updatedDate": replaced["updatedDate"],
        "etag": "\"2\"", "firstName": "Augusta", "lastName": "King", "city": "Ockham", "role": "USER",
    });
    assert_eq!(replaced, expected);
    assert_eq!(north.get(&person).await, Ok(expected));
    assert!(replaced["updatedDate"].as_str() > person["updatedDate"].as_str());
}

#[tokio::test]
async fn names_are_required() {
    let (_service, north) = client().await;
    let person = north.person(json!({})).await;
    let refused = north.replace(json!({ "id": person["id"], "city": "Ockham" })).await.expect_err("no names");
    assert_eq!(refused.paths(), ["profile.first_name", "profile.last_name"]);
    assert_eq!(north.get(&person).await, Ok(person));
}

#[tokio::test]
async fn what_was_answered_can_be_put_back_and_changes_nothing() {
    let (_service, north) = client().await;
    let person = north.person(json!({ "email": "ada@example.com", "gender": "FEMALE", "dob": "1915-12-10" })).await;
    assert_eq!(north.replace(person.clone()).await, Ok(person.clone()));
    assert_eq!(north.get(&person).await, Ok(person));
}

#[tokio::test]
async fn a_profile_of_another_organization_is_not_found() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    let person = north.person(json!({})).await;
    let mut taken = person.clone();
    taken["lastName"] = json!("Other");
    assert_eq!(south.replace(taken).await.expect_err("not theirs").reason, "PROFILE_NOT_FOUND");
    assert_eq!(north.get(&person).await, Ok(person));
}
