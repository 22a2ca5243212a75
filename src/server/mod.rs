//! The server: built once, then it serves until it is told to stop.

mod health;
mod layers;
mod sweep;

use std::{pin::pin, sync::Arc, time::Duration};

use axum::middleware::from_fn_with_state;
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    service::Routes,
    transport::server::{Server as Transport, TcpIncoming},
};
use tonic_reflection::server as reflection;
use tower_http::catch_panic::CatchPanicLayer;

use self::{health::Health, layers::Gate};
use crate::{
    grpc::{
        Api,
        pb::{
            self, case_service_server::CaseServiceServer, profile_service_server::ProfileServiceServer,
            support_service_server::SupportServiceServer,
        },
    },
    keys::Keys,
    store::Store,
    write::Writer,
};

/// The largest message that is read, in bytes.
const LARGEST_MESSAGE: usize = 64 * 1024;

/// Calls at once on one connection.
const STREAMS: u32 = 100;

/// The largest list of headers that is read, in bytes.
const LARGEST_HEADERS: u32 = 16 * 1024;

/// Why reading the compiled descriptors cannot fail.
const DESCRIPTORS_ARE_OURS: &str = "build.rs has written the descriptors";

/// A server that is bound to its port and connected to its database.
pub struct Server {
    listener: TcpListener,
    store: Store,
    max_in_flight: usize,
}

/// How a server came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every call in flight was answered.
    Whole,
    /// The deadline cut some off.
    Cut,
}

impl Server {
    pub const fn new(listener: TcpListener, store: Store, max_in_flight: usize) -> Self {
        Self { listener, store, max_in_flight }
    }

    /// Serves until `stop` is cancelled, then drains: no new connection, NOT_SERVING, every call answered, for at most
    /// `patience`.
    pub async fn run(self, stop: CancellationToken, patience: Duration) -> Result<Drained, tonic::transport::Error> {
        let tasks = TaskTracker::new();
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let health = Health::not_serving(reporter).await;
        health.watch(self.store.clone(), &tasks, stop.clone());
        sweep::start(self.store.clone(), &tasks, stop.clone());

        let writer = Writer::new(self.store.clone(), tasks.clone());
        let api = Arc::new(Api::new(self.store.clone(), writer));
        let gate = Gate {
            keys: Keys::new(self.store.clone(), tasks.clone()),
            places: Arc::new(Semaphore::new(self.max_in_flight)),
        };
        let services = Routes::new(health_service)
            .add_service(reflection().build_v1().expect(DESCRIPTORS_ARE_OURS))
            .add_service(reflection().build_v1alpha().expect(DESCRIPTORS_ARE_OURS))
            .add_service(ProfileServiceServer::from_arc(Arc::clone(&api)).max_decoding_message_size(LARGEST_MESSAGE))
            .add_service(CaseServiceServer::from_arc(Arc::clone(&api)).max_decoding_message_size(LARGEST_MESSAGE))
            .add_service(SupportServiceServer::from_arc(api).max_decoding_message_size(LARGEST_MESSAGE))
            .into_axum_router()
            .layer(CatchPanicLayer::custom(layers::panicked))
            .layer(from_fn_with_state(gate, layers::call));
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        let serving = Transport::builder()
            .max_concurrent_streams(STREAMS)
            .http2_max_header_list_size(LARGEST_HEADERS)
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .add_routes(Routes::from(services))
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());

        let mut serving = pin!(serving);
        let ended = tokio::select! {
            ended = &mut serving => Some(ended),
            () = stop.cancelled() => None,
        };
        tracing::info!("draining");
        health.end().await;
        let drained = timeout(patience, async {
            match ended {
                Some(ended) => ended?,
                None => serving.await?,
            }
            tasks.close();
            tasks.wait().await;
            Ok(Drained::Whole)
        });
        let drained = drained.await.unwrap_or(Ok(Drained::Cut));
        self.store.close().await;
        drained
    }
}

fn reflection() -> reflection::Builder<'static> {
    reflection::Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
