//! ProfileQueryService.

use futures_util::stream::Empty;
use tonic::{Request, Response, Status};

use super::{
    Api,
    pb::{self, profile_query_service_server::ProfileQueryService},
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

    type WatchProfilesStream = Empty<Result<pb::WatchProfilesResponse, Status>>;

    async fn watch_profiles(
        &self,
        _request: Request<pb::WatchProfilesRequest>,
    ) -> Result<Response<Self::WatchProfilesStream>, Status> {
        Err(Error::NotServed.into())
    }
}
