//! Connections, as far as they are worth their memory: HTTP/2 without delay, and not too many.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// What every HTTP/2 connection begins with (RFC 9113 section 3.4).
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a peer may take to send it: hyper itself would wait for ever.
const PREFACE_DEADLINE: Duration = Duration::from_secs(2);

/// How long accepting pauses after a failure, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts at most `max` connections at once until `stop` is cancelled, and then closes the port.
pub fn accept(listener: TcpListener, max: usize, stop: CancellationToken) -> ReceiverStream<io::Result<Connection>> {
    let (opened, connections) = mpsc::channel(1);
    let permits = Arc::new(Semaphore::new(max));
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // A peer too many is closed at once: waiting would look like a service that hangs.
                    if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
                        tokio::spawn(open(stream, permit, opened.clone()));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }));
    ReceiverStream::new(connections)
}

/// Hands a connection over once its preface has come in time. Any other is closed without a word.
async fn open(stream: TcpStream, permit: OwnedSemaphorePermit, opened: mpsc::Sender<io::Result<Connection>>) {
    if let Ok(Ok(connection)) = timeout(PREFACE_DEADLINE, Connection::open(stream, permit)).await {
        let _ = opened.send(Ok(connection)).await; // nobody is there to take it during a drain
    }
}

/// A connection whose preface has been read, and is read again by HTTP/2.
pub struct Connection {
    stream: TcpStream,
    /// How much of the preface has been read again.
    reread: usize,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn open(mut stream: TcpStream, permit: OwnedSemaphorePermit) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).await?;
        if preface == PREFACE {
            Ok(Self { stream, reread: 0, _permit: permit })
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let rest = &PREFACE[self.reread..];
        if rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.reread += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
