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
        let created = self.write(request, |request, now, _| change::create(request, now, clock::new_id())).await?;
        Ok(answer(created.profile))
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
        let replaced = self.write(request, |request, now, _| change::replace(request, now)).await?;
        Ok(answer(replaced.profile))
    }

    async fn patch_profile(&self, request: Request<pb::PatchProfileRequest>) -> Answer {
        let patched = self.write(request, |request, now, _| change::patch(request, now)).await?;
        Ok(answer(patched.profile))
    }

    async fn update_profile(&self, request: Request<pb::UpdateProfileRequest>) -> Answer {
        let updated = self.write(request, |request, now, _| change::update(request, now)).await?;
        Ok(answer(updated.profile))
    }
}
