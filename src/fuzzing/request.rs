//! Requests: from the bytes of a message to its change or its query, as its handler makes it.

use chrono::{DateTime, Utc};
use prost::Message;
use uuid::Uuid;

use super::{
    decision::{ORGANIZATION, decide, now},
    tell,
};
use crate::{
    error::Result,
    grpc::{
        change,
        pb::{self, find_profile_request::By},
        query, support, watch,
    },
    profile::{change::Change, fields::Input},
};

/// The name of an RPC, a line break, and the bytes of its message.
pub fn request(input: &[u8]) {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return };
    if let Ok(rpc) = str::from_utf8(&input[..end]) {
        judge(rpc, &input[end + 1..]);
    }
}

/// Judges a message of an RPC. Answers whether there is such an RPC.
pub(super) fn judge(rpc: &str, message: &[u8]) -> bool {
    match rpc {
        "CreateProfile" => writes(message, |request, now| change::create(request, now, Uuid::from_u128(4))),
        "ReplaceProfile" => writes(message, change::replace),
        "PatchProfile" => writes(message, change::patch),
        "UpdateProfile" => writes(message, change::update),
        "AddIdentifier" => writes(message, change::add_identifier),
        "RemoveIdentifier" => writes(message, change::remove_identifier),
        "ReportCaseStatus" => writes(message, |request, now| change::report(request, now, ORGANIZATION)),
        "CorrectProfile" => writes(message, change::correct),
        "SetProfileRole" => writes(message, change::set_role),
        "EraseProfile" => writes(message, change::erase),
        "GetProfile" => reads(message, |pb::GetProfileRequest { id }| one(&id)),
        "ExportProfile" => reads(message, |pb::ExportProfileRequest { id }| one(&id)),
        "BatchGetProfiles" => reads(message, |request| query::batch(Input::without_metadata(), request)),
        "LookUpProfile" => {
            reads(message, |pb::LookUpProfileRequest { by }| {
                support::contact(Input::without_metadata(), by.map(By::from))
            });
        }
        "FindProfile" => {
            reads(message, |pb::FindProfileRequest { by }| support::contact(Input::without_metadata(), by));
        }
        "ListProfiles" => reads(message, |request| query::List::parse(Input::without_metadata(), request)),
        "CountProfiles" => reads(message, |pb::CountProfilesRequest { name_prefix, dob }| {
            query::filter(Input::without_metadata(), &name_prefix, &dob)
        }),
        "WatchProfiles" => {
            reads(message, |request| watch::Beginning::parse(Input::without_metadata(), ORGANIZATION, request));
        }
        "ListProfileChanges" => reads(message, |request| support::Page::parse(Input::without_metadata(), request)),
        "ListProfileCases" => reads(message, |request| support::Cases::parse(Input::without_metadata(), request)),
        "GetCurrentKey" => reads(message, |pb::GetCurrentKeyRequest {}| Ok(())),
        _ => return false,
    }
    true
}

/// A request that writes.
fn writes<M: Message + Default>(message: &[u8], change: impl FnOnce(M, DateTime<Utc>) -> Result<Change>) {
    let Ok(request) = M::decode(message) else { return };
    match change(request, now()) {
        Ok(change) => decide(&change),
        Err(error) => tell(error),
    }
}

/// A request that reads.
fn reads<M: Message + Default, Q>(message: &[u8], query: impl FnOnce(M) -> Result<Q>) {
    let Ok(request) = M::decode(message) else { return };
    if let Err(error) = query(request) {
        tell(error);
    }
}

/// The id of the one profile that is read.
fn one(id: &str) -> Result<Uuid> {
    let mut input = Input::without_metadata();
    let id = input.id("id", id);
    input.finish(id)
}
