//! A call's body is one message of a bounded size, as it is.

use prost::{Message as _, bytes::Bytes};
use serde_json::json;
use tonic::Code;

use crate::harness::{
    Failure, client, message,
    wire::{Wire, frame},
};

const CREATE: &str = "ProfileService/CreateProfile";

#[tokio::test]
async fn a_body_that_goes_on_after_its_message_is_invalid_and_stores_nothing() {
    let (service, north) = client().await;
    let person = message(CREATE, json!({ "profile": { "firstName": "Ada", "lastName": "Byron" } })).encode_to_vec();
    let refused = Failure::from(north.raw(CREATE, vec![person.clone(), person]).await.expect_err("two messages"));
    assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "INVALID_MESSAGE"));
    assert_eq!(service.database.number("SELECT COUNT(*) AS number FROM profile").await, 0);
}

#[tokio::test]
async fn what_is_too_large_or_not_implemented_says_so_with_a_reason() {
    let (service, north) = client().await;
    let large = json!({ "profile": { "firstName": "x".repeat(65 * 1024), "lastName": "y" } });
    let refused = north.call(CREATE, large).await.expect_err("too large");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::OutOfRange, "MESSAGE_TOO_LARGE"));

    let unknown = Failure::from(north.raw("ProfileService/DeleteProfile", vec![vec![]]).await.expect_err("no method"));
    assert_eq!((unknown.code, unknown.reason.as_str()), (Code::Unimplemented, "UNIMPLEMENTED"));

    let key = service.key("north", &["profiles.write"]);
    let headers = [("cv-api-key", key.as_str()), ("grpc-encoding", "gzip")];
    let compressed = Bytes::from_static(&[1, 0, 0, 0, 1, 0]);
    let wire = Wire::connect(&service.address).await;
    let refused = wire.begin(CREATE, &headers, compressed, true).await.status().await;
    assert!(refused.metadata().get("grpc-accept-encoding").is_some(), "{refused:?}");
    let refused = Failure::from(refused);
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unimplemented, "UNIMPLEMENTED"));
}

#[tokio::test]
async fn questions_without_a_key_are_short() {
    let (service, _north) = client().await;
    let wire = Wire::connect(&service.address).await;
    let large = frame(&[0x0a; 1025]);
    let refused = wire.call("/grpc.health.v1.Health/Check", &[], large, true).await.expect_err("too large");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::OutOfRange, "MESSAGE_TOO_LARGE"));
}

#[tokio::test]
async fn bytes_that_are_no_message_of_the_method_are_invalid_for_health_too() {
    let (service, _north) = client().await;
    let wire = Wire::connect(&service.address).await;
    for path in ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"] {
        let refused = wire.call(path, &[], frame(b"\xff"), true).await.expect_err("no message");
        assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "INVALID_MESSAGE"), "{path}");
    }
}
