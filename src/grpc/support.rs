//! SupportService.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{
    Api, answer, auth, change, convert,
    export::Export,
    page,
    pb::{self, find_profile_request::By, support_service_server::SupportService},
};
use crate::{
    entity::erasure,
    error::{Error, Result},
    profile::{change::Written, fields::Input},
    read::{self, Contact},
    telemetry,
    value::{self, Rule},
};

#[tonic::async_trait]
impl SupportService for Api {
    async fn correct_profile(
        &self,
        request: Request<pb::CorrectProfileRequest>,
    ) -> Result<Response<pb::Profile>, Status> {
        Ok(self.write_profile(request, |request, now, _| change::correct(request, now)).await?)
    }

    async fn set_profile_role(
        &self,
        request: Request<pb::SetProfileRoleRequest>,
    ) -> Result<Response<pb::Profile>, Status> {
        Ok(self.write_profile(request, |request, now, _| change::set_role(request, now)).await?)
    }

    async fn find_profile(&self, request: Request<pb::FindProfileRequest>) -> Result<Response<pb::Profile>, Status> {
        let author = auth::author(&request)?;
        let input = auth::input(&request);
        Ok(self.find(author.organization_id, input, request.into_inner().by).await?)
    }

    async fn list_profile_changes(
        &self,
        request: Request<pb::ListProfileChangesRequest>,
    ) -> Result<Response<pb::ListProfileChangesResponse>, Status> {
        let author = auth::author(&request)?;
        let Page { id, below, size } = Page::parse(auth::input(&request), request.into_inner())?;
        telemetry::note_profile(id);
        let rows = read::changes(&self.store, &self.profiles, author.organization_id, id, below, size + 1).await?;
        let (changes, more) = page::fill(rows.into_iter().map(pb::ProfileChange::try_from), size)?;
        let next = changes.last().filter(|_| more).map(|change| page_token(id, change.revision));
        Ok(Response::new(pb::ListProfileChangesResponse { changes, next_page_token: next.unwrap_or_default() }))
    }

    async fn list_profile_cases(
        &self,
        request: Request<pb::ListProfileCasesRequest>,
    ) -> Result<Response<pb::ListProfileCasesResponse>, Status> {
        let (organization, input) = (auth::author(&request)?.organization_id, auth::input(&request));
        let Cases { id, size, page_token } = Cases::parse(input, request.into_inner())?;
        telemetry::note_profile(id);
        // Sealed: what a case system has put into its ids is not for the logs of others.
        let list = format!("ListProfileCases\n{organization}\n{id}");
        let after = self.tokens.open(&self.store, &list, &page_token).await?.unwrap_or_default();
        let rows = read::cases(&self.store, &self.profiles, organization, id, after, size + 1).await?;
        let (cases, more) = page::fill(rows.into_iter().map(|row| Ok(pb::ProfileCase::from(row))), size)?;
        let next_page_token = match cases.last().filter(|_| more).and_then(|shown| shown.case.as_ref()) {
            Some(case) => self.tokens.seal(&self.store, &list, &case.case_id).await?,
            None => String::new(),
        };
        Ok(Response::new(pb::ListProfileCasesResponse { cases, next_page_token }))
    }

    async fn erase_profile(
        &self,
        request: Request<pb::EraseProfileRequest>,
    ) -> Result<Response<pb::EraseProfileResponse>, Status> {
        let validate_only = request.get_ref().validate_only;
        match self.write(request, |request, now, _| change::erase(request, now)).await? {
            Written::Erasure(erasure::Model { profile_id, erase_time, .. }, _) => {
                let erase_time = (!validate_only).then(|| convert::timestamp(erase_time));
                Ok(Response::new(pb::EraseProfileResponse { id: profile_id.to_string(), erase_time }))
            }
            Written::Profile(_) | Written::Case(_) => Err(Error::Internal("nobody was erased".to_owned()).into()),
        }
    }

    type ExportProfileStream = BoxStream<'static, Result<pb::ExportProfileResponse, Status>>;

    async fn export_profile(
        &self,
        request: Request<pb::ExportProfileRequest>,
    ) -> Result<Response<Self::ExportProfileStream>, Status> {
        let (organization, mut input) = (auth::author(&request)?.organization_id, auth::input(&request));
        let id = input.id("id", &request.into_inner().id);
        let id = input.finish(id)?;
        telemetry::note_profile(id);
        let (store, profiles, turn) = (self.store.clone(), self.profiles.clone(), Arc::clone(&self.exports));
        let export = Export::begin(store, profiles, turn, organization, id).await?;
        Ok(Response::new(export.messages().map_err(Status::from).boxed()))
    }
}

impl Api {
    /// The organization's profile that a caller tells of.
    pub(super) async fn find(&self, organization: Uuid, input: Input, by: Option<By>) -> Result<Response<pb::Profile>> {
        let profile = read::profile_by(&self.store, &self.profiles, organization, contact(input, by)?).await?;
        telemetry::note_profile(profile.id);
        Ok(answer(profile))
    }
}

/// What the caller tells, in its stored form.
pub fn contact(mut input: Input, by: Option<By>) -> Result<Contact> {
    let contact = match by {
        Some(By::Email(email)) => Contact::Email(input.required("email", &email, value::email)),
        Some(By::PhoneNumber(number)) => {
            Contact::PhoneNumber(input.required("phone_number", &number, value::phone_number))
        }
        Some(By::Identifier(pb::Identifier { system, value })) => {
            Contact::Identifier(input.identifier("identifier.", &system, &value))
        }
        None => Contact::Email(input.judge("email", Err(Rule::AnyContact))),
    };
    input.finish(contact)
}

/// Which cases are asked for (AIP-158).
pub struct Cases {
    id: Uuid,
    size: u64,
    page_token: String,
}

impl Cases {
    pub fn parse(mut input: Input, request: pb::ListProfileCasesRequest) -> Result<Self> {
        let pb::ListProfileCasesRequest { id, page_size, page_token } = request;
        let (id, size) = (input.id("id", &id), page::size(&mut input, page_size));
        input.finish(Self { id, size, page_token })
    }
}

/// Which changes are asked for (AIP-158).
pub struct Page {
    id: Uuid,
    /// Only revisions below this one.
    below: i64,
    size: u64,
}

impl Page {
    pub fn parse(mut input: Input, request: pb::ListProfileChangesRequest) -> Result<Self> {
        let pb::ListProfileChangesRequest { id, page_size, page_token } = request;
        let id = input.id("id", &id);
        let size = page::size(&mut input, page_size);
        let page = input.finish(Self { id, below: i64::MAX, size })?;
        match &*value::clean(&page_token) {
            "" => Ok(page),
            token => Ok(Self { below: page_start(token, id)?, ..page }),
        }
    }
}

/// A token that is bound to its profile: the profile and the last revision shown.
pub fn page_token(profile: Uuid, revision: i64) -> String {
    hex::encode([profile.as_bytes().as_slice(), &revision.to_be_bytes()].concat())
}

/// The revision in a token of this profile.
pub fn page_start(token: &str, profile: Uuid) -> Result<i64> {
    let mut bytes = [0; 24];
    hex::decode_to_slice(token, &mut bytes).map_err(|_| Error::InvalidPageToken)?;
    let (id, revision) = bytes.split_first_chunk().ok_or(Error::InvalidPageToken)?;
    let revision = revision.try_into().map_err(|_| Error::InvalidPageToken)?;
    if Uuid::from_bytes(*id) == profile { Ok(i64::from_be_bytes(revision)) } else { Err(Error::InvalidPageToken) }
}
