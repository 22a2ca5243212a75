//! CreateProfile and GetProfile.

use serde_json::json;
use tonic::Code;

use crate::harness::client;

#[tokio::test]
async fn a_created_profile_is_answered_in_its_stored_form_and_read_back_alike() {
    let (_service, north) = client().await;
    let created = north
        .create(json!({
            "firstName": "  Zoe\u{308} ", "lastName": "Doe", "email": "John.Doe@Example.com", "dob": "1995-10-01",
            "gender": "MALE", "phoneNumber": "+1 (111) 111-1111", "address": "123 ABC street", "address2": "Apt 2",
            "city": "NYC", "state": "ny", "country": "us", "postalCode": "01010",
        }))
        .await
        .expect("a new profile");
    let expected = json!({
        "id": created["id"], "createdDate": created["createdDate"], "updatedDate": created["createdDate"],
        "etag": "\"1\"", "firstName": "Zo\u{eb}", "lastName": "Doe", "email": "john.doe@example.com",
        "dob": "1995-10-01", "gender": "MALE", "phoneNumber": "+11111111111", "address": "123 ABC street",
        "address2": "Apt 2", "city": "NYC", "state": "NY", "country": "US", "postalCode": "01010", "role": "USER",
    });
    assert_eq!(created, expected);
    assert_eq!(north.get(&created).await, Ok(expected));
}

#[tokio::test]
async fn an_id_is_a_uuid_of_version_7_and_dates_are_whole_microseconds() {
    let (_service, north) = client().await;
    let person = north.person(json!({})).await;
    let id = uuid::Uuid::parse_str(person["id"].as_str().expect("an id")).expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
    let date = person["createdDate"].as_str().expect("a date");
    assert!(date.ends_with('Z') && date.len() <= "2026-01-01T00:00:00.000000Z".len(), "{date}");
}

#[tokio::test]
async fn a_name_is_enough_and_required() {
    let (_service, north) = client().await;
    assert_eq!(north.person(json!({})).await["lastName"], "Byron");
    let refused = north.create(json!({ "firstName": " " })).await.expect_err("no names");
    assert_eq!(refused.paths(), ["profile.first_name", "profile.last_name"]);
    assert_eq!(refused.message, "Invalid fields: profile.first_name is required; profile.last_name is required.");
}

#[tokio::test]
async fn empty_is_none() {
    let (_service, north) = client().await;
    let person = north.person(json!({ "email": "", "dob": "  ", "gender": "GENDER_UNSPECIFIED", "city": "" })).await;
    for field in ["email", "dob", "gender", "city"] {
        assert_eq!(person.get(field), None);
    }
}

#[tokio::test]
async fn output_only_fields_are_ignored() {
    let (_service, north) = client().await;
    let forged = json!({
        "id": "00000000-0000-0000-0000-000000000000", "createdDate": "2001-01-01T00:00:00Z",
        "updatedDate": "2001-01-01T00:00:00Z", "role": "ADMIN", "lockedFields": "firstName",
    });
    let person = north.person(forged.clone()).await;
    for field in ["id", "createdDate", "updatedDate", "role"] {
        assert_ne!(person[field], forged[field]);
    }
    assert_eq!(person.get("lockedFields"), None);
}

#[tokio::test]
async fn an_email_and_a_phone_number_have_one_owner_over_all_organizations() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    let owner = north.person(json!({ "email": "ada@example.com", "phoneNumber": "+15550001" })).await;
    for caller in [&north, &south] {
        let email = caller.create(json!({ "firstName": "B", "lastName": "C", "email": "ADA@example.com" })).await;
        let phone = caller.create(json!({ "firstName": "B", "lastName": "C", "phoneNumber": "+1 555 0001" })).await;
        let (email, phone) = (email.expect_err("taken"), phone.expect_err("taken"));
        assert_eq!((email.code, email.reason.as_str()), (Code::AlreadyExists, "EMAIL_IN_USE"));
        assert_eq!(email.message, "Unable to use this email. Please use a different one");
        assert_eq!((phone.code, phone.reason.as_str()), (Code::AlreadyExists, "PHONE_NUMBER_IN_USE"));
        assert_eq!(phone.message, "Unable to use this phone number. Please use a different one");
    }
    north.patch(&owner, json!({ "email": "", "phoneNumber": "" })).await.expect("cleared");
    south.person(json!({ "email": "ada@example.com", "phoneNumber": "+15550001" })).await;
}

#[tokio::test]
async fn a_profile_is_found_in_its_own_organization_only() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    let person = north.person(json!({})).await;
    let foreign = south.get(&person).await.expect_err("not theirs");
    let nobody = json!({ "id": "01890000-0000-7000-8000-000000000000" });
    let missing = north.get(&nobody).await.expect_err("nobody");
    for (failure, profile) in [(&foreign, &person), (&missing, &nobody)] {
        assert_eq!((failure.code, failure.reason.as_str()), (Code::NotFound, "PROFILE_NOT_FOUND"));
        assert_eq!(failure.resource.as_deref(), profile["id"].as_str());
    }
    assert_eq!(foreign.message, missing.message);
}

#[tokio::test]
async fn an_id_is_read_in_any_case_and_nothing_else_is_one() {
    let (_service, north) = client().await;
    let person = north.person(json!({})).await;
    let upper = person["id"].as_str().expect("an id").to_uppercase();
    assert_eq!(north.get(&json!({ "id": upper })).await, Ok(person.clone()));
    let form = "must be a UUID in its hyphenated form, such as 01890000-0000-7000-8000-000000000000";
    for (id, rule) in
        [("", "is required"), ("12345", form), (&upper.replace('-', ""), form), (&format!("{{{upper}}}"), form)]
    {
        let refused = north.get(&json!({ "id": id })).await.expect_err(id);
        assert_eq!(refused.fields, [("id".to_owned(), rule.to_owned())]);
    }
}
