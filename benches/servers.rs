//! What the service is compared with: servers of the same library, with the same layers around the handlers.

use std::{error::Error, net::SocketAddr};

use clap::{Args, ValueEnum};
use profile_service::{
    Batches, DatabaseUrl, Limits, Server, Store,
    pb::{self, profile_service_server::ProfileService},
};
use tokio::{net::TcpListener, signal::unix};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, metadata::MetadataValue};

/// Connections to PostgreSQL, as the service has them.
const CONNECTIONS: u32 = 16;

/// Queries at once of one profile each: keys have the rest of the connections.
const QUERIES: usize = 12;

#[derive(Args)]
pub struct ServeArgs {
    /// What is served.
    #[arg(long)]
    server: Kind,
    /// The database, whose schema and keys are there already.
    #[arg(long)]
    database_url: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// The service, with one query for each GetProfile.
    OneQueryACall,
    /// Every RPC of ProfileService answers the same profile: no server of this stack costs less.
    Floor,
}

/// Serves on a free port, which the log tells, until SIGTERM.
pub fn run(args: ServeArgs) -> Result<(), Box<dyn Error>> {
    let _log = profile_service::start_logging();
    tokio::runtime::Runtime::new()?.block_on(serve(args))
}

async fn serve(args: ServeArgs) -> Result<(), Box<dyn Error>> {
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let store = Store::connect(&DatabaseUrl::parse(&args.database_url.into())?, CONNECTIONS).await?;
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    let age = std::time::Duration::from_mins(5);
    let reads = Batches { queries: QUERIES, profiles: 1 };
    let limits = Limits { in_flight: 512, streams: 1, reads, connections: 1024, connection_age: age, drain: age };
    let server = Server::new(vec![listener], store, limits);
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        terminate.recv().await;
        stopping.cancel();
    });
    match args.server {
        Kind::OneQueryACall => server.run(stop).await,
        Kind::Floor => server.run_with(Floor(somebody()), stop).await,
    };
    Ok(())
}

struct Floor(pb::Profile);

impl Floor {
    fn answer(&self) -> Response<pb::Profile> {
        let mut response = Response::new(self.0.clone());
        response.metadata_mut().insert("etag", MetadataValue::from_static("\"1\""));
        response
    }
}

#[tonic::async_trait]
impl ProfileService for Floor {
    async fn create_profile(&self, _: Request<pb::CreateProfileRequest>) -> Result<Response<pb::Profile>, Status> {
        Ok(self.answer())
    }

    async fn get_profile(&self, _: Request<pb::GetProfileRequest>) -> Result<Response<pb::Profile>, Status> {
        Ok(self.answer())
    }

    async fn replace_profile(&self, _: Request<pb::ReplaceProfileRequest>) -> Result<Response<pb::Profile>, Status> {
        Ok(self.answer())
    }

    async fn patch_profile(&self, _: Request<pb::PatchProfileRequest>) -> Result<Response<pb::Profile>, Status> {
        Ok(self.answer())
    }

    async fn update_profile(&self, _: Request<pb::UpdateProfileRequest>) -> Result<Response<pb::Profile>, Status> {
        Ok(self.answer())
    }
}

/// The profile that the load creates, as an answer has it.
fn somebody() -> pb::Profile {
    let date = prost_types::Timestamp { seconds: 1_790_000_000, nanos: 123_456_000 };
    pb::Profile {
        id: "0190f8a4-0000-7000-8000-000000000000".to_owned(),
        created_date: Some(date),
        updated_date: Some(date),
        etag: "\"1\"".to_owned(),
        role: pb::profile::Role::User.into(),
        ..crate::load::somebody("new0@example.com", "+900000000000000")
    }
}
