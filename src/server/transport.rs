//! A connection's bytes: in plain text, or in TLS.

use std::{
    fmt::Display,
    io,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{Error, InvalidMessage},
    server::TlsStream,
};

use super::{certificate, tls::Tls};

/// At most one hint is logged in this time.
const HINTS: Duration = Duration::from_mins(1);

/// What carries a connection's bytes.
pub enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Makes the handshake, if there is to be one.
    pub async fn open(stream: TcpStream, tls: Option<&Tls>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let Some(tls) = tls else { return Ok(Self::Plain(stream)) };
        match TlsAcceptor::from(tls.config()).accept(stream).await {
            Ok(stream) => Ok(Self::Tls(Box::new(stream))),
            Err(error) => {
                match cause(&error) {
                    Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
                        hint("a peer spoke no TLS, which this port does: grpcurl must not have -plaintext");
                    }
                    Some(error) => hint(format_args!("a TLS handshake failed: {error}")),
                    None => {} // it has gone away
                }
                Err(error)
            }
        }
    }

    /// The name in the certificate of the client, if it has presented one.
    pub fn client(&self) -> Option<String> {
        let Self::Tls(stream) = self else { return None };
        stream.get_ref().1.peer_certificates()?.first().map(|certificate| certificate::name(certificate))
    }
}

/// Why TLS ended a connection, if it was TLS that did.
pub fn cause(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Says why a peer gets no answer, once in a while: anybody may be one.
pub fn hint(why: impl Display) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_none_or(|last| last.elapsed() >= HINTS) {
        *last = Some(Instant::now());
        tracing::warn!("{why}");
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
