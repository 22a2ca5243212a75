//! TLS as its files say, which are read again while the server runs: the whole configuration changes at once, or not.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use prometheus_client::registry::Registry;
use sha2::{Digest as _, Sha256};
use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tokio_rustls::rustls::{
    Error, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::certificate;
use crate::{
    clock,
    metrics::{Reading, count},
};

/// How often the files are read. By content: a notice of a change is not sent for each way to change a file.
const EVERY: Duration = Duration::from_secs(2);

/// The protocol that is spoken inside (RFC 9113 section 3.2).
const HTTP_2: &[u8] = b"h2";

/// The files, all in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate, then those between it and its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who is asked for a certificate, if anybody is.
    pub clients: Option<TlsClients>,
}

/// Clients that have certificates.
#[derive(Clone, Debug)]
pub struct TlsClients {
    /// The file of the authorities whose certificates are taken.
    pub authorities: PathBuf,
    /// Whether a client without one is refused. A bad one is, always.
    pub required: bool,
}

/// Until when certificates are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsExpiry {
    /// The server's own.
    pub certificate: DateTime<Utc>,
    /// Of the authorities of clients the one that ends first.
    pub authorities: Option<DateTime<Utc>>,
}

/// TLS, always as the last good files say.
pub struct Tls {
    files: TlsFiles,
    current: watch::Sender<Loaded>,
    failed: AtomicUsize,
}

/// The files as they were.
struct Loaded {
    digest: [u8; 32],
    config: Arc<ServerConfig>,
    expiry: TlsExpiry,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// Says which file is bad, and what is wrong with it.
    pub fn load(files: TlsFiles) -> Result<Self, String> {
        let contents = Contents::read(&files)?;
        let loaded = contents.load(&files)?;
        Ok(Self { files, current: watch::Sender::new(loaded), failed: AtomicUsize::new(0) })
    }

    /// What the next handshake is made with.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.borrow().config)
    }

    /// Until when the certificates that are used are valid.
    pub fn expiry(&self) -> TlsExpiry {
        self.current.borrow().expiry
    }

    /// How often files were found that could not be used. It grows as long as they are there.
    pub fn failed_reloads(&self) -> usize {
        self.failed.load(Relaxed)
    }

    /// Tells these metrics of the files.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        let (own, authorities, failed) = (Arc::clone(self), Arc::clone(self), Arc::clone(self));
        let ends = Reading::gauges().with("of", "server", move || seconds(own.expiry().certificate)).with(
            "of",
            "client_ca",
            move || authorities.expiry().authorities.and_then(seconds),
        );
        registry.register("tls_certificate_expiry_timestamp_seconds", "When the certificate in use ends", ends);
        let failures = Reading::counter(move || count(failed.failed_reloads()));
        registry.register("tls_reload_failures", "Looks at TLS files that could not be used", failures);
    }

    /// Follows the files until the token is cancelled.
    pub fn watch(self: Arc<Self>, tasks: &TaskTracker, stop: CancellationToken) {
        tasks.spawn(stop.run_until_cancelled_owned(self.follow()));
    }

    async fn follow(self: Arc<Self>) {
        let mut told = None;
        loop {
            sleep(EVERY).await;
            let this = Arc::clone(&self);
            let cause = match spawn_blocking(move || this.reload()).await {
                Ok(Ok(changed)) => {
                    if changed {
                        self.expiry().log();
                    }
                    None
                }
                Ok(Err(cause)) => Some(cause),
                Err(_) => Some("reading them has panicked".to_owned()),
            };
            if let Some(cause) = &cause {
                self.failed.fetch_add(1, Relaxed);
                if told.as_ref() != Some(cause) {
                    tracing::warn!(cause, "the new TLS files cannot be used: those of before are");
                }
            }
            told = cause;
        }
    }

    /// Takes over what the files have now. Answers whether it is something new.
    fn reload(&self) -> Result<bool, String> {
        let contents = Contents::read(&self.files)?;
        if contents.digest() == self.current.borrow().digest {
            return Ok(false);
        }
        self.current.send_replace(contents.load(&self.files)?);
        Ok(true)
    }
}

impl TlsExpiry {
    /// Says it in the log.
    pub fn log(&self) {
        let authorities = self.authorities.map(|end| end.to_rfc3339());
        tracing::info!(certificate = %self.certificate.to_rfc3339(), client_ca = authorities, "TLS files loaded, with the ends of");
    }
}

/// Seconds of Unix time.
fn seconds(time: DateTime<Utc>) -> Option<f64> {
    count(time.timestamp().try_into().ok()?)
}

/// What the files have.
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, String> {
        let read = |file: &Path| fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()));
        let authorities = files.clients.as_ref().map(|clients| read(&clients.authorities));
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            authorities: authorities.transpose()?,
        })
    }

    /// What is kept to see a change: not the key.
    fn digest(&self) -> [u8; 32] {
        let parts =
            [&self.certificate, &self.key, self.authorities.as_ref().unwrap_or(&Vec::new())].map(Sha256::digest);
        Sha256::digest(parts.concat()).into()
    }

    fn load(&self, files: &TlsFiles) -> Result<Loaded, String> {
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let config = config.map_err(|error| error.to_string())?;
        let chain = certificates(&self.certificate, &files.certificate)?;
        let expiry = TlsExpiry { certificate: expiry(&chain[..1], &files.certificate)?, authorities: None };
        if expiry.certificate <= clock::now() {
            let end = expiry.certificate.to_rfc3339();
            return Err(format!("the certificate of {} has expired, on {end}", files.certificate.display()));
        }
        // What is wrong with a key is not told in its own words.
        let key = PrivateKeyDer::from_pem_slice(&self.key);
        let key = key.map_err(|_| format!("{} has no private key in PEM", files.key.display()))?;
        let (config, expiry) = match files.clients.as_ref().zip(self.authorities.as_ref()) {
            None => (config.with_no_client_auth(), expiry),
            Some((TlsClients { authorities: file, required }, pem)) => {
                let authorities = certificates(pem, file)?;
                let ends = self::expiry(&authorities, file)?;
                let mut roots = RootCertStore::empty();
                for authority in authorities {
                    roots.add(authority).map_err(|error| format!("{}: {error}", file.display()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = if *required { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier.build().map_err(|error| format!("{}: {error}", file.display()))?;
                (config.with_client_cert_verifier(verifier), TlsExpiry { authorities: Some(ends), ..expiry })
            }
        };
        let mut config = config.with_single_cert(chain, key).map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                format!(
                    "the key of {} is not that of the certificate of {}",
                    files.key.display(),
                    files.certificate.display()
                )
            }
            error => format!("{} with {}: {error}", files.certificate.display(), files.key.display()),
        })?;
        config.alpn_protocols = vec![HTTP_2.to_vec()];
        if files.clients.is_some() {
            // A resumed session would be of a client whose certificate is not looked at again.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Loaded { digest: self.digest(), config: Arc::new(config), expiry })
    }
}

/// The certificates of a file, one at least.
fn certificates(pem: &[u8], file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| format!("{} is no whole PEM: {error}", file.display()))?;
    if all.is_empty() { Err(format!("{} has no certificate in PEM", file.display())) } else { Ok(all) }
}

/// When the first of them ends.
fn expiry(certificates: &[CertificateDer<'_>], file: &Path) -> Result<DateTime<Utc>, String> {
    let ends = certificates.iter().map(|certificate| certificate::expiry(certificate)).collect::<Result<Vec<_>, _>>();
    let ends = ends.map_err(|error| format!("{} has no X.509 certificate: {error}", file.display()))?;
    ends.into_iter().min().ok_or_else(|| format!("{} has no certificate", file.display()))
}
