//! What a client is told: where the service is, the key, how long a call may take, and whom to trust.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tonic::{
    metadata::{MetadataMap, MetadataValue},
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity},
};

use super::{Client, error::causes};

/// How long a call may take with all its attempts, unless it is told otherwise.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often a call is attempted at the most, unless it is told otherwise.
const ATTEMPTS: u32 = 5;

/// How long connecting may take, and the handshake of TLS.
const CONNECT: Duration = Duration::from_secs(5);

/// How often the peer is asked whether it is there, and how long it may take to answer: a connection that is lost without
/// a word is noticed within a call's usual deadline.
const PING: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3));

/// Why a client cannot be built. No key is shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The address is no URL of this form.
    #[error("the address must be http://HOST:PORT or https://HOST:PORT")]
    Address,
    /// Nothing is encrypted over http.
    #[error("certificates are given, but the address does not begin with https://")]
    PlainText,
    /// A certificate or a private key cannot be read, or they do not belong together.
    #[error("TLS cannot be used: {0}")]
    Tls(String),
    /// No header can have this value.
    #[error("{0} has characters that cannot be sent")]
    Header(&'static str),
}

/// Builds a [`Client`].
///
/// ```
/// use std::time::Duration;
/// use profile_service::client::{BuildError, Client};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BuildError> {
/// let client = Client::builder("http://127.0.0.1:50051")
///     .key("ps_0123456789abcdef_secret")
///     .deadline(Duration::from_secs(5))
///     .attempts(3)
///     .build()?;
/// # drop(client);
/// assert_eq!(Client::builder("127.0.0.1:50051").build().err(), Some(BuildError::Address));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    address: String,
    key: Option<SecretString>,
    deadline: Duration,
    attempts: u32,
    authorities: Vec<String>,
    identity: Option<(String, SecretString)>,
    server_name: Option<String>,
}

impl Builder {
    pub(super) fn new(address: String) -> Self {
        Self {
            address,
            key: None,
            deadline: DEADLINE,
            attempts: ATTEMPTS,
            authorities: Vec::new(),
            identity: None,
            server_name: None,
        }
    }

    /// The API key. Health aside, every call needs one.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(SecretString::from(key.into()));
        self
    }

    /// How long a call may take with all its attempts: 10 s unless this is called. The service is told, and spends at most
    /// 10 s on an attempt.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How often a call is attempted at the most: 5 times unless this is called; 1 repeats nothing.
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Trusts certificates of these authorities (PEM) and of no other. Without it those that browsers trust are trusted.
    pub fn ca_certificate(mut self, pem: impl Into<String>) -> Self {
        self.authorities.push(pem.into());
        self
    }

    /// Presents this certificate, its intermediates behind it, to a service that asks for one; with its private key. Both
    /// are PEM.
    pub fn client_certificate(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.identity = Some((certificate.into(), SecretString::from(key.into())));
        self
    }

    /// The name that the service's certificate must have, where it is not the host of the address.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Builds the client, within a Tokio runtime. It connects at its first call, and again whenever a connection has ended.
    ///
    /// # Errors
    ///
    /// Where what it was told cannot be used.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn build(self) -> Result<Client, BuildError> {
        let endpoint = Endpoint::from_shared(self.address.clone()).map_err(|_| BuildError::Address)?;
        let encrypted = match (endpoint.uri().scheme_str(), endpoint.uri().host()) {
            (Some("https"), Some(_)) => true,
            (Some("http"), Some(_)) => false,
            _ => return Err(BuildError::Address),
        };
        let (interval, patience) = PING;
        let mut endpoint = endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(patience)
            .keep_alive_while_idle(true)
            .user_agent(concat!("profile-service-client/", env!("CARGO_PKG_VERSION")))
            .map_err(|_| BuildError::Header("the user agent"))?;
        if encrypted {
            endpoint = endpoint.tls_config(self.tls()).map_err(|error| BuildError::Tls(causes(&error)))?;
        } else if !self.authorities.is_empty() || self.identity.is_some() || self.server_name.is_some() {
            return Err(BuildError::PlainText);
        }
        let mut metadata = MetadataMap::new();
        if let Some(key) = &self.key {
            let value = MetadataValue::try_from(key.expose_secret());
            let mut value = value.map_err(|_| BuildError::Header("the key"))?;
            value.set_sensitive(true); // HTTP/2 keeps it in no table, and Debug does not show it
            metadata.insert("cv-api-key", value);
        }
        Ok(Client::new(endpoint.connect_lazy(), metadata, self.deadline, self.attempts))
    }

    fn tls(&self) -> ClientTlsConfig {
        let tls = ClientTlsConfig::new().timeout(CONNECT);
        let tls = if self.authorities.is_empty() {
            tls.with_webpki_roots()
        } else {
            tls.ca_certificates(self.authorities.iter().map(Certificate::from_pem))
        };
        let tls = match &self.server_name {
            Some(name) => tls.domain_name(name),
            None => tls,
        };
        match &self.identity {
            Some((certificate, key)) => tls.identity(Identity::from_pem(certificate, key.expose_secret())),
            None => tls,
        }
    }
}
