//! ProfileIdentifierService.

use tonic::{Request, Response, Status};

use super::{
    Api, change,
    pb::{self, profile_identifier_service_server::ProfileIdentifierService},
};

#[tonic::async_trait]
impl ProfileIdentifierService for Api {
    async fn add_identifier(
        &self,
        request: Request<pb::AddIdentifierRequest>,
    ) -> Result<Response<pb::Profile>, Status> {
        Ok(self.write_profile(request, |request, now, _| change::add_identifier(request, now)).await?)
    }

    async fn remove_identifier(
        &self,
        request: Request<pb::RemoveIdentifierRequest>,
    ) -> Result<Response<pb::Profile>, Status> {
        Ok(self.write_profile(request, |request, now, _| change::remove_identifier(request, now)).await?)
    }
}
