//! Who may call what: one table, and the key in the metadata.

use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use tonic::Request;

use crate::{
    error::{Error, Result},
    profile::{change::Author, fields::Input},
    scope::Scope,
    value::{self, KeyText, Rule},
    write::Permit,
};

/// The header of the documented REST API; `authorization: Bearer KEY` says the same.
const API_KEY: HeaderName = HeaderName::from_static("cv-api-key");

/// Says who of the caller's people acts.
const ACTOR: HeaderName = HeaderName::from_static("x-actor");

/// What a method requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// No key: balancers have none.
    Health,
    /// No key either, and a stream: it is told whatever changes.
    HealthWatch,
    /// No key: tools ask before they have one. A stream.
    Reflection,
    /// A key, whatever it allows.
    AnyKey,
    /// A key with this scope.
    Key(Scope),
    /// A key with this scope; the answer is a stream.
    Stream(Scope),
}

impl Access {
    /// Whether only a caller with a key may call.
    const fn needs_a_key(self) -> bool {
        match self {
            Self::Health | Self::HealthWatch | Self::Reflection => false,
            Self::AnyKey | Self::Key(_) | Self::Stream(_) => true,
        }
    }
}

/// What each method requires. A method that is not here is refused.
const METHODS: [(&str, Access); 25] = [
    ("/grpc.health.v1.Health/Check", Access::Health),
    ("/grpc.health.v1.Health/Watch", Access::HealthWatch),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Access::Reflection),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Access::Reflection),
    ("/profiles.v1.ProfileService/CreateProfile", Access::Key(Scope::ProfilesWrite)),
    ("/profiles.v1.ProfileService/GetProfile", Access::Key(Scope::ProfilesRead)),
    ("/profiles.v1.ProfileService/ReplaceProfile", Access::Key(Scope::ProfilesWrite)),
    ("/profiles.v1.ProfileService/PatchProfile", Access::Key(Scope::ProfilesWrite)),
    ("/profiles.v1.ProfileService/UpdateProfile", Access::Key(Scope::ProfilesWrite)),
    ("/profiles.v1.ProfileQueryService/BatchGetProfiles", Access::Key(Scope::ProfilesRead)),
    ("/profiles.v1.ProfileQueryService/LookUpProfile", Access::Key(Scope::ProfilesRead)),
    ("/profiles.v1.ProfileQueryService/ListProfiles", Access::Key(Scope::ProfilesList)),
    ("/profiles.v1.ProfileQueryService/CountProfiles", Access::Key(Scope::ProfilesList)),
    ("/profiles.v1.ProfileQueryService/WatchProfiles", Access::Stream(Scope::ProfilesList)),
    ("/profiles.v1.ProfileIdentifierService/AddIdentifier", Access::Key(Scope::ProfilesWrite)),
    ("/profiles.v1.ProfileIdentifierService/RemoveIdentifier", Access::Key(Scope::ProfilesWrite)),
    ("/profiles.v1.KeyService/GetCurrentKey", Access::AnyKey),
    ("/profiles.v1.CaseService/ReportCaseStatus", Access::Key(Scope::CasesReport)),
    ("/profiles.v1.SupportService/CorrectProfile", Access::Key(Scope::Support)),
    ("/profiles.v1.SupportService/SetProfileRole", Access::Key(Scope::Support)),
    ("/profiles.v1.SupportService/FindProfile", Access::Key(Scope::Support)),
    ("/profiles.v1.SupportService/ListProfileChanges", Access::Key(Scope::Support)),
    ("/profiles.v1.SupportService/ListProfileCases", Access::Key(Scope::Support)),
    ("/profiles.v1.SupportService/EraseProfile", Access::Key(Scope::Privacy)),
    ("/profiles.v1.SupportService/ExportProfile", Access::Stream(Scope::Privacy)),
];

/// A method of the table.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Its place in the table.
    pub number: usize,
    pub path: &'static str,
    pub access: Access,
}

/// The methods, in the order of the table.
pub fn methods() -> impl Iterator<Item = Method> {
    METHODS.iter().enumerate().map(|(number, &(path, access))| Method { number, path, access })
}

/// The method at this path, if there is one.
pub fn method(path: &str) -> Option<Method> {
    methods().find(|method| method.path == path)
}

/// The services that need a key, by their full names, in the order of the table.
pub fn services() -> Vec<&'static str> {
    let keyed = METHODS.iter().filter(|(_, access)| access.needs_a_key());
    let mut services: Vec<_> = keyed.filter_map(|(method, _)| method.split('/').nth(1)).collect();
    services.dedup();
    services
}

/// The key in the metadata. `cv-api-key` decides; beside it a proxy's own token is overlooked, and another key is one
/// too many: nobody could tell which one was meant. An empty header is none.
pub fn presented(headers: &HeaderMap) -> Result<KeyText> {
    let own = one_of(values(headers, &API_KEY))?;
    let authorization = one_of(values(headers, &AUTHORIZATION).map(|value| bearer(value).ok_or(value)))?;
    let bearer = authorization.and_then(std::result::Result::ok);
    match (own, bearer.map(KeyText::parse)) {
        (None, None) => Err(Error::ApiKeyMissing),
        (None, Some(bearer)) => bearer.ok_or(Error::ApiKeyInvalid),
        (Some(own), Some(Some(_))) if bearer != Some(own) => Err(Error::ApiKeyInvalid),
        (Some(own), _) => KeyText::parse(own).ok_or(Error::ApiKeyInvalid),
    }
}

/// What this header says, each time that it says anything. What is no text is no key either.
fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let texts = headers.get_all(name).into_iter().map(|value| value.to_str().map_or("no text", str::trim));
    texts.filter(|text| !text.is_empty())
}

/// The one value of a header, however often it is there.
fn one_of<T: PartialEq>(mut values: impl Iterator<Item = T>) -> Result<Option<T>> {
    let Some(first) = values.next() else { return Ok(None) };
    if values.all(|value| value == first) { Ok(Some(first)) } else { Err(Error::ApiKeyInvalid) }
}

/// The token of the bearer scheme (RFC 6750), whose name has no case.
fn bearer(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Who of the caller's people acts. Said twice, it must be the same.
pub fn actor(headers: &HeaderMap) -> Result<Option<String>, Rule> {
    let mut actors = headers.get_all(ACTOR).into_iter().map(|value| value.to_str().map_or("", str::trim));
    match actors.next() {
        None => Ok(None),
        Some(first) if actors.all(|other| other == first) => value::actor(first).map(Some),
        Some(_) => Err(Rule::Actor),
    }
}

/// Judges the values of a request, beginning with its metadata.
pub fn input<T>(request: &Request<T>) -> Input {
    let mut input = Input::without_metadata();
    input.judge(ACTOR.as_str(), actor(request.metadata().as_ref()));
    input
}

/// Who makes an authenticated call.
pub fn author<T>(request: &Request<T>) -> Result<Author> {
    extension(request)
}

/// The permit of an authenticated call.
pub fn permit<T>(request: &Request<T>) -> Result<Permit> {
    extension(request)
}

/// What the layers around a call have put beside its request.
pub fn extension<T, E: Clone + Send + Sync + 'static>(request: &Request<T>) -> Result<E> {
    let extension = request.extensions().get().cloned();
    extension.ok_or_else(|| Error::Internal("a call came past authentication".to_owned()))
}
