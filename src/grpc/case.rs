//! CaseService.

use tonic::{Request, Response, Status};

use super::{
    Api, change,
    pb::{self, case_service_server::CaseService},
};
use crate::{error::Error, profile::change::Written};

#[tonic::async_trait]
impl CaseService for Api {
    async fn report_case_status(
        &self,
        request: Request<pb::ReportCaseStatusRequest>,
    ) -> Result<Response<pb::Case>, Status> {
        let reported = self.write(request, |request, now, author| change::report(request, now, author.organization_id));
        match reported.await? {
            Written::Case(case) => Ok(Response::new(case.into())),
            Written::Profile(_) | Written::Erasure(..) => {
                Err(Error::Internal("a report left no case".to_owned()).into())
            }
        }
    }
}
