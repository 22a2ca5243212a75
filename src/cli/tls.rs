//! Whether what is served is encrypted.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use clap::{Args, ValueEnum};

use super::Failure;
use crate::server::{Tls, TlsClients, TlsFiles};

/// TLS, or plain text.
#[derive(Debug, Args)]
#[expect(clippy::struct_field_names, reason = "they are the flags' names")]
pub struct TlsArgs {
    /// Speak TLS with the certificate in this file (PEM, its intermediates behind it). All files of TLS are read again
    /// when they change.
    #[arg(long, env = "PROFILE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key (PEM).
    #[arg(long, env = "PROFILE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Ask clients for certificates of the authorities in this file (PEM), by --tls-client-auth.
    #[arg(long, env = "PROFILE_TLS_CLIENT_CA", value_name = "FILE", requires_all = ["tls_client_auth", "tls_cert"])]
    tls_client_ca: Option<PathBuf>,

    /// Whether clients must have a certificate. Each call needs its API key all the same.
    #[arg(long, env = "PROFILE_TLS_CLIENT_AUTH", value_name = "MODE", requires = "tls_client_ca")]
    tls_client_auth: Option<ClientAuth>,
}

/// Whether clients must have a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ClientAuth {
    /// A client may have none; one that it has must be good.
    Optional,
    /// A client without one is refused.
    Required,
}

impl TlsArgs {
    /// Reads the files, if TLS is spoken.
    pub fn load(&self) -> Result<Option<Arc<Tls>>, Failure> {
        let loaded = self.files().map(Tls::load).transpose();
        Ok(loaded.map_err(|cause| Failure::failed(format!("cannot serve TLS: {cause}")))?.map(Arc::new))
    }

    /// The files, if TLS is spoken.
    pub fn files(&self) -> Option<TlsFiles> {
        let (certificate, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        let clients = self.tls_client_ca.clone().zip(self.tls_client_auth);
        let clients =
            clients.map(|(authorities, auth)| TlsClients { authorities, required: auth == ClientAuth::Required });
        Some(TlsFiles { certificate, key, clients })
    }

    /// What grpcurl needs to be told.
    pub fn of_grpcurl(&self) -> &'static str {
        match (&self.tls_cert, self.tls_client_auth) {
            (None, _) => "-plaintext",
            (Some(_), Some(ClientAuth::Required)) => "-cacert CA.pem -cert CLIENT.pem -key CLIENT.key",
            (Some(_), _) => "-cacert CA.pem",
        }
    }

    /// Fails where keys and profiles would go over a network in plain text, unless that is wanted.
    pub fn allow(&self, addresses: &[SocketAddr], insecure: bool) -> Result<(), Failure> {
        if self.tls_cert.is_some() && insecure {
            return Err(Failure::usage("--insecure-listen is for plain text, and --tls-cert for TLS: choose one"));
        }
        let private = |address: &SocketAddr| address.ip().to_canonical().is_loopback();
        match addresses.iter().find(|address| !private(address)) {
            Some(address) if self.tls_cert.is_none() && !insecure => Err(Failure::usage(format!(
                "{address} is no address of this machine alone, where plain text would show keys and profiles to the network: \
                 give --tls-cert and --tls-key, or --insecure-listen behind what encrypts"
            ))),
            _ => Ok(()),
        }
    }
}
