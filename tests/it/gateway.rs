//! What the gateway in `deploy/envoy` knows of the contract comes from it, and etags reach it.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value};
use serde_json::json;

use crate::harness::{DESCRIPTORS, POOL, client};

#[test]
fn the_gateways_files_are_those_of_the_contract() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/envoy");
    for (name, made) in [("profiles.pb", DESCRIPTORS.to_vec()), ("names.lua", names().into_bytes())] {
        let path = directory.join(name);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &made).expect("a file");
        }
        let same = fs::read(&path).is_ok_and(|committed| committed == made);
        assert!(same, "{name} is not the contract's; renew it with: UPDATE=1 cargo test --test it gateway");
    }
}

#[tokio::test]
async fn the_etag_is_in_the_metadata_of_an_answer_if_there_is_one() {
    let (_service, north) = client().await;
    let ada = north.person(json!({ "email": "ada@example.com" })).await;
    let create = json!({ "profile": { "firstName": "Ada", "lastName": "Byron" }, "validateOnly": true });
    let of = |fields| json!({ "profile": { "id": ada["id"], "city": fields } });
    let correct = json!({ "profile": { "id": ada["id"], "city": "Rome" }, "reason": "asked" });
    let role = json!({ "id": ada["id"], "role": "ADMIN", "reason": "asked" });
    let update = json!({ "data": { "email": "ada@example.com", "city": "Oslo" } });
    let replace = json!({ "profile": { "id": ada["id"], "firstName": "Ada", "lastName": "King" } });
    for (path, request, etag) in [
        ("ProfileService/CreateProfile", create, None),
        ("ProfileService/GetProfile", json!({ "id": ada["id"] }), Some("\"1\"")),
        ("ProfileService/PatchProfile", of("Paris"), Some("\"2\"")),
        ("ProfileService/UpdateProfile", update, Some("\"3\"")),
        ("ProfileService/ReplaceProfile", replace, Some("\"4\"")),
        ("SupportService/CorrectProfile", correct, Some("\"5\"")),
        ("SupportService/SetProfileRole", role, Some("\"6\"")),
    ] {
        assert_eq!(north.metadata(path, request, "etag").await.as_deref(), etag, "{path}");
    }
}

/// What the Lua filter must know of the messages and methods that have a path.
fn names() -> String {
    let service = POOL.get_service_by_name("profiles.v1.ProfileService").expect("the service");
    let mut aliases = BTreeMap::new();
    let mut messages = BTreeMap::new();
    let mut routes = BTreeMap::new();
    for method in service.methods() {
        let (body, path) = http(&method);
        let mut query = BTreeMap::new();
        let mut route = BTreeMap::new();
        if body == "*" {
            describe(&method.input(), &mut messages, &mut aliases);
            route.insert("message".to_owned(), quoted(method.input().name()));
        }
        for field in method.input().fields() {
            if body == field.name() {
                let Kind::Message(message) = field.kind() else { panic!("a body is a message") };
                describe(&message, &mut messages, &mut aliases);
                route.insert("message".to_owned(), quoted(message.name()));
            } else if body != "*" && path != field.name() && !is_mask(&field) {
                alias(&field, &mut aliases);
                query.insert(field.json_name().to_owned(), kind(&field));
            }
        }
        route.insert("query".to_owned(), table(&query, 3));
        routes.insert(method.name().to_owned(), table(&route, 2));
    }
    let parts = [("aliases", table(&aliases, 1)), ("messages", table(&messages, 1)), ("routes", table(&routes, 1))];
    let parts = parts.into_iter().map(|(name, part)| (name.to_owned(), part)).collect();
    format!(
        "-- Generated from the contract. Renew it with: UPDATE=1 cargo test --test it gateway\nreturn {}\n",
        table(&parts, 0)
    )
}

/// The body of the method's HTTP rule, and the field that its path binds.
fn http(method: &MethodDescriptor) -> (String, String) {
    let options = method.options();
    let rule = POOL.get_extension_by_name("google.api.http").expect("the extension");
    let rule = options.get_extension(&rule);
    let rule = rule.as_message().expect("a rule");
    let text = |name: &str| rule.get_field_by_name(name).and_then(|text| text.as_str().map(str::to_owned));
    let path = ["get", "put", "post", "patch"].into_iter().filter_map(text).find(|path| !path.is_empty());
    let bound = path.and_then(|path| Some(path.split_once('{')?.1.split_once('}')?.0.to_owned()));
    (text("body").unwrap_or_default(), bound.unwrap_or_default())
}

/// Puts a message and those in it among the messages.
fn describe(
    message: &MessageDescriptor,
    messages: &mut BTreeMap<String, String>,
    aliases: &mut BTreeMap<String, String>,
) {
    let mut fields = BTreeMap::new();
    for field in message.fields() {
        alias(&field, aliases);
        fields.insert(field.json_name().to_owned(), kind(&field));
        if let Kind::Message(inner) = field.kind()
            && !is_output(&field)
        {
            describe(&inner, messages, aliases);
        }
    }
    messages.insert(message.name().to_owned(), table(&fields, 2));
}

/// JSON may also use the name of the contract.
fn alias(field: &FieldDescriptor, aliases: &mut BTreeMap<String, String>) {
    if field.name() != field.json_name() {
        aliases.insert(field.name().to_owned(), quoted(field.json_name()));
    }
}

/// REST has no masks: what a body has says what changes.
fn is_mask(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Message(message) if message.name() == "FieldMask")
}

/// What the filter must know of a field: its type, in brackets where there may be many, the names of its values, the empty
/// one first, or that it is ignored.
fn kind(field: &FieldDescriptor) -> String {
    match field.kind() {
        _ if is_output(field) => quoted("output"),
        Kind::String => quoted("string"),
        Kind::Bool => quoted("boolean"),
        Kind::Enum(values) => {
            let values: Vec<_> = values.values().map(|value| quoted(value.name())).collect();
            format!("{{ {} }}", values.join(", "))
        }
        Kind::Message(message) if field.is_list() => quoted(&format!("[{}]", message.name())),
        Kind::Message(message) => quoted(message.name()),
        other => panic!("teach deploy/envoy/rest.lua what {other:?} is"),
    }
}

fn is_output(field: &FieldDescriptor) -> bool {
    let behavior = POOL.get_extension_by_name("google.api.field_behavior").expect("the extension");
    let options = field.options();
    let output = 3;
    options.get_extension(&behavior).as_list().is_some_and(|list| list.contains(&Value::EnumNumber(output)))
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn table(entries: &BTreeMap<String, String>, depth: usize) -> String {
    if entries.is_empty() {
        return "{}".to_owned();
    }
    let mut text = "{\n".to_owned();
    for (name, value) in entries {
        writeln!(text, "{:width$}{name} = {value},", "", width = 2 * (depth + 1)).expect("text");
    }
    write!(text, "{:width$}}}", "", width = 2 * depth).expect("text");
    text
}
