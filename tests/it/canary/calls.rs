//! Every RPC with every field, and every reason that callers bring about by themselves.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use prost::Message as _;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value as Json, json};
use tokio::time::timeout;

use super::{ACTOR, CANARY, DATE, DIGITS, REQUEST_ID};
use crate::{
    harness::{
        Client, Failure, Outcome, SCOPES, Service, message, method, until,
        wire::{Wire, frame},
    },
    walk::{is_stream, rpcs},
};

const MONDAY: &str = "2026-01-05T10:00:00Z";

/// How the texts of a request are.
#[derive(Clone, Copy, PartialEq)]
enum Texts {
    Good,
    Bad,
}

/// A value of a field of a request about this person, with a canary wherever one fits.
fn value(field: &FieldDescriptor, id: &str, number: usize, texts: Texts) -> Option<Json> {
    let text = match (field.json_name(), texts) {
        ("updateMask", _) => return None,
        (_, Texts::Bad) => format!("{CANARY} {} \u{7}", field.name()),
        ("id" | "profileId" | "ids", _) => id.to_owned(),
        ("etag", _) => String::new(),
        ("email", _) => format!("{CANARY}{number}@{CANARY}.example.com"),
        ("phoneNumber", _) => format!("+{DIGITS}{number}"),
        ("dob", _) => DATE.to_owned(),
        ("state", _) => "NY".to_owned(),
        ("country", _) => "US".to_owned(),
        ("system", _) => CANARY.to_owned(),
        ("postalCode", _) => DIGITS.to_owned(),
        ("requestId", _) => format!("remembered {number}"),
        ("namePrefix", _) => format!("{CANARY} last"),
        (name, _) => format!("{CANARY} {name} {number}"),
    };
    let value = match field.kind() {
        Kind::String => json!(text),
        Kind::Bool => return None,
        Kind::Int32 | Kind::Int64 => json!(1),
        Kind::Enum(of) => json!(of.values().last().expect("a value").name()),
        Kind::Message(of) if of.full_name() == "google.protobuf.Timestamp" => json!(MONDAY),
        Kind::Message(of) => filled(&of, id, number, texts),
        other => panic!("{}: say here what canary a {other:?} can have", field.full_name()),
    };
    Some(if field.is_list() { json!([value]) } else { value })
}

/// A request with every field of the contract, and of several of which one may be set the last.
fn filled(message: &MessageDescriptor, id: &str, number: usize, texts: Texts) -> Json {
    let mut object = Map::new();
    let output = ["createdDate", "updatedDate", "role", "lockedFields"];
    for field in message.fields().filter(|field| message.name() != "Profile" || !output.contains(&field.json_name())) {
        for other in field.containing_oneof().into_iter().flat_map(|one| one.fields().collect::<Vec<_>>()) {
            object.remove(other.json_name());
        }
        object.extend(value(&field, id, number, texts).map(|value| (field.json_name().to_owned(), value)));
    }
    Json::Object(object)
}

fn request(rpc: &str, id: &str, number: usize, texts: Texts) -> Json {
    let mut request = filled(&method(rpc).input(), id, number, texts);
    if rpc == CREATE && texts == Texts::Good {
        request["profile"]["id"] = json!("");
    }
    if rpc == WATCH {
        request["resumeToken"] = json!(if texts == Texts::Good { "" } else { CANARY });
    }
    if texts == Texts::Good && request.get("pageToken").is_some() {
        request["pageToken"] = json!("");
    }
    request
}

pub const CREATE: &str = "ProfileService/CreateProfile";
pub const PATCH: &str = "ProfileService/PatchProfile";
const UPDATE: &str = "ProfileService/UpdateProfile";
pub const WATCH: &str = "ProfileQueryService/WatchProfiles";
pub const ERASE: &str = "SupportService/EraseProfile";

/// A caller with canaries in every header that may have one.
pub async fn caller(service: &Service, key: String) -> Client {
    let metadata = [
        ("cv-api-key", key.as_str()),
        ("authorization", "Bearer canary-token"),
        ("x-actor", ACTOR),
        ("x-request-id", REQUEST_ID),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", "canary=canary"),
        ("baggage", "canary=canary"),
        ("cookie", "canary=canary"),
        ("x-canary", "canary"),
    ];
    let metadata = metadata.map(|(name, value)| (name, value.to_owned())).into();
    Client::with_metadata(service.channel().await, metadata)
}

/// What was answered, and what was brought about.
#[derive(Default)]
pub struct Heard {
    pub reasons: BTreeSet<String>,
    pub tokens: BTreeSet<String>,
}

impl Heard {
    /// Makes a call, or follows a stream to the end of what there is.
    pub async fn call(&mut self, client: &Client, rpc: &str, request: Json) -> Outcome {
        let outcome =
            if is_stream(rpc) { self.follow(client, rpc, request).await } else { client.call(rpc, request).await };
        match &outcome {
            Ok(answer) => self.tokens.extend(answer["nextPageToken"].as_str().map(str::to_owned)),
            Err(refused) => self.reasons.extend([refused.reason.clone()]),
        }
        outcome
    }

    async fn follow(&mut self, client: &Client, rpc: &str, request: Json) -> Outcome {
        let mut messages = client.stream(rpc, request).await?;
        while let Some(message) = timeout(Duration::from_secs(20), messages.next()).await.expect("a message")? {
            self.tokens.extend(message["resumeToken"].as_str().map(str::to_owned));
            if message["kind"] == "KIND_SNAPSHOT_END" {
                break;
            }
        }
        Ok(Json::Null)
    }
}

/// The keys of a service's organizations, whose names are the operator's.
pub struct Keys {
    pub north: String,
    pub south: String,
    /// It may only read, once a second.
    pub weak: String,
}

impl Keys {
    pub fn make(service: &Service) -> Self {
        let key = |organization: &str, scopes: &str| {
            let name = format!("operator key {scopes}");
            service.run(["key", "create", "--organization", organization, "--name", &name, "--scope", scopes])
        };
        for organization in ["operator north", "operator south"] {
            service.run(["organization", "create", organization]);
        }
        let all = SCOPES.join(",");
        let weak = key("operator north", "profiles.read");
        Self { north: key("operator north", &all), south: key("operator south", &all), weak }
    }

    /// What of each key nobody may see, by the key.
    pub fn secrets(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let keys = [("the key of north", &self.north), ("the key of south", &self.south), ("the weak key", &self.weak)];
        keys.into_iter().map(|(name, key)| (name, key.rsplit_once('_').expect("a key").1))
    }
}

/// Every RPC with every field, as it is meant and as it is not, by who may call it and by who may not.
pub async fn call_everything(service: &Service, keys: &Keys, heard: &mut Heard) -> [String; 2] {
    let north = caller(service, keys.north.clone()).await;
    let [south, weak] = [caller(service, keys.south.clone()).await, caller(service, keys.weak.clone()).await];
    let mut ids = [String::new(), String::new()];
    for (number, id) in ids.iter_mut().enumerate() {
        let created = heard.call(&north, CREATE, request(CREATE, "", number, Texts::Good)).await.expect("created");
        created["id"].as_str().expect("an id").clone_into(id);
    }
    for rpc in rpcs() {
        if rpc != ERASE {
            let _ = heard.call(&north, &rpc, request(&rpc, &ids[0], 0, Texts::Good)).await;
        }
        let _ = heard.call(&north, &rpc, request(&rpc, &ids[0], 0, Texts::Bad)).await;
        let _ = heard.call(&south, &rpc, request(&rpc, &ids[0], 0, Texts::Good)).await;
        let _ = heard.call(&weak, &rpc, request(&rpc, &ids[0], 0, Texts::Good)).await;
        for bytes in [&b"\x0a\xffcanary"[..], b"\xba\x3e\x06canary"] {
            if rpc == WATCH && bytes[0] != b'\x0a' {
                continue; // it would go on
            }
            if let Err(refused) = north.raw(&rpc, vec![bytes.to_vec()]).await {
                heard.reasons.insert(Failure::from(refused).reason);
            }
        }
    }
    ids
}

/// What is refused because of what there is.
pub async fn provoke(service: &Service, keys: &Keys, [first, second]: &[String; 2], heard: &mut Heard) {
    let north = caller(service, keys.north.clone()).await;
    let good = |rpc: &str| request(rpc, first, 0, Texts::Good);
    let mut taken = good(CREATE)["profile"].clone();
    taken["identifiers"] = request(CREATE, "", 1, Texts::Good)["profile"]["identifiers"].clone();
    let create = |fields: &[&str]| {
        let mut profile = json!({ "firstName": CANARY, "lastName": CANARY });
        for field in fields {
            profile[*field] = taken[*field].clone();
        }
        json!({ "profile": profile })
    };
    let patch = |member: &str, value: &str| json!({ "profile": { "id": first, "city": CANARY, member: value } });
    let report =
        |case: &str, id: &str| json!({ "caseId": case, "profileId": id, "status": "ASSIGNED", "statusTime": MONDAY });
    let reused = json!({ "profile": { "id": first, "city": "canary again" }, "requestId": good(PATCH)["requestId"] });
    for (rpc, request) in [
        (CREATE, create(&["email"])),
        (CREATE, create(&["phoneNumber"])),
        (CREATE, create(&["identifiers"])),
        (PATCH, patch("etag", "\"canary\"")),
        (PATCH, reused),
        ("CaseService/ReportCaseStatus", report("canary case", first)),
        ("CaseService/ReportCaseStatus", report("canary case", second)),
        (PATCH, patch("firstName", "canary locked")),
        ("SupportService/SetProfileRole", json!({ "id": first, "role": "ADMIN", "reason": "canary role" })),
        (UPDATE, json!({ "data": { "email": taken["email"], "city": CANARY } })),
        (UPDATE, json!({ "data": { "email": "canary.nobody@example.com", "city": CANARY } })),
        ("SupportService/FindProfile", json!({ "email": taken["email"] })),
        ("SupportService/FindProfile", json!({ "phoneNumber": taken["phoneNumber"] })),
        ("ProfileQueryService/LookUpProfile", json!({ "email": "canary.nobody@example.com" })),
        ("ProfileQueryService/ListProfiles", json!({ "pageToken": CANARY })),
        (WATCH, json!({ "resumeToken": CANARY })),
    ] {
        let _ = heard.call(&north, rpc, request).await;
    }
    let masked = north.patch_masked(&json!({ "id": first }), json!({}), &["canary_path"]).await;
    heard.reasons.extend(masked.err().map(|refused| refused.reason));
    for number in 0..21 {
        let identifier = json!({ "system": CANARY, "value": format!("canary {number}") });
        let _ = heard
            .call(
                &north,
                "ProfileIdentifierService/AddIdentifier",
                json!({ "profileId": second, "identifier": identifier }),
            )
            .await;
    }
    let south = caller(service, keys.south.clone()).await;
    let _ = heard.call(&south, UPDATE, json!({ "data": { "email": taken["email"], "city": CANARY } })).await;
    // Races that the unique indexes judge.
    let racing = (0..8)
        .map(|_| north.create(json!({ "firstName": CANARY, "lastName": CANARY, "email": "canary.race@example.com" })));
    heard.reasons.extend(join_all(racing).await.into_iter().filter_map(Result::err).map(|refused| refused.reason));
    // A row that cannot be read.
    service.database.execute("UPDATE profile SET role = 'canary role' WHERE email LIKE 'canary1@%'").await;
    let _ = heard.call(&north, "ProfileService/GetProfile", json!({ "id": second })).await;
    let _ = heard.call(&north, PATCH, json!({ "profile": { "id": second, "city": CANARY } })).await;
    service.database.execute("UPDATE profile SET role = 'USER' WHERE email LIKE 'canary1@%'").await;
    // Writes that wait for somebody else's lock.
    let held = service.database.hold().await;
    let wire = Wire::connect(&service.address).await;
    let body = || frame(&message(PATCH, patch("city", "canary late")).encode_to_vec());
    let headers = [("cv-api-key", &*keys.north), ("grpc-timeout", "200m")];
    let (late, waiting) =
        tokio::join!(wire.call(PATCH, &headers, body(), true), north.call(PATCH, patch("city", "canary wait")));
    heard.reasons.extend([late.err(), waiting.err()].into_iter().flatten().map(|refused| refused.reason));
    held.release().await;
}

/// Calls that are none: other paths, encodings and keys, and messages that are too large.
pub async fn call_wrongly(service: &Service, keys: &Keys, heard: &mut Heard) {
    let wire = Wire::connect(&service.address).await;
    let get = "ProfileService/GetProfile";
    let body = || frame(&message(get, json!({ "id": CANARY })).encode_to_vec());
    let key = ("cv-api-key", &*keys.north);
    let (front, _) = keys.north.rsplit_once('_').expect("a key");
    let swapped = format!("{front}_{}", keys.secrets().last().expect("a secret").1);
    for (path, headers, body) in [
        ("/canary.v1.Canary/Canary", vec![key], body()),
        ("/profiles.v1.ProfileService/Canary", vec![key], body()),
        (
            get,
            vec![key, ("grpc-encoding", "canary")],
            frame(b"canary").into_iter().enumerate().map(|(n, byte)| if n == 0 { 1 } else { byte }).collect(),
        ),
        (get, vec![key, ("x-request-id", "canary@example.com")], body()),
        (get, vec![key, ("x-actor", "canary@example.com")], body()),
        (get, vec![key, ("grpc-timeout", "canary")], body()),
        (get, vec![key, ("traceparent", "canary")], body()),
        (get, vec![key], frame(CANARY.repeat(12_000).as_bytes())),
        (get, vec![("cv-api-key", "canary")], body()),
        (get, vec![("cv-api-key", "ps_canarycanarycan_canary")], body()),
        (get, vec![("cv-api-key", &swapped)], body()),
        (get, vec![("authorization", "Basic canary")], body()),
    ] {
        heard.reasons.extend(wire.call(path, &headers, body, true).await.err().map(|refused| refused.reason));
    }
    service.run(["key", "rate", &keys.weak, "1/s"]);
    let weak = caller(service, keys.weak.clone()).await;
    until("the key's rate is known", async || {
        let _ = heard.call(&weak, "KeyService/GetCurrentKey", json!({})).await;
        heard.reasons.contains("RATE_LIMITED")
    })
    .await;
}
