//! The server: built once, then it serves until it is told to stop.

mod answer;
mod calls;
mod certificate;
mod connection;
mod course;
pub mod deadline;
mod exposition;
pub mod files;
mod health;
mod keys;
pub mod layers;
mod line;
mod listen;
mod look_up;
mod message;
mod peer;
mod rate;
mod streams;
mod sweep;
mod task;
mod tls;
mod transport;
mod turns;

use std::{sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tonic_reflection::server as reflection;
use tower_http::catch_panic::CatchPanicLayer;

use self::{
    connection::Http,
    health::Health,
    keys::Keys,
    layers::{Admission, LARGEST_MESSAGE, LARGEST_QUESTION},
    streams::Streams,
};
pub use self::{
    exposition::Exposition,
    tls::{Tls, TlsClients, TlsExpiry, TlsFiles},
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
    metrics::{Reading, count},
    read::{Batches, Profiles, feed::Feed, followers::Followers},
    store::Store,
    trace::Tracing,
    write::{Writer, sequencer},
};

/// Why reading the compiled descriptors cannot fail.
const DESCRIPTORS_ARE_OURS: &str = "build.rs has written the descriptors";

/// How much the server takes on, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls in flight.
    pub in_flight: usize,
    /// Streams.
    pub streams: usize,
    /// Queries for profiles.
    pub reads: Batches,
    /// Connections.
    pub connections: usize,
    /// The age at which a connection is ended once its calls are, so that balancers spread the load anew; a tenth more
    /// or less.
    pub connection_age: Duration,
    /// How long a drain may take.
    pub drain: Duration,
}

/// A server that is bound to its port, on one address or several, and connected to its database.
pub struct Server {
    listeners: Vec<TcpListener>,
    tls: Option<Arc<Tls>>,
    store: Store,
    limits: Limits,
    exposition: Option<Arc<Exposition>>,
    tracing: Option<Arc<Tracing>>,
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
    /// Speaks plain text, until it is told of TLS.
    #[must_use]
    pub const fn new(listeners: Vec<TcpListener>, store: Store, limits: Limits) -> Self {
        Self { listeners, tls: None, store, limits, exposition: None, tracing: None }
    }

    /// With metrics that say how much of its limits it uses.
    #[must_use]
    pub fn exposing(mut self, exposition: Option<Arc<Exposition>>) -> Self {
        self.exposition = exposition;
        self
    }

    /// With traces of its calls.
    #[must_use]
    pub fn traced(mut self, tracing: Option<Arc<Tracing>>) -> Self {
        self.tracing = tracing;
        self
    }

    /// Speaks TLS, if there is some, and nothing else.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<Tls>>) -> Self {
        Self { tls, ..self }
    }

    /// Serves until `stop` is cancelled, then drains: no new connection, NOT_SERVING, every call in flight answered.
    pub async fn run(self, stop: CancellationToken) -> Drained {
        self.serve(|api| api, stop).await
    }

    /// As [`Server::run`], with other handlers of `ProfileService`: a benchmark measures what is around them.
    pub async fn run_with(self, handlers: impl ProfileService, stop: CancellationToken) -> Drained {
        self.serve(|_| Arc::new(handlers), stop).await
    }

    async fn serve<P: ProfileService>(
        self,
        handlers: impl FnOnce(Arc<Api>) -> Arc<P>,
        stop: CancellationToken,
    ) -> Drained {
        let Self { listeners, tls, store, limits, exposition, tracing } = self;
        let tasks = TaskTracker::new();
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let health = Health::not_serving(reporter).await;
        sweep::start(store.clone(), &tasks, stop.clone());
        if let Some(tls) = &tls {
            Arc::clone(tls).watch(&tasks, stop.clone());
        }

        let profiles = Profiles::new(&store, limits.reads);
        let (feed, saved) = (Feed::new(&store), Arc::default());
        let writer = Writer::new(&store, &saved, &tasks);
        sequencer::start(store.clone(), feed.heads().clone(), saved, &tasks, stop.clone());
        let followers = feed.followers().clone();
        let api = Arc::new(Api::new(store.clone(), profiles, feed, writer));
        let profile_service = ProfileServiceServer::from_arc(handlers(Arc::clone(&api)));
        let keys = Arc::new(Keys::new(store.clone(), tasks.clone()));
        let permits = Permits::new(limits);
        let streams = Arc::new(Streams::new(Arc::clone(&permits.streams), limits.streams));
        Arc::clone(&streams).watch(Arc::clone(&keys), &tasks, stop.clone());
        if let Some(exposition) = &exposition {
            exposition.add(|registry| {
                permits.register(registry, limits);
                register(registry, &store, followers);
                if let Some(tls) = &tls {
                    tls.register(registry);
                }
            });
        }
        health.watch(store.clone(), &tasks, stop.clone()); // who is ready has all metrics
        let handlers = Routes::new(health_service.max_decoding_message_size(LARGEST_QUESTION))
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
            .layer(CatchPanicLayer::custom(layers::panicked));
        let calls = Arc::new(Admission {
            keys,
            permits: Arc::clone(&permits.calls),
            streams,
            stop: stop.clone(),
            backlog: Arc::default(),
            tracing,
            handlers,
        });
        let age = limits.connection_age.mul_f64(1.1);
        let mut opened = listen::accept(listeners, tls.as_ref(), &permits.connections, age, &stop);
        let http = Http::new(calls, limits.connection_age, stop.clone());
        let connections = TaskTracker::new();
        while let Some(Some(connection)) = stop.run_until_cancelled(opened.recv()).await {
            connections.spawn(http.clone().serve(connection));
        }
        tracing::info!("draining");
        // The calls of a peer that has not been taken on are none: it is closed, and so are the ports.
        drop((opened, http));
        let drain = async {
            for ending in [connections, tasks] {
                ending.close();
                ending.wait().await;
            }
            store.close().await;
        };
        match timeout(limits.drain, drain).await {
            Ok(()) => Drained::Whole,
            Err(_) => Drained::Cut,
        }
    }
}

fn reflection() -> reflection::Builder<'static> {
    reflection::Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// What is limited, and how much of it is left.
struct Permits {
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl Permits {
    fn new(limits: Limits) -> Self {
        let permits = |number| Arc::new(Semaphore::new(number));
        let Limits { in_flight, streams, connections, .. } = limits;
        Self { calls: permits(in_flight), streams: permits(streams), connections: permits(connections) }
    }

    fn register(&self, registry: &mut Registry, limits: Limits) {
        let Self { calls, streams, connections } = self;
        let (mut in_use, mut all) = (Reading::gauges(), Reading::gauges());
        for (of, permits, limit) in [
            ("calls", calls, limits.in_flight),
            ("streams", streams, limits.streams),
            ("connections", connections, limits.connections),
        ] {
            let permits = Arc::clone(permits);
            in_use = in_use.with("of", of, move || count(limit.saturating_sub(permits.available_permits())));
            all = all.with("of", of, move || count(limit));
        }
        registry.register("permits_in_use", "Calls in flight, open streams and connections", in_use);
        registry.register("permits_limit", "How many of them there may be", all);
    }
}

/// What the pools of the database and those who follow the feed say of themselves.
fn register(registry: &mut Registry, store: &Store, followers: Followers) {
    let [mut in_use, mut open, mut all] = [Reading::gauges(), Reading::gauges(), Reading::gauges()];
    for pool in store.pools().into_iter().map(Arc::new) {
        let (name, [using, opened, most]) = (pool.name, [&pool; 3].map(Arc::clone));
        in_use = in_use.with("pool", name, move || count(using.in_use()));
        open = open.with("pool", name, move || count(opened.open()));
        all = all.with("pool", name, move || count(most.most()));
    }
    registry.register("database_connections_in_use", "Connections to the database that are in use", in_use);
    registry.register("database_connections_open", "Connections to the database", open);
    registry.register("database_connections_limit", "How many of them there may be", all);
    let all = followers.clone();
    registry.register("watchers", "Streams that follow the feed", Reading::gauge(move || count(all.number())));
    let lag = Reading::gauge(move || count(usize::try_from(followers.largest_lag()).ok()?));
    registry.register("watch_lag_changes", "Changes that the last of them has not been sent", lag);
}
