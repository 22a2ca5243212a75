//! ProfileQueryService.

use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{
    Api, auth, page,
    pb::{
        self, find_profile_request::By, look_up_profile_request::By as LookUpBy,
        profile_query_service_server::ProfileQueryService,
    },
    stream::StreamEnd,
    watch::Watch,
};
use crate::{
    clock,
    error::{Error, Result},
    metrics::METRICS,
    profile::fields::Input,
    read::{self, Filter, Position},
    telemetry,
    value::{self, Rule},
};

/// How many profiles a batch has at the most.
const LARGEST_BATCH: usize = 100;

/// How many profiles are counted.
const LARGEST_COUNT: i32 = 10_000;

#[tonic::async_trait]
impl ProfileQueryService for Api {
    async fn batch_get_profiles(
        &self,
        request: Request<pb::BatchGetProfilesRequest>,
    ) -> Result<Response<pb::BatchGetProfilesResponse>, Status> {
        let author = auth::author(&request)?;
        let input = auth::input(&request);
        let ids = batch(input, request.into_inner())?;
        let (profiles, missing) = read::profiles(&self.store, author.organization_id, &ids).await?;
        let profiles: Vec<_> = profiles.into_iter().map(pb::Profile::from).collect();
        telemetry::note_profiles(profiles.iter().map(|profile| profile.id.as_str()));
        METRICS.not_found.by_id.inc_by(missing.len() as u64);
        let missing_ids = missing.iter().map(Uuid::to_string).collect();
        Ok(Response::new(pb::BatchGetProfilesResponse { profiles, missing_ids }))
    }

    async fn look_up_profile(
        &self,
        request: Request<pb::LookUpProfileRequest>,
    ) -> Result<Response<pb::Profile>, Status> {
        let author = auth::author(&request)?;
        let input = auth::input(&request);
        Ok(self.find(author.organization_id, input, request.into_inner().by.map(By::from)).await?)
    }

    async fn list_profiles(
        &self,
        request: Request<pb::ListProfilesRequest>,
    ) -> Result<Response<pb::ListProfilesResponse>, Status> {
        let (organization, input) = (auth::author(&request)?.organization_id, auth::input(&request));
        let List { size, filter, page_token } = List::parse(input, request.into_inner())?;
        let list = name_of(organization, &filter);
        let after = self
            .tokens
            .open(&self.store, &list, &page_token)
            .await?
            .map(|position| position_in(&position))
            .transpose()?;
        let rows = read::list(&self.store, organization, &filter, after, size + 1).await?;
        let (rows, names): (Vec<_>, Vec<_>) = rows.into_iter().map(|row| (row.profile, row.sort_name)).unzip();
        let (profiles, more) = page::fill(rows.into_iter().map(|row| Ok(pb::Profile::from(row))), size)?;
        telemetry::note_profiles(profiles.iter().map(|profile| profile.id.as_str()));
        let next_page_token = match profiles.last().filter(|_| more) {
            Some(profile) => {
                let position = position_out(profile, &names[profiles.len() - 1]);
                self.tokens.seal(&self.store, &list, &position).await?
            }
            None => String::new(),
        };
        Ok(Response::new(pb::ListProfilesResponse { profiles, next_page_token }))
    }

    async fn count_profiles(
        &self,
        request: Request<pb::CountProfilesRequest>,
    ) -> Result<Response<pb::CountProfilesResponse>, Status> {
        let (author, input) = (auth::author(&request)?, auth::input(&request));
        let pb::CountProfilesRequest { name_prefix, dob } = request.into_inner();
        let filter = filter(input, &name_prefix, &dob)?;
        let (count, truncated) = read::count(&self.store, author.organization_id, &filter, LARGEST_COUNT).await?;
        Ok(Response::new(pb::CountProfilesResponse { count, truncated }))
    }

    type WatchProfilesStream = BoxStream<'static, Result<pb::WatchProfilesResponse, Status>>;

    async fn watch_profiles(
        &self,
        request: Request<pb::WatchProfilesRequest>,
    ) -> Result<Response<Self::WatchProfilesStream>, Status> {
        let author = auth::author(&request)?;
        let (StreamEnd(end), input) = (auth::extension(&request)?, auth::input(&request));
        let watch = Watch::begin(self.feed.clone(), author.organization_id, input, request.into_inner(), end).await?;
        Ok(Response::new(watch.messages().map_err(Status::from).boxed()))
    }
}

impl From<LookUpBy> for By {
    fn from(by: LookUpBy) -> Self {
        match by {
            LookUpBy::Email(email) => Self::Email(email),
            LookUpBy::PhoneNumber(number) => Self::PhoneNumber(number),
            LookUpBy::Identifier(identifier) => Self::Identifier(identifier),
        }
    }
}

/// The ids of a batch.
pub fn batch(mut input: Input, request: pb::BatchGetProfilesRequest) -> Result<Vec<Uuid>> {
    let pb::BatchGetProfilesRequest { ids } = request;
    input.judge(
        "ids",
        match ids.len() {
            0 => Err(Rule::Required),
            1..=LARGEST_BATCH => Ok(()),
            _ => Err(Rule::TooMany(LARGEST_BATCH)),
        },
    );
    let ids = ids.iter().enumerate().map(|(n, id)| input.id(&format!("ids[{n}]"), id)).collect();
    input.finish(ids)
}

/// Which profiles are listed.
pub struct List {
    size: u64,
    filter: Filter,
    page_token: String,
}

impl List {
    pub fn parse(mut input: Input, request: pb::ListProfilesRequest) -> Result<Self> {
        let pb::ListProfilesRequest { page_size, page_token, name_prefix, dob } = request;
        let size = page::size(&mut input, page_size);
        Ok(Self { size, filter: filter(input, &name_prefix, &dob)?, page_token })
    }
}

/// Whom a list has.
pub fn filter(mut input: Input, name_prefix: &str, dob: &str) -> Result<Filter> {
    let name = input.optional("name_prefix", name_prefix, value::line::<200>).unwrap_or_default();
    let dob = input.optional("dob", dob, value::date_of_birth(clock::now()));
    input.finish(Filter { name: value::fold(&name), dob })
}

/// What a page token is bound to. The name comes last: nothing else has line breaks.
fn name_of(organization: Uuid, filter: &Filter) -> String {
    let Filter { name, dob } = filter;
    let dob = dob.map(|dob| dob.to_string()).unwrap_or_default();
    format!("ListProfiles\n{organization}\n{dob}\n{name}")
}

/// Where the next page begins: after this profile, whose folded name was stored so.
fn position_out(profile: &pb::Profile, sort_name: &str) -> String {
    format!("{} {sort_name}", profile.id)
}

/// The position in a page token.
pub fn position_in(position: &str) -> Result<Position> {
    let (id, sort_name) = position.split_once(' ').ok_or(Error::InvalidPageToken)?;
    let id = Uuid::try_parse(id).map_err(|_| Error::InvalidPageToken)?;
    Ok(Position { sort_name: sort_name.to_owned(), id })
}
