//! A collector of traces that takes all and keeps nothing.

use std::error::Error;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tokio::{net::TcpListener, runtime, signal::unix};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

struct Collector;

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        _spans: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Serves on a free port, which the log tells, until SIGTERM.
pub fn run() -> Result<(), Box<dyn Error>> {
    let _log = profile_service::start_logging();
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut terminate = unix::signal(unix::SignalKind::terminate())?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        tracing::info!(address = %listener.local_addr()?, "listening");
        let stop = async {
            terminate.recv().await;
        };
        let server = Server::builder().add_service(TraceServiceServer::new(Collector));
        Ok(server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop).await?)
    })
}
