//! Bad input gets a clear error, never INTERNAL, and stores nothing.

use prost::Message as _;
use serde_json::{Value as Json, json};
use tonic::Code;

use crate::harness::{Client, Failure, Service, client, message};

const CREATE: &str = "ProfileService/CreateProfile";

#[tokio::test]
async fn every_violation_is_told_at_once_by_its_path_and_rule() {
    let (service, north) = client().await;
    let request = json!({
        "profile": {
            "firstName": "x".repeat(101), "lastName": "a\u{0}b", "email": "Ada <ada@example.com>", "dob": "1995-02-29",
            "gender": 9, "phoneNumber": "5551234", "address": "x".repeat(201), "address2": "x".repeat(201),
            "city": "x".repeat(101), "state": "NYC", "country": "XX", "postalCode": "12a",
        },
        "requestId": "x".repeat(101),
    });
    let refused = north.call(CREATE, request).await.expect_err("all wrong");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"));
    let told: Vec<_> = refused.fields.iter().map(|(path, rule)| format!("{path} {rule}")).collect();
    assert_eq!(refused.message, format!("Invalid fields: {}.", told.join("; ")));
    let told: Vec<_> =
        told.iter().zip(&refused.field_reasons).map(|(told, reason)| format!("{reason}: {told}")).collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    TOO_LONG: profile.first_name must be at most 100 characters
    CONTROL_CHARACTER: profile.last_name must not contain control characters
    INVALID_EMAIL: profile.email must be a plain ASCII e-mail address of at most 254 characters, such as name@example.com, without a display name or a quoted local part
    INVALID_DATE_OF_BIRTH: profile.dob must be a real date in the form YYYY-MM-DD, such as 1995-10-01, not before 1900-01-01 and not in the future
    INVALID_GENDER: profile.gender must be MALE, FEMALE, OTHER, or GENDER_UNSPECIFIED to clear it
    INVALID_PHONE_NUMBER: profile.phone_number must be an E.164 number, such as +15551234567: + and 2 to 15 digits, the first of them not 0
    TOO_LONG: profile.address must be at most 200 characters
    TOO_LONG: profile.address2 must be at most 200 characters
    TOO_LONG: profile.city must be at most 100 characters
    INVALID_STATE: profile.state must be two letters, such as NY
    INVALID_COUNTRY: profile.country must be an assigned ISO 3166-1 alpha-2 code, such as US
    INVALID_POSTAL_CODE: profile.postal_code must be 1 to 12 digits, such as 01010
    TOO_LONG: request_id must be at most 100 characters
    ");
    assert_eq!(stored(&service).await, 0);
}

#[tokio::test]
async fn what_no_text_may_hold_is_refused_in_every_field() {
    let (service, north) = client().await;
    for field in [
        "firstName",
        "lastName",
        "email",
        "dob",
        "phoneNumber",
        "address",
        "address2",
        "city",
        "state",
        "country",
        "postalCode",
    ] {
        for character in ['\0', '\n', '\u{7f}', '\u{85}', '\u{2028}', '\u{202e}', '\u{2066}', '\u{ffff}'] {
            let mut profile = json!({ "firstName": "Ada", "lastName": "Byron" });
            profile[field] = json!(format!("a{character}b"));
            let refused = north.create(profile).await.expect_err(field);
            assert_eq!(refused.reason, "INVALID_FIELDS", "{field} {character:?}");
            assert_eq!(refused.fields.len(), 1);
        }
    }
    assert_eq!(stored(&service).await, 0);
}

#[tokio::test]
async fn an_unreadable_message_is_told_so() {
    let (service, north) = client().await;
    let bad_utf8 = [0x0a, 0x03, 0x2a, 0x01, 0xff]; // profile { first_name: <not UTF-8> }
    for (what, messages) in [
        ("bytes that are no message", vec![vec![0xff; 16]]),
        ("a message cut off", vec![vec![0x0a, 0x7f, 0x01]]),
        ("text that is not UTF-8", vec![bad_utf8.to_vec()]),
        ("no message at all", vec![]),
    ] {
        let refused = Failure::from(north.raw(CREATE, messages).await.expect_err(what));
        assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "INVALID_MESSAGE"), "{what}");
    }
    assert_eq!(stored(&service).await, 0);
}

#[tokio::test]
async fn an_empty_message_is_told_what_it_lacks() {
    let (_service, north) = client().await;
    for (method, paths) in [
        (CREATE, vec!["profile.first_name", "profile.last_name"]),
        ("ProfileService/GetProfile", vec!["id"]),
        ("ProfileService/ReplaceProfile", vec!["profile.id", "profile.first_name", "profile.last_name"]),
        ("ProfileService/PatchProfile", vec!["profile.id"]),
        ("ProfileService/UpdateProfile", vec!["data.email"]),
    ] {
        let refused = Failure::from(north.raw(method, vec![vec![]]).await.expect_err(method));
        assert_eq!((refused.reason.as_str(), refused.paths()), ("INVALID_FIELDS", paths), "{method}");
    }
}

#[tokio::test]
async fn a_message_past_64_kib_is_out_of_range() {
    let (_service, north) = client().await;
    let request = json!({ "profile": { "firstName": "x".repeat(65 * 1024), "lastName": "y" } });
    assert_eq!(north.call(CREATE, request).await.expect_err("too large").code, Code::OutOfRange);
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented_and_unknown_fields_are_ignored() {
    let (_service, north) = client().await;
    let unknown = north.raw("ProfileService/DeleteProfile", vec![vec![]]).await.expect_err("no such method");
    assert_eq!(unknown.code(), Code::Unimplemented);
    let known = json!({ "profile": { "firstName": "Ada", "lastName": "Byron" } });
    let mut bytes = message(CREATE, known).encode_to_vec();
    bytes.extend([0xfa, 0x7f, 0x03, b'n', b'e', b'w']); // field 2047
    north.raw(CREATE, vec![bytes]).await.expect("a new profile");
}

#[tokio::test]
async fn text_of_every_script_comes_back_as_it_was() {
    let (_service, north) = client().await;
    for name in ["李小龍", "Ольга", "عُمَر", "Zoë", "O'Brien-\u{1f600}", "'; DROP TABLE profile; --", "%s {} \\ \" ?"]
    {
        let person = north.person(json!({ "firstName": name, "address": name })).await;
        assert_eq!((&person["firstName"], &person["address"]), (&json!(name), &json!(name)));
        assert_eq!(north.get(&person).await, Ok(person));
    }
}

#[tokio::test]
async fn no_error_repeats_a_value() {
    let (_service, north) = client().await;
    let secret = "Sesame";
    let profile: Json = ["email", "dob", "phoneNumber", "state", "country", "postalCode"]
        .map(|field| (field.to_owned(), json!(secret)))
        .into_iter()
        .collect();
    let refused = refusal(&north, profile).await;
    assert_eq!(refused.fields.len(), 8);
    assert!(!format!("{refused:?}").contains(secret));
}

async fn refusal(client: &Client, profile: Json) -> Failure {
    client.create(profile).await.expect_err("a refusal")
}

/// How many profiles there are.
async fn stored(service: &Service) -> i64 {
    service.database.number("SELECT COUNT(*) AS number FROM profile").await
}
