//! KeyService.

use tonic::{Request, Response, Status};

use super::{
    Api, auth, convert,
    pb::{self, key_service_server::KeyService},
};
use crate::read::{self, CurrentKey};

#[tonic::async_trait]
impl KeyService for Api {
    async fn get_current_key(
        &self,
        request: Request<pb::GetCurrentKeyRequest>,
    ) -> Result<Response<pb::GetCurrentKeyResponse>, Status> {
        let author = auth::input(&request).finish(auth::author(&request)?)?;
        let CurrentKey { key, organization } = read::current_key(&self.store, &author.key_id).await?;
        Ok(Response::new(pb::GetCurrentKeyResponse {
            organization_id: organization.id.to_string(),
            organization_name: organization.name,
            key_id: key.id,
            key_name: key.name,
            scopes: key.scopes.split(' ').map(str::to_owned).collect(),
            expire_time: key.expires_at.map(convert::timestamp),
        }))
    }
}
