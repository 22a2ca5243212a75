//! Walks over the RPCs of the contract, taken from the descriptors: none can be forgotten.

use prost_reflect::{MethodDescriptor, prost_types::method_options::IdempotencyLevel};
use serde_json::{Value as Json, json};

use crate::harness::POOL;

/// Every RPC, as `Service/Method`.
pub fn rpcs() -> Vec<String> {
    methods().iter().map(path).collect()
}

/// Every RPC that the contract does not declare free of side effects.
pub fn writing_rpcs() -> Vec<String> {
    let reads = |method: &&MethodDescriptor| {
        let options = method.method_descriptor_proto().options.clone().unwrap_or_default();
        options.idempotency_level() == IdempotencyLevel::NoSideEffects
    };
    paths(methods().iter().filter(|method| !reads(method)))
}

/// Every RPC whose request has this field.
pub fn rpcs_with(field: &str) -> Vec<String> {
    paths(methods().iter().filter(|method| method.input().get_field_by_name(field).is_some()))
}

fn paths<'a>(methods: impl Iterator<Item = &'a MethodDescriptor>) -> Vec<String> {
    methods.map(path).collect()
}

/// The fields of a profile that every RPC can change: it has an e-mail and an identifier.
pub fn to_change(name: &str) -> Json {
    let email = format!("{}@example.com", name.replace('/', "."));
    json!({ "email": email, "identifiers": [{ "system": "crm", "value": name }] })
}

/// A request that changes this profile, or makes another one.
pub fn change_of(rpc: &str, person: &Json) -> Json {
    let (id, profile) = (&person["id"], json!({ "id": person["id"], "city": "London" }));
    match rpc {
        "ProfileService/CreateProfile" => json!({ "profile": { "firstName": "Eve", "lastName": "King" } }),
        "ProfileService/ReplaceProfile" => {
            json!({ "profile": { "id": id, "firstName": "Eve", "lastName": "King", "email": person["email"] } })
        }
        "ProfileService/PatchProfile" => json!({ "profile": profile }),
        "ProfileService/UpdateProfile" => json!({ "data": { "email": person["email"], "city": "London" } }),
        "CaseService/ReportCaseStatus" => {
            json!({ "caseId": id, "profileId": id, "status": "ASSIGNED", "statusTime": "2026-01-05T10:00:00Z" })
        }
        "SupportService/CorrectProfile" => json!({ "profile": profile, "reason": "why" }),
        "SupportService/SetProfileRole" => json!({ "id": id, "role": "ADMIN", "reason": "why" }),
        "ProfileIdentifierService/AddIdentifier" => {
            json!({ "profileId": id, "identifier": { "system": "added", "value": id } })
        }
        "ProfileIdentifierService/RemoveIdentifier" => {
            json!({ "profileId": id, "identifier": person["identifiers"][0] })
        }
        "SupportService/EraseProfile" => json!({ "id": id, "reasonCode": "REASON_CODE_RETENTION" }),
        other => panic!("{other} is new: say here how it changes a profile"),
    }
}

/// Whether the answer of this RPC is a stream.
pub fn is_stream(rpc: &str) -> bool {
    methods().iter().any(|method| path(method) == rpc && method.is_server_streaming())
}

fn methods() -> Vec<MethodDescriptor> {
    let services = POOL.services().filter(|service| service.parent_file().package_name() == "profiles.v1");
    services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

fn path(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().name(), method.name())
}
