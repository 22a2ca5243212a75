//! `health`.

use std::{
    fmt::Display,
    io, iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    },
};
use tokio_util::either::Either;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{Failure, duration, print, serve, tls::TlsArgs};

/// Whom the handshake names: no host, so that no name is sent.
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Whom to ask. With the environment of `serve` it needs nothing else.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Where the service listens; where it listens everywhere, this machine is asked.
    #[arg(long, env = "PROFILE_LISTEN", default_value = "127.0.0.1:50051", value_parser = serve::host_and_port)]
    listen: String,

    /// What to ask for: `liveness`, the whole name of a service, or all of it without a name.
    #[arg(long, env = "PROFILE_HEALTH_SERVICE", default_value = "")]
    service: String,

    /// How long the answer may take, such as 2s.
    #[arg(long, env = "PROFILE_HEALTH_TIMEOUT", default_value = "2s", value_parser = duration::patience)]
    timeout: Duration,

    /// The certificate (PEM) to present to a service that requires one; its own without it.
    #[arg(long, env = "PROFILE_HEALTH_CERT", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// That certificate's private key (PEM).
    #[arg(long, env = "PROFILE_HEALTH_KEY", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    #[command(flatten)]
    tls: TlsArgs,
}

/// Succeeds where the service is SERVING.
pub async fn run(args: HealthArgs) -> Result<(), Failure> {
    let asking = async {
        let mut client = HealthClient::new(connect(&args).await?);
        let answer = client.check(HealthCheckRequest { service: args.service.clone() }).await;
        answer.map(|answer| answer.into_inner().status()).map_err(|status| failed(&args, status.message()))
    };
    let late = || failed(&args, format_args!("no answer within {}", humantime::format_duration(args.timeout)));
    let status = timeout(args.timeout, asking).await.unwrap_or_else(|_| Err(late()))?;
    if status == ServingStatus::Serving {
        print(status.as_str_name())
    } else {
        Err(failed(&args, status.as_str_name()))
    }
}

fn failed(args: &HealthArgs, why: impl Display) -> Failure {
    Failure::failed(format!("the service at {} is not healthy: {why}", args.listen))
}

/// A connection as the service wants it.
async fn connect(args: &HealthArgs) -> Result<Channel, Failure> {
    let mut addresses = serve::resolve(&args.listen).await?;
    addresses.iter_mut().for_each(to_this_machine);
    let connector = args.tls.files().map(|files| {
        let presented = args.cert.clone().zip(args.key.clone());
        let presented = presented.or_else(|| files.clients.map(|_| (files.certificate, files.key)));
        connector(presented)
    });
    let connector = connector.transpose()?;
    let endpoint = Endpoint::from_static("http://profile-service");
    let connected = endpoint.connect_with_connector(tower::service_fn(move |_| {
        let (addresses, connector) = (addresses.clone(), connector.clone());
        async move {
            let stream = TcpStream::connect(&addresses[..]).await?;
            let stream = match connector {
                None => Either::Left(stream),
                Some(connector) => Either::Right(connector.connect(ServerName::IpAddress(LOCAL.into()), stream).await?),
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    }));
    connected.await.map_err(|error| failed(args, causes(&error)))
}

/// What listens on all addresses is asked on this machine's own.
fn to_this_machine(address: &mut SocketAddr) {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => v4.set_ip(Ipv4Addr::LOCALHOST),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => v6.set_ip(Ipv6Addr::LOCALHOST),
        _ => {}
    }
}

/// An error with what caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let causes = iter::successors(error.source(), |error| error.source()).map(|cause| format!(": {cause}"));
    error.to_string() + &causes.collect::<String>()
}

/// Speaks TLS, and presents this certificate with its key, if there is one.
fn connector(presented: Option<(PathBuf, PathBuf)>) -> Result<TlsConnector, Failure> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let config = config.map_err(|error| Failure::failed(error.to_string()))?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(Unjudged(provider)));
    let mut config = match presented {
        None => config.with_no_client_auth(),
        Some((cert, key)) => {
            let unusable = |file: &Path, error: &dyn Display| {
                Failure::failed(format!("{} cannot be presented: {error}", file.display()))
            };
            let chain = CertificateDer::pem_file_iter(&cert).and_then(Iterator::collect);
            let chain = chain.map_err(|error| unusable(&cert, &error))?;
            let read =
                PrivateKeyDer::from_pem_file(&key).map_err(|_| unusable(&key, &"it is no private key in PEM"))?;
            config.with_client_auth_cert(chain, read).map_err(|error| unusable(&cert, &error))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Judges no certificate, as the probes of an orchestrator do not: the service's is for its name and not for this
/// machine's address, a new one may not be in use yet, and nothing that is secret is sent.
#[derive(Debug)]
struct Unjudged(Arc<CryptoProvider>);

impl ServerCertVerifier for Unjudged {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
