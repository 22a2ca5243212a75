//! CaseService.

use tonic::{Request, Response, Status};

use super::{
    Api, change,
    pb::{self, case_service_server::CaseService},
};
use crate::error::Error;

#[tonic::async_trait]
impl CaseService for Api {
    async fn report_case_status(
        &self,
        request: Request<pb::ReportCaseStatusRequest>,
    ) -> Result<Response<pb::Case>, Status> {
        let reported = self.write(request, |request, now, author| change::report(request, now, author.organization_id));
        let case = reported.await?.case.ok_or_else(|| Error::Internal("a report left no case".to_owned()))?;
        Ok(Response::new(case.into()))
    }
}
