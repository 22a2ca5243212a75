//! The reference of the API, docs/api.md, is what the contract's descriptors and comments say.

use std::{fmt::Write as _, fs, path::Path};

use prost_reflect::{
    Cardinality, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor,
};

use crate::harness::POOL;

const PACKAGE: &str = "profiles.v1";

/// The messages that other messages are made of come first.
const FIRST: &str = "Profile";

#[test]
fn the_reference_of_the_api_is_the_contracts() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md");
    let made = reference();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &made).expect("a file");
    }
    let same = fs::read_to_string(&path).is_ok_and(|committed| committed == made);
    assert!(same, "docs/api.md is not the contract's; renew it with: UPDATE=1 cargo test --test it reference");
}

fn reference() -> String {
    let mut text = String::from(
        "# API reference\n\n<!-- Generated from the contract. Renew it with: UPDATE=1 cargo test --test it reference -->\n\n\
         Package `profiles.v1`, [proto/profiles/v1](../proto/profiles/v1). What each error means, and which to repeat, is in \
         [errors.md](errors.md).\n\n",
    );
    let mut services: Vec<_> = POOL.services().filter(|service| service.package_name() == PACKAGE).collect();
    services.sort_by_key(|service| (service.name() != "ProfileService", service.name().to_owned()));
    for service in &services {
        let _ = writeln!(text, "- [{0}](#{1}): {2}", service.name(), anchor(service.name()), methods(service));
    }
    for service in &services {
        let _ = write!(text, "\n## {}\n\n{}\n", service.name(), comment(&service.parent_file(), service.path()));
        for method in service.methods() {
            rpc(&mut text, &method);
        }
    }
    text.push_str("\n## Messages\n");
    let mut messages: Vec<_> = POOL.all_messages().filter(|message| message.package_name() == PACKAGE).collect();
    messages
        .sort_by_key(|message| (!in_package(message.full_name()).starts_with(FIRST), message.full_name().to_owned()));
    for message in messages {
        describe(&mut text, &message);
    }
    text.push_str("\n## Enums\n");
    for values in POOL.all_enums().filter(|values| values.package_name() == PACKAGE) {
        enumerate(&mut text, &values);
    }
    text
}

fn methods(service: &ServiceDescriptor) -> String {
    service.methods().map(|method| link(method.name())).collect::<Vec<_>>().join(", ")
}

fn rpc(text: &mut String, method: &MethodDescriptor) {
    let stream = if method.is_server_streaming() { "stream of " } else { "" };
    let (request, answer) = (kind(&Kind::Message(method.input())), kind(&Kind::Message(method.output())));
    let _ = writeln!(text, "\n### {}\n\n{request} → {stream}{answer}", method.name());
    if let Some((verb, path)) = rest(method) {
        let _ = writeln!(text, "\nREST: `{verb} {path}`");
    }
    let _ = writeln!(text, "\n{}", comment(&method.parent_file(), method.path()));
}

/// The verb and the path of the method's HTTP rule.
fn rest(method: &MethodDescriptor) -> Option<(String, String)> {
    let rule = POOL.get_extension_by_name("google.api.http").expect("the extension");
    let options = method.options();
    let rule = options.get_extension(&rule);
    let rule = rule.as_message().expect("a rule");
    let path = |verb: &str| {
        let path = rule.get_field_by_name(verb)?.as_str()?.to_owned();
        (!path.is_empty()).then(|| (verb.to_uppercase(), path))
    };
    ["get", "put", "post", "patch"].into_iter().find_map(path)
}

fn describe(text: &mut String, message: &MessageDescriptor) {
    let file = message.parent_file();
    let _ = write!(text, "\n### {}\n\n{}\n", in_package(message.full_name()), comment(&file, message.path()));
    if message.fields().len() > 0 {
        text.push('\n');
    }
    for field in message.fields() {
        item(text, &format!("`{}`: {}.", field.name(), shape(&field)), &comment(&file, field.path()));
    }
}

fn enumerate(text: &mut String, values: &EnumDescriptor) {
    let file = values.parent_file();
    let _ = write!(text, "\n### {}\n\n{}\n\n", in_package(values.full_name()), comment(&file, values.path()));
    for value in values.values() {
        item(text, &format!("`{}` ({}).", value.name(), value.number()), &comment(&file, value.path()));
    }
}

/// An item of a list, whose comment may have paragraphs and lists of its own.
fn item(text: &mut String, head: &str, comment: &str) {
    let mut lines = comment.lines();
    let _ = writeln!(text, "{}", format!("- {head} {}", lines.next().unwrap_or_default()).trim_end());
    for line in lines {
        let _ = writeln!(text, "{}", format!("  {line}").trim_end());
    }
}

/// The type of a field, and which of a oneof it is.
fn shape(field: &FieldDescriptor) -> String {
    let kind = kind(&field.kind());
    let oneof = field.containing_oneof().filter(|_| !field.field_descriptor_proto().proto3_optional());
    match (field.cardinality(), oneof) {
        (Cardinality::Repeated, _) => format!("repeated {kind}"),
        (_, Some(oneof)) => format!("{kind}, one of `{}`", oneof.name()),
        _ if field.supports_presence() && !matches!(field.kind(), Kind::Message(_)) => format!("optional {kind}"),
        _ => kind,
    }
}

fn kind(kind: &Kind) -> String {
    let name = match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(values) => values.full_name().to_owned(),
        scalar => return format!("{scalar:?}").to_lowercase(),
    };
    if name.starts_with(PACKAGE) { link(in_package(&name)) } else { format!("`{name}`") }
}

fn in_package(name: &str) -> &str {
    name.strip_prefix(PACKAGE).map_or(name, |name| name.trim_start_matches('.'))
}

fn link(name: &str) -> String {
    format!("[{name}](#{})", anchor(name))
}

/// What a heading is linked by.
fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace('.', "")
}

/// The comment before what is at this path of the file, each paragraph as it is wrapped.
fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let source = file.file_descriptor_proto().source_code_info.as_ref().expect("the sources");
    let at = source.location.iter().find(|location| location.path == path);
    let text = at.and_then(|location| location.leading_comments.as_deref()).unwrap_or_default();
    text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n").trim_end().to_owned()
}
