//! Who may call what: one table, and the key in the metadata.

use http::{HeaderMap, header::AUTHORIZATION};
use tonic::Request;

use crate::{
    error::{Error, Result},
    profile::change::Author,
    scope::Scope,
    value::KeyText,
    write::Permit,
};

/// The header of the documented REST API; `authorization: Bearer KEY` says the same.
const API_KEY: &str = "cv-api-key";

/// What a method requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// No key: balancers have none.
    Health,
    /// No key: tools ask before they have one.
    Reflection,
    /// A key with this scope.
    Key(Scope),
}

/// What each method requires. A method that is not here is refused.
const METHODS: [(&str, Access); 14] = [
    ("/grpc.health.v1.Health/Check", Access::Health),
    ("/grpc.health.v1.Health/Watch", Access::Health),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Access::Reflection),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Access::Reflection),
    ("/profiles.v1.ProfileService/CreateProfile", Access::Key(Scope::ProfilesWrite)),
    ("/profiles.v1.ProfileService/GetProfile", Access::Key(Scope::ProfilesRead)),
    ("/profiles.v1.ProfileService/ReplaceProfile", Access::Key(Scope::ProfilesWrite)),
    ("/profiles.v1.ProfileService/PatchProfile", Access::Key(Scope::ProfilesWrite)),
    ("/profiles.v1.ProfileService/UpdateProfile", Access::Key(Scope::ProfilesWrite)),
    ("/profiles.v1.CaseService/ReportCaseStatus", Access::Key(Scope::CasesReport)),
    ("/profiles.v1.SupportService/CorrectProfile", Access::Key(Scope::Support)),
    ("/profiles.v1.SupportService/SetProfileRole", Access::Key(Scope::Support)),
    ("/profiles.v1.SupportService/FindProfile", Access::Key(Scope::Support)),
    ("/profiles.v1.SupportService/ListProfileChanges", Access::Key(Scope::Support)),
];

/// What the method at this path requires, if there is such a method.
pub fn access(path: &str) -> Option<Access> {
    METHODS.iter().find(|(method, _)| *method == path).map(|(_, access)| *access)
}

/// The key in the metadata. Two different keys are no key: nobody could tell which one was meant.
pub fn presented(headers: &HeaderMap) -> Result<KeyText> {
    let own = headers.get_all(API_KEY).iter().map(|value| value.to_str().map_err(|_| Error::ApiKeyInvalid));
    let bearers = headers.get_all(AUTHORIZATION).iter().filter_map(|value| value.to_str().map(bearer).transpose());
    let mut keys = own.chain(bearers.map(|token| token.map_err(|_| Error::ApiKeyInvalid)));
    let key = keys.next().ok_or(Error::ApiKeyMissing)??;
    for other in keys {
        if other? != key {
            return Err(Error::ApiKeyInvalid);
        }
    }
    KeyText::parse(key.trim()).ok_or(Error::ApiKeyInvalid)
}

/// The token of the bearer scheme (RFC 6750), whose name has no case.
fn bearer(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Who makes an authenticated call.
pub fn author<T>(request: &Request<T>) -> Result<Author> {
    extension(request)
}

/// The permit of an authenticated call.
pub fn permit<T>(request: &Request<T>) -> Result<Permit> {
    extension(request)
}

fn extension<T, E: Clone + Send + Sync + 'static>(request: &Request<T>) -> Result<E> {
    let extension = request.extensions().get().cloned();
    extension.ok_or_else(|| Error::Internal("a call came past authentication".to_owned()))
}
