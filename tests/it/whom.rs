//! What a caller can say of somebody: every way in which a request can name a person, or something that the person has.

use prost_reflect::Kind;
use serde_json::{Value as Json, json};

use crate::{
    harness::{POOL, method, rounds},
    policy::FIELDS,
    walk::rpcs,
};

pub const CREATE: &str = "ProfileService/CreateProfile";
pub const REPLACE: &str = "ProfileService/ReplaceProfile";
pub const PATCH: &str = "ProfileService/PatchProfile";
pub const UPDATE: &str = "ProfileService/UpdateProfile";
pub const CORRECT: &str = "SupportService/CorrectProfile";

pub const MONDAY: &str = "2026-01-05T10:00:00Z";

/// All that a caller can say of somebody, each text as long as it is of anybody else.
#[derive(Clone)]
pub struct Whom {
    pub number: usize,
    pub id: String,
    pub etag: String,
    pub name: String,
    pub email: String,
    pub phone: String,
    pub identifier: Json,
    pub case: String,
    pub request: String,
}

impl Whom {
    /// Somebody whom there is not.
    pub fn new(number: usize) -> Self {
        Self {
            number,
            id: "0190f8a4-0000-7000-8000-000000000000".to_owned(),
            etag: "\"3\"".to_owned(),
            name: format!("Nemo {number:04}"),
            email: format!("nemo.{number:04}@example.com"),
            phone: format!("+1555000{number:04}"),
            identifier: json!({ "system": "mrn", "value": format!("mrn.{number:04}") }),
            case: format!("case.{number:04}"),
            request: format!("request.{number:04}"),
        }
    }

    /// What may come back in an answer, since the caller has said it.
    pub fn said(&self) -> [&str; 5] {
        [&self.id, &self.email, &self.phone, text(&self.identifier["value"]), &self.case]
    }
}

/// The fields of a profile that a request may set, each with a value that is nobody else's.
fn fields(number: usize) -> Vec<(String, Json)> {
    let profile = POOL.get_message_by_name("profiles.v1.Profile").expect("a message");
    let kept = ["id", "createdDate", "updatedDate", "etag", "role", "lockedFields"];
    let names = profile.fields().map(|field| field.json_name().to_owned());
    let value = |name: &str| {
        let known = FIELDS.iter().find(|(field, _)| *field == name);
        let (_, value) = known.unwrap_or_else(|| panic!("{name} is new: say in policy.rs what it may be set to"));
        match name {
            "email" => json!(format!("new.{number:04}@example.com")),
            "phoneNumber" => json!(format!("+1666000{number:04}")),
            "identifiers" => json!([{ "system": "mrn", "value": value }]),
            _ => json!(value),
        }
    };
    names.filter(|name| !kept.contains(&name.as_str())).map(|name| (name.clone(), value(&name))).collect()
}

pub fn text(value: &Json) -> &str {
    value.as_str().expect("text")
}

/// Those of these fields that this RPC is tried with for this person, in turn: `PROFILE_TEST_ROUNDS=13` makes it all.
pub fn some_fields(rpc: &str, number: usize) -> impl Iterator<Item = (String, Json)> {
    let fields = fields(number);
    let (all, first) = (fields.len(), number + rpc.len());
    fields.into_iter().cycle().skip(first % all).take(rounds(1).min(all))
}

/// The object with these members too.
pub fn with(mut object: Json, further: Json) -> Json {
    let Json::Object(further) = further else { panic!("no object") };
    object.as_object_mut().expect("an object").extend(further);
    object
}

/// The RPCs that set fields of a profile which is there.
pub fn edits() -> Vec<String> {
    let sets = |rpc: &String| {
        let input = method(rpc).input();
        input.fields().any(|field| matches!(field.kind(), Kind::Message(of) if of.full_name() == "profiles.v1.Profile"))
    };
    rpcs().into_iter().filter(|rpc| rpc != CREATE && sets(rpc)).collect()
}

/// A request that sets these fields of somebody.
pub fn edit(rpc: &str, whom: &Whom, set: Json, further: Json) -> Json {
    let id = json!({ "id": whom.id });
    let request = match rpc {
        REPLACE => json!({ "profile": with(with(id, json!({ "firstName": "Ada", "lastName": whom.name })), set) }),
        PATCH => json!({ "profile": with(id, set) }),
        UPDATE => json!({ "data": with(set, json!({ "email": whom.email })) }),
        CORRECT => json!({ "profile": with(id, set), "reason": "why" }),
        other => panic!("{other} is new: say here how it sets a field"),
    };
    with(request, further)
}

/// The ways in which an edit can name somebody, or something that somebody has.
fn ways_of_edits(rpc: &str, whom: &Whom, own: &Whom) -> Vec<(&'static str, Json)> {
    let by = if rpc == UPDATE { ["e-mail", "e-mail, etag, request id"] } else { ["id", "id, etag, request id"] };
    let set = |set: Json, further: Json| edit(rpc, whom, set, further);
    let mut ways: Vec<_> =
        some_fields(rpc, whom.number).map(|(field, value)| (by[0], set(json!({ field: value }), json!({})))).collect();
    let city_and_etag = json!({ "city": "Rome", "etag": whom.etag });
    ways.push((by[1], set(city_and_etag, json!({ "requestId": whom.request }))));
    let only = json!({ "validateOnly": true });
    if rpc != UPDATE {
        ways.push(("e-mail, for oneself", edit(rpc, own, json!({ "email": whom.email }), only.clone())));
    }
    ways.push(("phone number, for oneself", edit(rpc, own, json!({ "phoneNumber": whom.phone }), only)));
    ways
}

/// The ways in which a request of an RPC can name somebody, or something that somebody has. What writes to a person is not
/// only validated: it would be seen.
pub fn ways(rpc: &str, whom: &Whom, own: &Whom) -> Vec<(&'static str, Json)> {
    let Whom { id, etag, name, email, phone, identifier, case, request: request_id, number: _ } = whom;
    let names = json!({ "firstName": "Eve", "lastName": "King" });
    let only = |request: Json| with(request, json!({ "validateOnly": true }));
    let by_id = |request: Json| {
        let more = with(request.clone(), json!({ "etag": etag, "requestId": request_id }));
        vec![("id", request), ("id, etag, request id", more)]
    };
    match rpc {
        CREATE => {
            let create =
                |field: &str, value: Json| only(json!({ "profile": with(names.clone(), json!({ field: value })) }));
            vec![
                ("e-mail", create("email", json!(email))),
                ("phone number", create("phoneNumber", json!(phone))),
                ("identifier", create("identifiers", json!([identifier]))),
            ]
        }
        REPLACE | PATCH | UPDATE | CORRECT => ways_of_edits(rpc, whom, own),
        "ProfileService/GetProfile" | "SupportService/ExportProfile" | "SupportService/ListProfileCases" => {
            vec![("id", json!({ "id": id }))]
        }
        "ProfileQueryService/BatchGetProfiles" => {
            vec![("id", json!({ "ids": [id] })), ("id, beside one's own", json!({ "ids": [own.id, id] }))]
        }
        "ProfileQueryService/LookUpProfile" | "SupportService/FindProfile" => vec![
            ("e-mail", json!({ "email": email })),
            ("phone number", json!({ "phoneNumber": phone })),
            ("identifier", json!({ "identifier": identifier })),
        ],
        "ProfileQueryService/ListProfiles" | "ProfileQueryService/CountProfiles" => {
            vec![("name", json!({ "namePrefix": name }))]
        }
        // They name nobody.
        "ProfileQueryService/WatchProfiles" | "KeyService/GetCurrentKey" => Vec::new(),
        "ProfileIdentifierService/AddIdentifier" | "ProfileIdentifierService/RemoveIdentifier" => {
            let mut ways = by_id(json!({ "profileId": id, "identifier": identifier }));
            let oneself = json!({ "profileId": own.id, "identifier": identifier });
            ways.push(("identifier, for oneself", only(oneself)));
            ways
        }
        "CaseService/ReportCaseStatus" => {
            let report = |case: &str, id: &str, status: &str| json!({ "caseId": case, "profileId": id, "status": status, "statusTime": MONDAY });
            vec![("id", report("case.new", id, "APPROVED")), ("case, for oneself", report(case, &own.id, "OPEN"))]
        }
        "SupportService/SetProfileRole" => by_id(json!({ "id": id, "role": "ADMIN", "reason": "why" })),
        "SupportService/ListProfileChanges" => {
            let token = format!("{}0000000000000007", id.replace('-', ""));
            vec![("id", json!({ "id": id })), ("id, token", json!({ "id": id, "pageToken": token }))]
        }
        "SupportService/EraseProfile" => {
            by_id(json!({ "id": id, "reasonCode": "REASON_CODE_LEGAL_ORDER", "evenIfLocked": true }))
        }
        other => panic!("{other} is new: say here how it names a person, and in crowd.rs what it shows"),
    }
}
