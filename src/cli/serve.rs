//! `serve`.

use std::{env, io, net::SocketAddr, sync::Arc, time::Duration};

use clap::Args;
use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio_util::sync::CancellationToken;

use super::{
    Failure,
    database::DatabaseArgs,
    duration,
    key::{self, Allowed},
    organization, print_and_commit,
    signals::Signals,
    tls::TlsArgs,
};
use crate::{
    clock,
    read::Batches,
    scope::Scope,
    server::{
        Drained, Exposition, Limits, Server,
        files::{self, OpenFiles},
    },
    store::{self, Store},
    trace::{Settings, Tracing},
};

/// The organization and the key of a first start on the embedded database.
const DEMO: &str = "demo";

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// How to serve.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The address to listen on, or a name, which may stand for several; port 0 takes a free one, which the log tells.
    #[arg(long, env = "PROFILE_LISTEN", default_value = "127.0.0.1:50051", value_parser = host_and_port)]
    listen: String,

    /// The address, or a name, of a second port: `/metrics` (OpenMetrics), `/livez` and `/readyz`, by HTTP/1.1 and without
    /// a key. It has nothing of a person, and is for the inside alone. Without it there is none.
    #[arg(long, env = "PROFILE_METRICS_LISTEN", value_parser = host_and_port)]
    metrics_listen: Option<String>,

    #[command(flatten)]
    pub tls: TlsArgs,

    /// Serve plain text beyond this machine, such as behind a proxy or a mesh that encrypts.
    #[arg(long, env = "PROFILE_INSECURE_LISTEN")]
    insecure_listen: bool,

    #[command(flatten)]
    pub database: DatabaseArgs,

    /// Calls in flight at the most; the next one is refused with OVERLOADED. Health is exempt.
    #[arg(long, env = "PROFILE_MAX_IN_FLIGHT", default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..))]
    max_in_flight: u16,

    /// Streams open at once, a quarter of them by one key; the next one is refused with OVERLOADED. They are no calls in
    /// flight.
    #[arg(long, env = "PROFILE_MAX_STREAMS", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..))]
    max_streams: u16,

    /// Connections at the most, as far as open files allow; the next one is closed at once.
    #[arg(long, env = "PROFILE_MAX_CONNECTIONS", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..))]
    max_connections: u16,

    /// The age at which a connection is ended once its calls are, a tenth more or less, such as 5m.
    #[arg(long, env = "PROFILE_MAX_CONNECTION_AGE", default_value = "5m", value_parser = duration::connection_age)]
    max_connection_age: Duration,

    /// How long calls in flight may take to end after SIGTERM or Ctrl-C, such as 10s.
    #[arg(long, env = "PROFILE_DRAIN_TIMEOUT", default_value = "10s", value_parser = duration::drain)]
    drain_timeout: Duration,
}

/// Serves until SIGTERM or Ctrl-C, then drains. A second signal ends the program at once.
pub async fn run(args: ServeArgs) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let connections = connections(&args)?;
    let tls = args.tls.load()?;
    let settings = Settings::of(|name| env::var(name).ok()).map_err(Failure::usage)?;
    let tracing = settings.map(|settings| Tracing::start(&settings, super::VERSION)).transpose();
    let tracing = tracing.map_err(Failure::usage)?.map(Arc::new);
    if let Some(tls) = &tls {
        tls.expiry().log();
    }
    let opening = async {
        let (listeners, addresses) = bind_name(&args.listen, args.addresses().await?)?;
        // Before the database is opened, which may take long where its schema is migrated.
        let exposition = expose(&args).await?;
        let store = args.database.open_or_create().await?;
        if store::compact::is_due(&store).await? {
            tracing::warn!("the database's file may hold deleted values of before: run profile-service compact once");
        }
        if args.database.is_default() {
            greet(&store, addresses[0], args.tls.of_grpcurl()).await?;
        }
        Ok::<_, Failure>((listeners, addresses, exposition, store))
    };
    let (listeners, addresses, exposition, store) = tokio::select! {
        opened = opening => opened?,
        () = signals.next() => return Err(Failure::failed("stopped by a signal before it served")),
    };

    let stop = CancellationToken::new();
    let limits = Limits {
        in_flight: args.max_in_flight.into(),
        streams: args.max_streams.into(),
        reads: Batches::default(),
        connections,
        connection_age: args.max_connection_age,
        drain: args.drain_timeout,
    };
    let encrypted = tls.is_some();
    let server = Server::new(listeners, store, limits).with_tls(tls).exposing(exposition).traced(tracing.clone());
    let serving = server.run(stop.clone());
    let database = args.database.url()?;
    for address in addresses {
        tracing::info!(%address, tls = encrypted, %database, version = super::VERSION, "listening");
    }
    let serving = async {
        match serving.await {
            Drained::Whole => tracing::info!("drained"),
            Drained::Cut => tracing::warn!("the drain deadline cut calls off"),
        }
        if let Some(tracing) = tracing {
            tracing.end().await;
        }
    };
    tokio::select! {
        () = serving => {}
        () = signals.twice(&stop) => return Err(Failure::failed("stopped at once by a second signal")),
    }
    Ok(())
}

impl ServeArgs {
    /// The addresses to listen on, where they may be in this way.
    pub async fn addresses(&self) -> Result<Vec<SocketAddr>, Failure> {
        let addresses = resolve(&self.listen).await?;
        self.tls.allow(&addresses, self.insecure_listen)?;
        Ok(addresses)
    }

    /// The addresses of metrics and probes, if they have any.
    pub async fn metrics_addresses(&self) -> Result<Vec<SocketAddr>, Failure> {
        match &self.metrics_listen {
            Some(name) => resolve(name).await,
            None => Ok(Vec::new()),
        }
    }

    /// What open files allow.
    pub fn open_files(&self) -> Result<OpenFiles, Failure> {
        files::connections(self.max_connections.into(), self.database.connections()).map_err(Failure::failed)
    }

    /// Connections at the most.
    pub fn wanted(&self) -> usize {
        self.max_connections.into()
    }
}

/// Connections at the most, as far as open files allow.
fn connections(args: &ServeArgs) -> Result<usize, Failure> {
    let (OpenFiles { limit: open_files, connections }, wanted) = (args.open_files()?, args.wanted());
    if connections < wanted {
        tracing::warn!(open_files, connections, wanted, "open files allow fewer connections");
    } else {
        tracing::info!(open_files, connections, "connections");
    }
    Ok(connections)
}

/// Takes an address or a name, with a port.
pub fn host_and_port(text: &str) -> Result<String, &'static str> {
    let name =
        text.rsplit_once(':').filter(|(name, port)| !name.contains([':', '/', '@']) && port.parse::<u16>().is_ok());
    let valid = text.parse::<SocketAddr>().is_ok() || name.is_some_and(|(name, _)| !name.is_empty());
    if valid { Ok(text.to_owned()) } else { Err("it must be ADDRESS:PORT or NAME:PORT") }
}

/// Answers metrics and probes, if they have a name to listen on.
async fn expose(args: &ServeArgs) -> Result<Option<Arc<Exposition>>, Failure> {
    let Some(name) = &args.metrics_listen else { return Ok(None) };
    let (listeners, addresses) = bind_name(name, args.metrics_addresses().await?)?;
    for address in addresses {
        tracing::info!(%address, "metrics");
    }
    Ok(Some(Exposition::start(listeners)))
}

/// Every address that the name stands for.
pub async fn resolve(name: &str) -> Result<Vec<SocketAddr>, Failure> {
    Ok(lookup_host(name).await.map_err(|error| unheard(name, &error))?.collect())
}

/// Listens on the addresses of this name.
fn bind_name(name: &str, addresses: Vec<SocketAddr>) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), Failure> {
    bind_all(addresses.into_iter()).map_err(|error| unheard(name, &error))
}

fn unheard(name: &str, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot listen on {name}: {error}"))
}

/// Listens on all these addresses that the machine has, on one port, and at least on one: a name such as localhost may
/// stand for an address of IPv6 where there is none.
fn bind_all(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<(Vec<TcpListener>, Vec<SocketAddr>)> {
    let (mut listeners, mut bound) = (Vec::new(), Vec::<SocketAddr>::new());
    let mut absent = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for mut address in addresses {
        if let (0, Some(first)) = (address.port(), bound.first()) {
            address.set_port(first.port());
        }
        match bind(address) {
            Ok(listener) => {
                bound.push(listener.local_addr()?);
                listeners.push(listener);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
                return Err(error);
            }
            Err(error) => absent = error,
        }
    }
    if listeners.is_empty() { Err(absent) } else { Ok((listeners, bound)) }
}

/// Listens with a queue that a burst of connections does not overflow.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The first start on the embedded database makes an organization and a key, and shows how to use them.
async fn greet(store: &Store, address: SocketAddr, transport: &str) -> Result<(), Failure> {
    if !store::organization::list(store.reader()).await?.is_empty() {
        return Ok(());
    }
    let tx = store.begin().await?;
    if let Some(organization) = organization::create(&tx, DEMO).await? {
        let allowed = Allowed { scopes: key::joined(&Scope::ALL), ..Allowed::default() };
        let key = key::create(&tx, organization, DEMO.to_owned(), allowed, clock::now()).await?;
        let greeting = format!(
            "First start: here is the organization {DEMO:?} with a key, which is shown only now:

  {key}

Try it in a second terminal:

  grpcurl {transport} -H 'cv-api-key: {key}' \\
    -d '{{\"profile\": {{\"first_name\": \"John\", \"last_name\": \"Doe\"}}}}' \\
    {address} profiles.v1.ProfileService/CreateProfile
"
        );
        print_and_commit(tx, greeting).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn all_addresses_are_listened_on_at_one_port_but_for_those_that_the_machine_has_not() {
        let documentation = [192, 0, 2, 1]; // RFC 5737
        let name = [documentation, [127, 0, 0, 1], [127, 0, 0, 2]].map(|address| SocketAddr::from((address, 0)));
        let (listeners, bound) = bind_all(name.into_iter()).expect("a port");
        assert_eq!((listeners.len(), bound.len()), (2, 2));
        assert_eq!(bound[0].port(), bound[1].port());
        for address in bound {
            TcpStream::connect(address).expect("a connection");
            assert_eq!(bind_all([name[0], address].into_iter()).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        }
        bind_all(name.into_iter().take(1)).expect_err("no address of this machine");
    }

    #[test]
    fn an_address_or_a_name_with_a_port_is_listened_on() {
        for text in ["127.0.0.1:0", "[::1]:50051", "localhost:50051", "profiles.example:0"] {
            host_and_port(text).expect(text);
        }
        for text in ["", "localhost", ":50051", "localhost:", "localhost:65536", "http://localhost:1", "::1:50051"] {
            host_and_port(text).expect_err(text);
        }
    }
}
