//! Authorities, certificates, and clients that have them.

use std::{fs, io, path::PathBuf, sync::Arc};

use chrono::{Datelike as _, TimeDelta, Utc};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    },
};
use tonic::transport::{Channel, Endpoint};

/// The name of the service in its certificate.
pub const SERVER: &str = "profiles.test";

/// Who makes certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// A certificate for this name, a URI or a host, that ends so many days from now.
    pub fn issue_for(&self, name: &str, days: i64) -> Identity {
        let mut params = CertificateParams::default();
        let uri = || SanType::URI(name.try_into().expect("ASCII"));
        let host = || SanType::DnsName(name.try_into().expect("ASCII"));
        params.subject_alt_names = vec![if name.contains("://") { uri() } else { host() }];
        let end = (Utc::now() + TimeDelta::days(days)).date_naive();
        let [month, day] = [end.month(), end.day()].map(|part| u8::try_from(part).expect("a date"));
        params.not_after = rcgen::date_time_ymd(end.year(), month, day);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub fn issue(&self, name: &str) -> Identity {
        self.issue_for(name, 3650)
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }
}

/// A certificate with its key, in PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

/// The files that a service reads.
pub struct TlsFiles(TempDir);

impl TlsFiles {
    pub fn of(identity: &Identity) -> Self {
        let files = Self(tempfile::tempdir().expect("a directory"));
        files.put(identity);
        files
    }

    pub fn put(&self, identity: &Identity) {
        self.write("key", &identity.key);
        self.write("cert", &identity.certificate);
    }

    /// Replaces a file at once.
    pub fn write(&self, name: &str, text: &str) {
        let new = self.0.path().join("new");
        fs::write(&new, text).expect("a file");
        fs::rename(new, self.0.path().join(name)).expect("a file");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The flags that name the certificate and its key.
    pub fn flags(&self) -> [String; 4] {
        let path = |name| self.path(name).display().to_string();
        ["--tls-cert".to_owned(), path("cert"), "--tls-key".to_owned(), path("key")]
    }
}

/// A client that speaks TLS.
#[derive(Clone)]
pub struct TlsClient(Arc<ClientConfig>);

impl TlsClient {
    /// Trusts this authority, presents this certificate, and offers these protocols.
    pub fn new(trusted: &Authority, identity: Option<&Identity>, protocols: &[&str]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(trusted.0.der().to_vec())).expect("an authority");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some(Identity { certificate, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate")];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
                config.with_client_auth_cert(chain, key).expect("a certificate")
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self(Arc::new(config))
    }

    /// Connects and makes the handshake.
    pub async fn connect(&self, address: &str) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(SERVER).expect("a name");
        TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await
    }

    /// A connection for calls.
    pub async fn channel(&self, address: &str) -> Result<Channel, tonic::transport::Error> {
        // The connector encrypts: at https tonic would too.
        let endpoint = Endpoint::from_shared(format!("http://{SERVER}")).expect("an address");
        let (this, address) = (self.clone(), address.to_owned());
        let connect = move |_| {
            let (this, address) = (this.clone(), address.clone());
            async move { this.connect(&address).await.map(TokioIo::new) }
        };
        endpoint.connect_with_connector(tower::service_fn(connect)).await
    }
}
