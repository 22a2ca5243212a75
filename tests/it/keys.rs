//! Who may call what.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};
use tonic::{Code, transport::Channel};

use crate::{
    harness::{Client, Failure, SCOPES, Service, client},
    walk::{is_stream, rpcs},
};

const GET: &str = "ProfileService/GetProfile";

#[tokio::test]
async fn no_rpc_answers_without_a_key() {
    let service = Service::start();
    let nobody = Client::with_metadata(service.channel().await, vec![]);
    assert_eq!(rpcs().len(), 21);
    for rpc in rpcs() {
        let refused = Failure::from(nobody.raw(&rpc, vec![vec![]]).await.expect_err(&rpc));
        assert_eq!((refused.code, refused.reason.as_str()), (Code::Unauthenticated, "API_KEY_MISSING"), "{rpc}");
    }
}

#[tokio::test]
async fn each_rpc_takes_exactly_the_keys_with_its_scope() {
    let (service, _north) = client().await;
    let mut table = String::new();
    for rpc in rpcs() {
        let mut row = format!("{rpc:<41}");
        for scope in SCOPES {
            let caller = service.client(&service.key("north", &[scope])).await;
            let answer = if is_stream(&rpc) {
                caller.stream(&rpc, json!({})).await.map(drop)
            } else {
                caller.raw(&rpc, vec![vec![]]).await.map(drop).map_err(Failure::from)
            };
            let verdict = match answer {
                Err(refused) if refused.reason == "SCOPE_MISSING" => {
                    assert_eq!(refused.code, Code::PermissionDenied);
                    assert!(refused.message.contains(&refused.metadata["scope"]));
                    "-"
                }
                Ok(()) | Err(_) => "yes",
            };
            write!(row, " {verdict:<14}").expect("text");
        }
        table.push_str(row.trim_end());
        table.push('\n');
    }
    insta::assert_snapshot!(table, @r"
    ProfileService/CreateProfile              -              yes            -              -              -              -
    ProfileService/GetProfile                 yes            -              -              -              -              -
    ProfileService/ReplaceProfile             -              yes            -              -              -              -
    ProfileService/PatchProfile               -              yes            -              -              -              -
    ProfileService/UpdateProfile              -              yes            -              -              -              -
    ProfileQueryService/BatchGetProfiles      yes            -              -              -              -              -
    ProfileQueryService/LookUpProfile         yes            -              -              -              -              -
    ProfileQueryService/ListProfiles          -              -              -              -              yes            -
    ProfileQueryService/CountProfiles         -              -              -              -              yes            -
    ProfileQueryService/WatchProfiles         -              -              -              -              yes            -
    ProfileIdentifierService/AddIdentifier    -              yes            -              -              -              -
    ProfileIdentifierService/RemoveIdentifier -              yes            -              -              -              -
    KeyService/GetCurrentKey                  yes            yes            yes            yes            yes            yes
    CaseService/ReportCaseStatus              -              -              yes            -              -              -
    SupportService/CorrectProfile             -              -              -              yes            -              -
    SupportService/SetProfileRole             -              -              -              yes            -              -
    SupportService/FindProfile                -              -              -              yes            -              -
    SupportService/ListProfileChanges         -              -              -              yes            -              -
    SupportService/ListProfileCases           -              -              -              yes            -              -
    SupportService/EraseProfile               -              -              -              -              -              yes
    SupportService/ExportProfile              -              -              -              -              -              yes
    ");
}

#[tokio::test]
async fn any_key_tells_whose_it_is_and_what_it_allows() {
    let (service, _north) = client().await;
    let key = service.key("north", &["cases.report", "profiles.read"]);
    let current = service.client(&key).await.call("KeyService/GetCurrentKey", json!({})).await.expect("a key");
    assert_eq!(current["organizationName"], json!("north"));
    assert_eq!(current["keyId"], json!(lookup(&key)));
    assert!(current["keyName"].as_str().is_some_and(|name| name.starts_with("test-")));
    assert_eq!(current["scopes"], json!(["cases.report", "profiles.read"]));
    assert_eq!(current.get("expireTime"), None);
    let ends = ["key", "create", "--organization", "north", "--name", "short", "--scope", "support", "--expires", "1d"];
    let current = service.client(&service.run(ends)).await.call("KeyService/GetCurrentKey", json!({})).await;
    assert!(current.expect("a key")["expireTime"].is_string());
}

#[tokio::test]
async fn a_key_travels_in_either_header_and_no_other_value_of_them_spoils_it() {
    let (service, north) = client().await;
    let person = north.person(json!({})).await;
    let (key, other) = (service.key("north", &["profiles.read"]), service.key("north", &["profiles.read"]));
    let channel = service.channel().await;
    let (own, bearer) =
        (|value: &str| ("cv-api-key", value.to_owned()), |value: &str| ("authorization", value.to_owned()));
    let (bearer_key, bearer_other) = (bearer(&format!("Bearer {key}")), bearer(&format!("Bearer {other}")));
    let (token, basic) = (bearer("Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln"), bearer(&format!("Basic {key}")));
    let (missing, invalid) = (Some("API_KEY_MISSING"), Some("API_KEY_INVALID"));
    for (metadata, reason) in [
        (vec![own(&key)], None),
        (vec![own(&format!("  {key} "))], None),
        (vec![bearer_key.clone()], None),
        (vec![bearer(&format!("bearer  {key} "))], None),
        (vec![own(&key), bearer_key.clone()], None),
        (vec![own(&key), token.clone()], None),
        (vec![own(&key), basic.clone()], None),
        (vec![own(&key), bearer("")], None),
        (vec![own(&key), own(&key), own("")], None),
        (vec![own(""), bearer_key.clone()], None),
        (vec![own(" "), bearer_key.clone(), bearer_key.clone()], None),
        (vec![own(&key), bearer_other.clone()], invalid),
        (vec![own(&key), own(&other)], invalid),
        (vec![bearer_key.clone(), bearer_other], invalid),
        (vec![own("mine"), bearer_key.clone()], invalid),
        (vec![bearer_key, basic.clone()], invalid),
        (vec![token], invalid),
        (vec![basic], missing),
        (vec![], missing),
        (vec![own("")], missing),
        (vec![own(" "), bearer(" ")], missing),
        (vec![own(&"x".repeat(5000))], invalid),
        (vec![own(&swap_secret(&key, &other))], invalid),
        (vec![own(&format!("ps_{}_{}", "0".repeat(16), "0".repeat(64)))], invalid),
    ] {
        let caller = Client::with_metadata(channel.clone(), metadata.clone());
        let refused = caller.get(&person).await.err();
        assert_eq!(refused.as_ref().map(|refused| refused.reason.as_str()), reason, "{metadata:?}");
        assert!(refused.is_none_or(|refused| refused.code == Code::Unauthenticated));
    }
}

#[tokio::test]
async fn a_rejected_key_leaves_a_trace_that_names_it_only_where_its_secret_was_right() {
    let (mut service, north) = client().await;
    let person = north.person(json!({})).await;
    let (revoked, expired) = (service.key("north", &["profiles.read"]), service.key("north", &["profiles.read"]));
    service.run(["key", "revoke", lookup(&revoked)]);
    let past = format!("UPDATE api_key SET expires_at = '2026-01-05 10:00:00+00:00' WHERE id = '{}'", lookup(&expired));
    service.database.execute(&past).await;
    for (key, id) in
        [(revoked.clone(), "revoked"), (expired.clone(), "expired"), (swap_secret(&revoked, &expired), "unknown")]
    {
        let caller =
            Client::with_metadata(service.channel().await, vec![("cv-api-key", key), ("x-request-id", id.to_owned())]);
        assert_eq!(caller.get(&person).await.expect_err(id).reason, "API_KEY_INVALID");
    }
    service.signal("TERM");
    let (_, log) = service.end().await;
    let lines = log.iter().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    let calls: Vec<_> =
        lines.map(|line| line["span"].clone()).filter(|call| call["reason"] == "API_KEY_INVALID").collect();
    let traces: Vec<_> =
        calls.iter().map(|call| ["request_id", "key_id", "key_state"].map(|field| &call[field])).collect();
    assert_eq!(
        traces,
        [
            [&json!("revoked"), &json!(lookup(&revoked)), &json!("revoked")],
            [&json!("expired"), &json!(lookup(&expired)), &json!("expired")],
            [&json!("unknown"), &Json::Null, &Json::Null],
        ]
    );
}

/// The lookup id of one key with the secret of another.
fn swap_secret(key: &str, other: &str) -> String {
    let (front, _) = key.rsplit_once('_').expect("a key");
    let (_, secret) = other.rsplit_once('_').expect("a key");
    format!("{front}_{secret}")
}

#[tokio::test]
async fn a_revoked_key_stops_within_5_seconds_and_no_other_does() {
    let (service, north) = client().await;
    let person = north.person(json!({})).await;
    let key = service.key("north", &["profiles.read"]);
    let caller = service.client(&key).await;
    caller.get(&person).await.expect("a key that works at once");
    service.run(["key", "revoke", lookup(&key)]);
    let revoked = Instant::now();
    while caller.get(&person).await.is_ok() {
        assert!(revoked.elapsed() < Duration::from_secs(5), "the key still works");
    }
    assert_eq!(caller.get(&person).await.expect_err("revoked").reason, "API_KEY_INVALID");
    north.get(&person).await.expect("another key");
}

#[tokio::test]
async fn a_key_ends_when_it_expires() {
    let (service, north) = client().await;
    let person = north.person(json!({})).await;
    let key = service.run([
        "key",
        "create",
        "--organization",
        "north",
        "--name",
        "short",
        "--scope",
        "profiles.read",
        "--expires",
        "2s",
    ]);
    let made = Instant::now();
    let caller = service.client(&key).await;
    caller.get(&person).await.expect("a key that works at once");
    while caller.get(&person).await.is_ok() {
        assert!(made.elapsed() < Duration::from_secs(3), "the key still works");
    }
    assert_eq!(caller.get(&person).await.expect_err("expired").reason, "API_KEY_INVALID");
}

#[tokio::test]
async fn the_list_of_keys_shows_their_use_and_no_secret() {
    let (service, north) = client().await;
    let person = north.person(json!({})).await;
    let key = service.key("north", &["support", "profiles.read", "support"]);
    let row = |list: &str| list.lines().find(|line| line.starts_with(lookup(&key))).expect("its row").to_owned();
    let before = service.run(["key", "list", "--organization", "north"]);
    assert!(before.starts_with("LOOKUP\tNAME\tSCOPES\tCREATED\tEXPIRES\tREVOKED\tLAST USED\tRATE\n"));
    let columns = row(&before);
    let columns: Vec<_> = columns.split('\t').collect();
    assert!(columns[1].starts_with("test-"), "{before}");
    assert_eq!((columns[2], &columns[4..]), ("profiles.read support", &["-", "-", "-", "-"][..]));
    assert!(!before.contains(key.rsplit_once('_').expect("a key").1));

    service.client(&key).await.get(&person).await.expect("a use");
    let deadline = Instant::now() + Duration::from_secs(10);
    while row(&service.run(["key", "list", "--organization", "north"])).ends_with("\t-\t-") {
        assert!(Instant::now() < deadline, "the use is not noted");
    }
}

#[tokio::test]
async fn the_organization_comes_from_the_key_alone() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    let person = north.person(json!({ "email": "ada@example.com" })).await;
    for (rpc, request) in [
        (GET, json!({ "id": person["id"] })),
        ("ProfileService/ReplaceProfile", json!({ "profile": person })),
        ("ProfileService/PatchProfile", json!({ "profile": { "id": person["id"], "city": "x" } })),
    ] {
        let refused = south.call(rpc, request).await.expect_err(rpc);
        assert_eq!((refused.code, refused.reason.as_str()), (Code::NotFound, "PROFILE_NOT_FOUND"), "{rpc}");
    }
    assert_eq!(north.get(&person).await, Ok(person));
}

#[tokio::test]
async fn health_and_reflection_need_no_key() {
    let service = Service::start();
    let channel: Channel = service.channel().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
    for name in ["", "ProfileService", "ProfileQueryService", "CaseService", "SupportService", "KeyService"] {
        let name = if name.is_empty() { String::new() } else { format!("profiles.v1.{name}") };
        let request = tonic_health::pb::HealthCheckRequest { service: name.clone() };
        health.check(request).await.expect(&name);
    }
}

/// What stands between `ps_` and the secret.
fn lookup(key: &str) -> &str {
    key.split('_').nth(1).expect("a key")
}

/// The files that define a symbol, by this version of reflection.
macro_rules! reflected {
    ($version:ident, $channel:expr, $symbol:expr) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let ask = MessageRequest::FileContainingSymbol($symbol.to_owned());
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
        let mut client = ServerReflectionClient::new($channel);
        let answers = client.server_reflection_info(tokio_stream::once(request)).await.expect("a stream");
        match answers.into_inner().message().await.expect("an answer").expect("an answer").message_response {
            Some(MessageResponse::FileDescriptorResponse(files)) => files.file_descriptor_proto,
            _ => panic!("no descriptor"),
        }
    }};
}

#[tokio::test]
async fn reflection_serves_the_contract_with_its_comments_in_both_versions() {
    let service = Service::start();
    let channel = service.channel().await;
    let symbol = "profiles.v1.ProfileService";
    let (v1, v1alpha) = (reflected!(v1, channel.clone(), symbol), reflected!(v1alpha, channel, symbol));
    let file = String::from_utf8_lossy(&v1[0]);
    assert!(file.contains("Stores a new profile in the caller's organization."));
    assert_eq!(v1, v1alpha);
}
