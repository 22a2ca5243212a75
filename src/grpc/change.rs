//! From each writing request to its change: judged whole, before any transaction.

use std::mem::take;

use chrono::{DateTime, TimeDelta, Utc};
use prost::Message;
use prost_types::Timestamp;
use sea_orm::ActiveEnum as _;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{
    convert,
    mask::Mask,
    pb::{self, Action},
};
use crate::{
    entity::{profile::Column, profile_case, profile_identifier::Identifier},
    error::Result,
    profile::{
        change::{AuditNote, Change, Claim, Edit, Erasing, Target},
        fields::Input,
        policy::Rpc,
    },
    value::{self, Rule},
};

/// How far ahead of the server a case's time may be: one wrong clock must not freeze a case.
const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(5);

/// CreateProfile: every field takes the request's value, and the identifiers are the first.
pub fn create(request: pb::CreateProfileRequest, now: DateTime<Utc>, new_id: Uuid) -> Result<Change> {
    let mut draft = Draft::of(Rpc::CreateProfile, &request, now);
    let pb::CreateProfileRequest { profile, request_id, validate_only } = request;
    let mut profile = profile.unwrap_or_default();
    let identifiers = take(&mut profile.identifiers);
    draft.profile("profile", profile, &Mask::All);
    draft.identifiers("profile.identifiers", identifiers);
    draft.finish(Target::New(new_id), &request_id, validate_only)
}

/// ReplaceProfile: every field takes the request's value, and what is absent is cleared.
pub fn replace(request: pb::ReplaceProfileRequest, now: DateTime<Utc>) -> Result<Change> {
    let mut draft = Draft::of(Rpc::ReplaceProfile, &request, now);
    let pb::ReplaceProfileRequest { profile, request_id, validate_only } = request;
    let profile = profile.unwrap_or_default();
    let target = Target::Id(draft.input.id("profile.id", &profile.id));
    draft.profile("profile", profile, &Mask::All);
    draft.finish(target, &request_id, validate_only)
}

/// PatchProfile: the fields that the mask names.
pub fn patch(request: pb::PatchProfileRequest, now: DateTime<Utc>) -> Result<Change> {
    let mut draft = Draft::of(Rpc::PatchProfile, &request, now);
    let pb::PatchProfileRequest { profile, update_mask, request_id, validate_only } = request;
    let (profile, mask) = (profile.unwrap_or_default(), Mask::parse(update_mask)?);
    let target = Target::Id(draft.input.id("profile.id", &profile.id));
    draft.profile("profile", profile, &mask);
    draft.finish(target, &request_id, validate_only)
}

/// UpdateProfile: the fields that are present, but for the e-mail, which says whose.
pub fn update(request: pb::UpdateProfileRequest, now: DateTime<Utc>) -> Result<Change> {
    let mut draft = Draft::of(Rpc::UpdateProfile, &request, now);
    let pb::UpdateProfileRequest { action, data, request_id, validate_only } = request;
    draft.input.judge("action", Action::try_from(action).map(drop).map_err(|_| Rule::Action));
    let mut data = data.unwrap_or_default();
    let sent = data.email.take().unwrap_or_default();
    let email = draft.input.required("data.email", &sent, value::email);
    draft.profile("data", data, &Mask::Present);
    let target = Target::Email { email, sent: SecretString::from(value::clean(&sent).into_owned()) };
    draft.finish(target, &request_id, validate_only)
}

/// CorrectProfile: the fields that the mask names, and why.
pub fn correct(request: pb::CorrectProfileRequest, now: DateTime<Utc>) -> Result<Change> {
    let mut draft = Draft::of(Rpc::CorrectProfile, &request, now);
    let pb::CorrectProfileRequest { profile, update_mask, reason, ticket, request_id, validate_only } = request;
    let (profile, mask) = (profile.unwrap_or_default(), Mask::parse(update_mask)?);
    let target = Target::Id(draft.input.id("profile.id", &profile.id));
    draft.profile("profile", profile, &mask);
    draft.audit(&reason, &ticket);
    draft.finish(target, &request_id, validate_only)
}

/// SetProfileRole: the role, and why.
pub fn set_role(request: pb::SetProfileRoleRequest, now: DateTime<Utc>) -> Result<Change> {
    let mut draft = Draft::of(Rpc::SetProfileRole, &request, now);
    let pb::SetProfileRoleRequest { id, role, reason, ticket, etag, request_id, validate_only } = request;
    let target = Target::Id(draft.input.id("id", &id));
    draft.columns("", vec![convert::role(role)], &etag);
    draft.audit(&reason, &ticket);
    draft.finish(target, &request_id, validate_only)
}

/// EraseProfile: that the person is erased, and why.
pub fn erase(request: pb::EraseProfileRequest, now: DateTime<Utc>) -> Result<Change> {
    let mut draft = Draft::of(Rpc::EraseProfile, &request, now);
    let pb::EraseProfileRequest { id, reason_code, ticket, etag, even_if_locked, request_id, validate_only } = request;
    let target = Target::Id(draft.input.id("id", &id));
    let reason_code = draft.input.judge("reason_code", convert::reason_code_in(reason_code));
    draft.audit = AuditNote {
        reason: Some(reason_code.to_value()),
        ticket: draft.input.optional("ticket", &ticket, value::identifier),
    };
    draft.etag = draft.input.optional("etag", &etag, value::etag);
    draft.edit = Edit::Erase(Erasing { reason_code, even_if_locked, erase_time: None });
    draft.finish(target, &request_id, validate_only)
}

/// AddIdentifier: what another system calls the person.
pub fn add_identifier(request: pb::AddIdentifierRequest, now: DateTime<Utc>) -> Result<Change> {
    let mut draft = Draft::of(Rpc::AddIdentifier, &request, now);
    let pb::AddIdentifierRequest { profile_id, identifier, etag, request_id, validate_only } = request;
    let (target, identifier) = draft.identifier(&profile_id, identifier, &etag);
    draft.edit = Edit::Set { columns: Vec::new(), identifiers: vec![identifier] };
    draft.finish(target, &request_id, validate_only)
}

/// RemoveIdentifier: what another system no longer calls the person.
pub fn remove_identifier(request: pb::RemoveIdentifierRequest, now: DateTime<Utc>) -> Result<Change> {
    let mut draft = Draft::of(Rpc::RemoveIdentifier, &request, now);
    let pb::RemoveIdentifierRequest { profile_id, identifier, etag, request_id, validate_only } = request;
    let (target, identifier) = draft.identifier(&profile_id, identifier, &etag);
    draft.edit = Edit::Remove(identifier);
    draft.finish(target, &request_id, validate_only)
}

/// A line of an import: the fields that the mask names, and identifiers to add. `line` is kept in the history.
pub fn import(
    mut profile: pb::Profile,
    mask: &Mask,
    target: Target,
    line: String,
    now: DateTime<Utc>,
) -> Result<Change> {
    let mut draft = Draft::of(Rpc::Import, &profile, now);
    let identifiers = take(&mut profile.identifiers);
    draft.columns("", convert::columns(profile, mask), "");
    draft.identifiers("identifiers", identifiers);
    draft.audit.reason = Some(line);
    draft.finish(target, "", false)
}

/// ReportCaseStatus: how a case stands. Reports are repeatable by themselves.
pub fn report(request: pb::ReportCaseStatusRequest, now: DateTime<Utc>, organization: Uuid) -> Result<Change> {
    let mut draft = Draft::of(Rpc::ReportCaseStatus, &request, now);
    let pb::ReportCaseStatusRequest { case_id, profile_id, status, status_time } = request;
    let input = &mut draft.input;
    let case = profile_case::Model {
        organization_id: organization,
        case_id: input.required("case_id", &case_id, value::identifier),
        profile_id: input.id("profile_id", &profile_id),
        status: input.judge("status", convert::status_in(status)),
        status_time: input.judge("status_time", status_time_in(status_time, now)),
    };
    let target = Target::Id(case.profile_id);
    draft.edit = Edit::Case(case);
    draft.finish(target, "", false)
}

fn status_time_in(time: Option<Timestamp>, now: DateTime<Utc>) -> Result<DateTime<Utc>, Rule> {
    let time = convert::time(time.ok_or(Rule::Required)?)?;
    if time > now + CLOCK_SKEW { Err(Rule::TimeAhead) } else { Ok(time) }
}

/// A change while its request is judged.
struct Draft {
    rpc: Rpc,
    now: DateTime<Utc>,
    /// The hash of the request as it was understood: what its request id stands for.
    payload_sha256: Vec<u8>,
    input: Input,
    edit: Edit,
    etag: Option<String>,
    audit: AuditNote,
}

impl Draft {
    fn of(rpc: Rpc, request: &impl Message, now: DateTime<Utc>) -> Self {
        Self {
            rpc,
            now,
            payload_sha256: Sha256::digest(request.encode_to_vec()).to_vec(),
            input: Input::without_metadata(),
            edit: Edit::Set { columns: Vec::new(), identifiers: Vec::new() },
            etag: None,
            audit: AuditNote::default(),
        }
    }

    /// Sets the columns of a profile's message under this mask, if its etag is current.
    fn profile(&mut self, field: &str, profile: pb::Profile, mask: &Mask) {
        let etag = profile.etag.clone();
        self.columns(&format!("{field}."), convert::columns(profile, mask), &etag);
    }

    /// Sets these columns if the etag, where one is sent, is current. Violations name their fields after this prefix.
    fn columns(&mut self, prefix: &str, sent: Vec<(Column, String)>, etag: &str) {
        self.etag = self.input.optional(&format!("{prefix}etag"), etag, value::etag);
        let columns = self.input.columns(prefix, sent, self.now);
        self.edit = Edit::Set { columns, identifiers: Vec::new() };
    }

    /// Adds identifiers to what is set.
    fn identifiers(&mut self, field: &str, sent: Vec<pb::Identifier>) {
        let sent: Vec<_> = sent.into_iter().map(convert::pair).collect();
        let judged = self.input.identifiers(field, &sent);
        if let Edit::Set { columns: _, identifiers } = &mut self.edit {
            *identifiers = judged;
        }
    }

    /// Whose identifier it is, and which, if the etag, where one is sent, is current.
    fn identifier(&mut self, id: &str, sent: Option<pb::Identifier>, etag: &str) -> (Target, Identifier) {
        let target = Target::Id(self.input.id("profile_id", id));
        let (system, value) = convert::pair(sent.unwrap_or_default());
        let identifier = self.input.identifier("identifier.", &system, &value);
        self.etag = self.input.optional("etag", etag, value::etag);
        (target, identifier)
    }

    /// Keeps why support changes something: a reason of at most 500 characters, and perhaps a ticket.
    fn audit(&mut self, reason: &str, ticket: &str) {
        self.audit = AuditNote {
            reason: Some(self.input.required("reason", reason, value::lines::<500>)),
            ticket: self.input.optional("ticket", ticket, value::identifier),
        };
    }

    /// The change, unless a value broke its rule. A validation checks the request id's form alone and claims nothing.
    fn finish(mut self, target: Target, request_id: &str, validate_only: bool) -> Result<Change> {
        let request_id = self.input.optional("request_id", request_id, value::identifier).filter(|_| !validate_only);
        let Self { rpc, now: _, payload_sha256, input, edit, etag, audit } = self;
        let claim = request_id.map(|request_id| Claim { request_id, payload_sha256 });
        input.finish(Change { rpc, target, edit, etag, claim, validate_only, audit })
    }
}
