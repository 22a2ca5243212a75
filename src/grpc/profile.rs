//! ProfileService.

use tonic::{Request, Response, Status};

use super::{
    Api, answer, auth, change,
    pb::{self, profile_service_server::ProfileService},
};
use crate::{clock, read, telemetry};

type Answer = Result<Response<pb::Profile>, Status>;

#[tonic::async_trait]
impl ProfileService for Api {
    async fn create_profile(&self, request: Request<pb::CreateProfileRequest>) -> Answer {
        Ok(self.write_profile(request, |request, now, _| change::create(request, now, clock::new_id())).await?)
    }

    async fn get_profile(&self, request: Request<pb::GetProfileRequest>) -> Answer {
        let author = auth::author(&request)?;
        let mut input = auth::input(&request);
        let id = input.id("id", &request.into_inner().id);
        let id = input.finish(id)?;
        telemetry::note_profile(id);
        Ok(answer(read::profile(&self.profiles, author.organization_id, id).await?))
    }

    async fn replace_profile(&self, request: Request<pb::ReplaceProfileRequest>) -> Answer {
        Ok(self.write_profile(request, |request, now, _| change::replace(request, now)).await?)
    }

    async fn patch_profile(&self, request: Request<pb::PatchProfileRequest>) -> Answer {
        Ok(self.write_profile(request, |request, now, _| change::patch(request, now)).await?)
    }

    async fn update_profile(&self, request: Request<pb::UpdateProfileRequest>) -> Answer {
        Ok(self.write_profile(request, |request, now, _| change::update(request, now)).await?)
    }
}
