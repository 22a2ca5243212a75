//! ProfileIdentifierService.

use tonic::{Request, Response, Status};

use super::{
    Api, answer, change,
    pb::{self, profile_identifier_service_server::ProfileIdentifierService},
};

#[tonic::async_trait]
impl ProfileIdentifierService for Api {
    async fn add_identifier(
        &self,
        request: Request<pb::AddIdentifierRequest>,
    ) -> Result<Response<pb::Profile>, Status> {
        let added = self.write(request, |request, now, _| change::add_identifier(request, now)).await?;
        Ok(answer(added.profile))
    }

    async fn remove_identifier(
        &self,
        request: Request<pb::RemoveIdentifierRequest>,
    ) -> Result<Response<pb::Profile>, Status> {
        let removed = self.write(request, |request, now, _| change::remove_identifier(request, now)).await?;
        Ok(answer(removed.profile))
    }
}
