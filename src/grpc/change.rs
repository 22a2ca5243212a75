//! From each writing request to its change: judged whole, before any transaction.

use chrono::{DateTime, TimeDelta, Utc};
use prost::Message;
use prost_types::Timestamp;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{
    convert::{self, Input},
    mask::Mask,
    pb::{self, Action},
};
use crate::{
    entity::{profile::Column, profile_case},
    error::Result,
    policy::Rpc,
    value::{self, Rule},
    write::{Change, Claim, Edit, Note, Target},
};

/// How far ahead of the server a case's time may be: one wrong clock must not freeze a case.
const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(5);

/// CreateProfile: every field takes the request's value.
pub fn create(request: pb::CreateProfileRequest, now: DateTime<Utc>, new_id: Uuid) -> Result<Change> {
    let payload = Payload::of(&request);
    let pb::CreateProfileRequest { profile, request_id, validate_only } = request;
    let profile = profile.unwrap_or_default();
    let mut input = Input::default();
    let change = Change {
        rpc: Rpc::CreateProfile,
        target: Target::New(new_id),
        etag: etag(&profile.etag),
        edit: Edit::Columns(input.columns("profile", profile, &Mask::All, now)),
        claim: payload.claim(&mut input, &request_id, validate_only),
        note: Note::default(),
        validate_only,
    };
    input.finish(change)
}

/// ReplaceProfile: every field takes the request's value, and what is absent is cleared.
pub fn replace(request: pb::ReplaceProfileRequest, now: DateTime<Utc>) -> Result<Change> {
    let payload = Payload::of(&request);
    let pb::ReplaceProfileRequest { profile, request_id, validate_only } = request;
    let profile = profile.unwrap_or_default();
    let mut input = Input::default();
    let change = Change {
        rpc: Rpc::ReplaceProfile,
        target: Target::Id(input.id("profile.id", &profile.id)),
        etag: etag(&profile.etag),
        edit: Edit::Columns(input.columns("profile", profile, &Mask::All, now)),
        claim: payload.claim(&mut input, &request_id, validate_only),
        note: Note::default(),
        validate_only,
    };
    input.finish(change)
}

/// PatchProfile: the fields that the mask names.
pub fn patch(request: pb::PatchProfileRequest, now: DateTime<Utc>) -> Result<Change> {
    let payload = Payload::of(&request);
    let pb::PatchProfileRequest { profile, update_mask, request_id, validate_only } = request;
    let mask = Mask::parse(update_mask)?;
    let profile = profile.unwrap_or_default();
    let mut input = Input::default();
    let change = Change {
        rpc: Rpc::PatchProfile,
        target: Target::Id(input.id("profile.id", &profile.id)),
        etag: etag(&profile.etag),
        edit: Edit::Columns(input.columns("profile", profile, &mask, now)),
        claim: payload.claim(&mut input, &request_id, validate_only),
        note: Note::default(),
        validate_only,
    };
    input.finish(change)
}

/// UpdateProfile: the fields that are present, but for the e-mail, which says whose.
pub fn update(request: pb::UpdateProfileRequest, now: DateTime<Utc>) -> Result<Change> {
    let payload = Payload::of(&request);
    let pb::UpdateProfileRequest { action, data, request_id, validate_only } = request;
    let mut data = data.unwrap_or_default();
    let sent = data.email.take().unwrap_or_default();
    let mut input = Input::default();
    input.judge("action", Action::try_from(action).map(drop).map_err(|_| Rule::Action));
    let change = Change {
        rpc: Rpc::UpdateProfile,
        target: Target::Email {
            email: input.required("data.email", &sent, value::email),
            sent: SecretString::from(value::clean(&sent)),
        },
        etag: etag(&data.etag),
        edit: Edit::Columns(input.columns("data", data, &Mask::Present, now)),
        claim: payload.claim(&mut input, &request_id, validate_only),
        note: Note::default(),
        validate_only,
    };
    input.finish(change)
}

/// CorrectProfile: the fields that the mask names, and why.
pub fn correct(request: pb::CorrectProfileRequest, now: DateTime<Utc>) -> Result<Change> {
    let payload = Payload::of(&request);
    let pb::CorrectProfileRequest { profile, update_mask, reason, ticket, request_id, validate_only } = request;
    let mask = Mask::parse(update_mask)?;
    let profile = profile.unwrap_or_default();
    let mut input = Input::default();
    let change = Change {
        rpc: Rpc::CorrectProfile,
        target: Target::Id(input.id("profile.id", &profile.id)),
        etag: etag(&profile.etag),
        edit: Edit::Columns(input.columns("profile", profile, &mask, now)),
        note: note(&mut input, &reason, &ticket),
        claim: payload.claim(&mut input, &request_id, validate_only),
        validate_only,
    };
    input.finish(change)
}

/// SetProfileRole: the role, and why.
pub fn set_role(request: pb::SetProfileRoleRequest) -> Result<Change> {
    let payload = Payload::of(&request);
    let pb::SetProfileRoleRequest { id, role, reason, ticket, etag: version, request_id, validate_only } = request;
    let mut input = Input::default();
    let change = Change {
        rpc: Rpc::SetProfileRole,
        target: Target::Id(input.id("id", &id)),
        etag: etag(&version),
        edit: Edit::Columns(vec![(Column::Role, input.judge("role", convert::role_in(role)).into())]),
        note: note(&mut input, &reason, &ticket),
        claim: payload.claim(&mut input, &request_id, validate_only),
        validate_only,
    };
    input.finish(change)
}

/// ReportCaseStatus: how a case stands. Reports are repeatable by themselves.
pub fn report(request: pb::ReportCaseStatusRequest, now: DateTime<Utc>, organization: Uuid) -> Result<Change> {
    let pb::ReportCaseStatusRequest { case_id, profile_id, status, status_time } = request;
    let mut input = Input::default();
    let case_id = input.required("case_id", &case_id, value::identifier);
    let profile_id = input.id("profile_id", &profile_id);
    let case = profile_case::Model {
        organization_id: organization,
        case_id,
        profile_id,
        status: input.judge("status", convert::status_in(status)),
        status_time: input.judge("status_time", status_time_in(status_time, now)),
    };
    let change = Change {
        rpc: Rpc::ReportCaseStatus,
        target: Target::Id(profile_id),
        etag: None,
        edit: Edit::Case(case),
        claim: None,
        note: Note::default(),
        validate_only: false,
    };
    input.finish(change)
}

fn status_time_in(time: Option<Timestamp>, now: DateTime<Utc>) -> Result<DateTime<Utc>, Rule> {
    let time = convert::time(time.ok_or(Rule::Required)?)?;
    if time > now + CLOCK_SKEW { Err(Rule::TimeAhead) } else { Ok(time) }
}

/// Why support changes something: a reason of at most 500 characters, and perhaps a ticket.
fn note(input: &mut Input, reason: &str, ticket: &str) -> Note {
    Note {
        reason: Some(input.required("reason", reason, value::lines::<500>)),
        ticket: input.optional("ticket", ticket, value::identifier),
    }
}

/// The version that must be current; none was sent where it is empty.
fn etag(text: &str) -> Option<String> {
    let text = value::clean(text);
    (!text.is_empty()).then_some(text)
}

/// A request as it was understood: what one request id stands for.
struct Payload {
    sha256: Vec<u8>,
}

impl Payload {
    fn of(request: &impl Message) -> Self {
        Self { sha256: Sha256::digest(request.encode_to_vec()).to_vec() }
    }

    /// The claim of a request id. A validation checks its form alone and remembers nothing.
    fn claim(self, input: &mut Input, request_id: &str, validate_only: bool) -> Option<Claim> {
        let request_id = input.optional("request_id", request_id, value::identifier)?;
        (!validate_only).then_some(Claim { request_id, payload_sha256: self.sha256 })
    }
}
