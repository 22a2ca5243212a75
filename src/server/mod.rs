//! The server: built once, then it serves until it is told to stop.

mod answer;
mod deadline;
pub mod files;
mod health;
mod keys;
mod layers;
mod line;
mod listen;
mod message;
mod peer;
mod sweep;

use std::{pin::pin, sync::Arc, time::Duration};

use axum::middleware::from_fn_with_state;
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{service::Routes, transport::server::Server as Transport};
use tonic_reflection::server as reflection;
use tower_http::catch_panic::CatchPanicLayer;

use self::{
    health::Health,
    keys::Keys,
    layers::{Admission, LARGEST_MESSAGE, LARGEST_QUESTION},
};
use crate::{
    grpc::{
        Api,
        pb::{
            self,
            case_service_server::CaseServiceServer,
            key_service_server::KeyServiceServer,
            profile_identifier_service_server::ProfileIdentifierServiceServer,
            profile_query_service_server::ProfileQueryServiceServer,
            profile_service_server::{ProfileService, ProfileServiceServer},
            support_service_server::SupportServiceServer,
        },
    },
    read::{Batches, Profiles, feed::Feed},
    store::Store,
    write::{Writer, sequencer},
};

/// Calls at once on one connection.
const STREAMS: u32 = 100;

/// What a peer may send on a stream before anyone reads it, in bytes.
const WINDOW: u32 = 64 * 1024;

/// The same on all streams of its connection. h2 ends a connection of which more than half of it is taken up by short
/// frames, at 256 bytes each: those of calls that were cancelled count too, until they have been taken on.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// The largest list of headers that is read, in bytes.
const LARGEST_HEADERS: u32 = 16 * 1024;

/// Calls of a connection that may have been cancelled before they were taken on: one more ends it. Callers who give up
/// early make many hundreds of them while a busy machine does something else. Each keeps 0.6 KB until the connection ends.
const MOST_CANCELLED: usize = 4000;

/// How often a silent peer is asked whether it lives, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Why reading the compiled descriptors cannot fail.
const DESCRIPTORS_ARE_OURS: &str = "build.rs has written the descriptors";

/// How much the server takes on, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls in flight.
    pub in_flight: usize,
    /// Queries for profiles.
    pub reads: Batches,
    /// Connections.
    pub connections: usize,
    /// The age at which a connection is ended once its calls are, so that balancers spread the load anew; a tenth more
    /// or less, so that replicas that start at once do not end theirs at once.
    pub connection_age: Duration,
    /// How long a drain may take.
    pub drain: Duration,
}

/// A server that is bound to its port, on one address or several, and connected to its database.
pub struct Server {
    listeners: Vec<TcpListener>,
    store: Store,
    limits: Limits,
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
    #[must_use]
    pub const fn new(listeners: Vec<TcpListener>, store: Store, limits: Limits) -> Self {
        Self { listeners, store, limits }
    }

    /// Serves until `stop` is cancelled, then drains: no new connection, NOT_SERVING, every call in flight answered.
    ///
    /// # Errors
    ///
    /// Fails where connections can no longer be served.
    pub async fn run(self, stop: CancellationToken) -> Result<Drained, tonic::transport::Error> {
        self.serve(|api| api, stop).await
    }

    /// As [`Server::run`], with other handlers of `ProfileService`: a benchmark measures what is around them.
    ///
    /// # Errors
    ///
    /// As [`Server::run`].
    pub async fn run_with(
        self,
        handlers: impl ProfileService,
        stop: CancellationToken,
    ) -> Result<Drained, tonic::transport::Error> {
        self.serve(|_| Arc::new(handlers), stop).await
    }

    async fn serve<P: ProfileService>(
        self,
        handlers: impl FnOnce(Arc<Api>) -> Arc<P>,
        stop: CancellationToken,
    ) -> Result<Drained, tonic::transport::Error> {
        let Self { listeners, store, limits } = self;
        let tasks = TaskTracker::new();
        let (reporter, health_service) = tonic_health::server::health_reporter();
        Health::not_serving(reporter).await.watch(store.clone(), &tasks, stop.clone());
        sweep::start(store.clone(), &tasks, stop.clone());

        let profiles = Profiles::new(&store, limits.reads);
        let (feed, saved) = (Feed::new(&store), Arc::default());
        let writer = Writer::new(&store, &saved, &tasks);
        sequencer::start(store.clone(), feed.heads().clone(), saved, &tasks, stop.clone());
        let api = Arc::new(Api::new(store.clone(), profiles, feed, writer));
        let profile_service = ProfileServiceServer::from_arc(handlers(Arc::clone(&api)));
        let admission = Admission {
            keys: Keys::new(store.clone(), tasks.clone()),
            permits: Arc::new(Semaphore::new(limits.in_flight)),
            stop: stop.clone(),
            backlog: Arc::default(),
        };
        let services = Routes::new(health_service.max_decoding_message_size(LARGEST_QUESTION))
            .add_service(
                reflection().build_v1().expect(DESCRIPTORS_ARE_OURS).max_decoding_message_size(LARGEST_QUESTION),
            )
            .add_service(
                reflection().build_v1alpha().expect(DESCRIPTORS_ARE_OURS).max_decoding_message_size(LARGEST_QUESTION),
            )
            .add_service(profile_service.max_decoding_message_size(LARGEST_MESSAGE))
            .add_service(CaseServiceServer::from_arc(Arc::clone(&api)).max_decoding_message_size(LARGEST_MESSAGE))
            .add_service(SupportServiceServer::from_arc(Arc::clone(&api)).max_decoding_message_size(LARGEST_MESSAGE))
            .add_service(
                ProfileQueryServiceServer::from_arc(Arc::clone(&api)).max_decoding_message_size(LARGEST_MESSAGE),
            )
            .add_service(
                ProfileIdentifierServiceServer::from_arc(Arc::clone(&api)).max_decoding_message_size(LARGEST_MESSAGE),
            )
            .add_service(KeyServiceServer::from_arc(api).max_decoding_message_size(LARGEST_MESSAGE))
            .into_axum_router()
            .layer(CatchPanicLayer::custom(layers::panicked))
            .layer(from_fn_with_state(Arc::new(admission), layers::call));
        let connections = listen::accept(listeners, limits.connections, limits.connection_age.mul_f64(1.1), &stop);
        let serving = Transport::builder()
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_max_header_list_size(LARGEST_HEADERS)
            .http2_max_pending_accept_reset_streams(Some(MOST_CANCELLED))
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .max_connection_age(limits.connection_age.mul_f64(rand::random_range(0.9..=1.1)))
            .add_routes(Routes::from(services))
            .serve_with_incoming_shutdown(connections, stop.clone().cancelled_owned());

        let mut serving = pin!(serving);
        let ended = tokio::select! {
            ended = &mut serving => Some(ended),
            () = stop.cancelled() => None,
        };
        tracing::info!("draining");
        let drain = async {
            match ended {
                Some(ended) => ended?,
                None => serving.await?,
            }
            tasks.close();
            tasks.wait().await;
            store.close().await;
            Ok(Drained::Whole)
        };
        timeout(limits.drain, drain).await.unwrap_or(Ok(Drained::Cut))
    }
}

fn reflection() -> reflection::Builder<'static> {
    reflection::Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
