//! ProfileIdentifierService.

use tonic::{Request, Response, Status};

use super::{
    Api,
    pb::{self, profile_identifier_service_server::ProfileIdentifierService},
};
use crate::error::Error;

#[tonic::async_trait]
impl ProfileIdentifierService for Api {
    async fn add_identifier(
        &self,
        _request: Request<pb::AddIdentifierRequest>,
    ) -> Result<Response<pb::Profile>, Status> {
        Err(Error::NotServed.into())
    }

    async fn remove_identifier(
        &self,
        _request: Request<pb::RemoveIdentifierRequest>,
    ) -> Result<Response<pb::Profile>, Status> {
        Err(Error::NotServed.into())
    }
}
