//! ProfileQueryService.

use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use tonic::{Request, Response, Status};

use super::{
    Api, auth,
    pb::{self, profile_query_service_server::ProfileQueryService},
    stream::StreamEnd,
    watch::Watch,
};
use crate::error::Error;

#[tonic::async_trait]
impl ProfileQueryService for Api {
    async fn batch_get_profiles(
        &self,
        _request: Request<pb::BatchGetProfilesRequest>,
    ) -> Result<Response<pb::BatchGetProfilesResponse>, Status> {
        Err(Error::NotServed.into())
    }

    async fn look_up_profile(
        &self,
        _request: Request<pb::LookUpProfileRequest>,
    ) -> Result<Response<pb::Profile>, Status> {
        Err(Error::NotServed.into())
    }

    async fn list_profiles(
        &self,
        _request: Request<pb::ListProfilesRequest>,
    ) -> Result<Response<pb::ListProfilesResponse>, Status> {
        Err(Error::NotServed.into())
    }

    async fn count_profiles(
        &self,
        _request: Request<pb::CountProfilesRequest>,
    ) -> Result<Response<pb::CountProfilesResponse>, Status> {
        Err(Error::NotServed.into())
    }

    type WatchProfilesStream = BoxStream<'static, Result<pb::WatchProfilesResponse, Status>>;

    async fn watch_profiles(
        &self,
        request: Request<pb::WatchProfilesRequest>,
    ) -> Result<Response<Self::WatchProfilesStream>, Status> {
        let author = auth::author(&request)?;
        let StreamEnd(end) = auth::extension(&request)?;
        let watch = Watch::begin(self.feed.clone(), author.organization_id, request.into_inner(), end).await?;
        Ok(Response::new(watch.messages().map_err(Status::from).boxed()))
    }
}
