//! `serve`.

use std::{io, net::SocketAddr};

use clap::Args;
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use super::{Failure, database::DatabaseArgs, key, organization};
use crate::{
    read::Batches,
    scope::Scope,
    server::{Drained, Limits, Server, files},
    store::Store,
};

/// The organization and the key of a first start on the embedded database.
const DEMO: &str = "demo";

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// How to serve.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The address to listen on; port 0 takes a free one, which the log tells.
    #[arg(long, env = "PROFILE_LISTEN", default_value = "127.0.0.1:50051")]
    listen: SocketAddr,

    #[command(flatten)]
    database: DatabaseArgs,

    /// Calls in flight at the most; the next one is refused with OVERLOADED. Health is exempt.
    #[arg(long, env = "PROFILE_MAX_IN_FLIGHT", default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..))]
    max_in_flight: u16,

    /// Connections at the most, as far as open files allow; the next one is closed at once.
    #[arg(long, env = "PROFILE_MAX_CONNECTIONS", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..))]
    max_connections: u16,

    /// The age at which a connection is ended once its calls are, a tenth more or less, such as 5m.
    #[arg(long, env = "PROFILE_MAX_CONNECTION_AGE", default_value = "5m")]
    max_connection_age: humantime::Duration,

    /// How long calls in flight may take to end after SIGTERM or Ctrl-C, such as 10s.
    #[arg(long, env = "PROFILE_DRAIN_TIMEOUT", default_value = "10s")]
    drain_timeout: humantime::Duration,
}

/// Serves until SIGTERM or Ctrl-C, then drains. A second signal ends the program at once.
pub async fn run(args: ServeArgs) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))?;
    let connections = files::connections(args.max_connections.into(), args.database.connections());
    let connections = connections.map_err(Failure::failed)?;
    let listener = listen(args.listen);
    let listener = listener.map_err(|error| Failure::failed(format!("cannot listen on {}: {error}", args.listen)))?;
    let address =
        listener.local_addr().map_err(|error| Failure::failed(format!("the port has no address: {error}")))?;
    let opening = async {
        let store = args.database.open().await?;
        if args.database.is_default() {
            greet(&store, address).await?;
        }
        Ok::<_, Failure>(store)
    };
    let store = tokio::select! {
        store = opening => store?,
        () = signals.next() => return Err(Failure::failed("stopped by a signal before it served")),
    };

    let stop = CancellationToken::new();
    let limits = Limits {
        in_flight: args.max_in_flight.into(),
        reads: Batches::default(),
        connections,
        connection_age: *args.max_connection_age,
        drain: *args.drain_timeout,
    };
    let serving = Server::new(listener, store, limits).run(stop.clone());
    tracing::info!(%address, version = super::VERSION, "listening");
    tokio::select! {
        ended = serving => match ended {
            Ok(Drained::Whole) => tracing::info!("drained"),
            Ok(Drained::Cut) => tracing::warn!("the drain deadline cut calls off"),
            Err(error) => return Err(Failure::failed(format!("serving failed: {error}"))),
        },
        () = signals.twice(&stop) => return Err(Failure::failed("stopped at once by a second signal")),
    }
    Ok(())
}

/// Listens with a queue that a burst of connections does not overflow.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The first start on the embedded database makes an organization and a key, and shows how to use them.
async fn greet(store: &Store, address: SocketAddr) -> Result<(), Failure> {
    if !crate::store::organization::list(store.reader()).await?.is_empty() {
        return Ok(());
    }
    if let Some(organization) = organization::create(store, DEMO).await? {
        let key = key::create(store, organization, DEMO.to_owned(), &Scope::ALL, None).await?;
        println!("First start: here is the organization {DEMO:?} with a key, which is shown only now:\n");
        println!("  {key}\n\nTry it:\n");
        println!("  grpcurl -plaintext -H 'cv-api-key: {key}' \\");
        println!("    -d '{{\"profile\": {{\"first_name\": \"John\", \"last_name\": \"Doe\"}}}}' \\");
        println!("    {address} profiles.v1.ProfileService/CreateProfile\n");
    }
    Ok(())
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Cancels the token at the first signal and ends at the second.
    async fn twice(&mut self, stop: &CancellationToken) {
        self.next().await;
        stop.cancel();
        self.next().await;
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
