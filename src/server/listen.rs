//! Connections, as far as they are worth their memory: HTTP/2 without delay, and not too many.

use std::{
    io, mem,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    peer::Peer,
    tls::Tls,
    transport::{self, Transport, hint},
};
use crate::metrics::METRICS;

/// What every HTTP/2 connection begins with (RFC 9113 section 3.4).
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What TLS begins with (RFC 8446 section 5.1): a handshake record.
const TLS: [u8; 2] = [22, 3];

/// How long a peer may take for the handshake of TLS and the preface together: hyper itself would wait for ever.
const OPENING_DEADLINE: Duration = Duration::from_secs(2);

/// How long accepting pauses after a failure, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// How much a connection reads at most before others have their turn, in bytes, which is ten to thirty calls: HTTP/2 would
/// take in all that has come, thousands of them, before the first is looked at. Who polls it asks again, once it is its turn.
pub const BURST: usize = 2 * 1024;

/// How long after its age a connection that does not end by itself is cut: one whose peer reads no answers, say.
const GRACE: Duration = Duration::from_secs(30);

/// Accepts at most as many connections at once as there are permits until `stop` is cancelled, and then closes the ports:
/// in TLS, or in plain text without it. A connection older than `age` is cut if it has not ended by itself soon after.
pub fn accept(
    listeners: Vec<TcpListener>,
    tls: Option<&Arc<Tls>>,
    permits: &Arc<Semaphore>,
    age: Duration,
    stop: &CancellationToken,
) -> mpsc::Receiver<Connection> {
    let (opened, connections) = mpsc::channel(1);
    for listener in listeners {
        let accepting = accept_on(listener, tls.cloned(), Arc::clone(permits), age + GRACE, opened.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(accepting));
    }
    connections
}

async fn accept_on(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    permits: Arc<Semaphore>,
    longest: Duration,
    opened: mpsc::Sender<Connection>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // A peer too many is closed at once: waiting would look like a service that hangs.
                match Arc::clone(&permits).try_acquire_owned() {
                    Ok(permit) => {
                        tokio::spawn(open(stream, tls.clone(), permit, longest, opened.clone()));
                    }
                    Err(_) => {
                        METRICS.connections.refused.inc();
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Hands a connection over once its handshake and its preface have come in time. Any other is closed without a word.
async fn open(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    permit: OwnedSemaphorePermit,
    longest: Duration,
    opened: mpsc::Sender<Connection>,
) {
    let ends = &METRICS.connections;
    let opening = Connection::open(stream, tls.as_deref(), permit, longest);
    let end = match timeout(OPENING_DEADLINE, opening).await {
        Ok(Ok(connection)) => {
            let _ = opened.send(connection).await; // nobody is there to take it during a drain
            return;
        }
        Ok(Err(error)) if transport::cause(&error).is_some() => &ends.no_tls,
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => &ends.no_http2,
        Ok(Err(_)) | Err(_) => &ends.not_begun,
    };
    end.inc();
}

/// A connection whose preface has been read, and is read again by HTTP/2.
pub struct Connection {
    stream: Transport,
    peer: Arc<Peer>,
    /// Ready when the connection is to end at once.
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Whether it has been.
    ended: bool,
    /// How much of the preface has been read again.
    reread: usize,
    /// Whether the next write has let other calls have their turn.
    gathered: bool,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn open(
        stream: TcpStream,
        tls: Option<&Tls>,
        permit: OwnedSemaphorePermit,
        longest: Duration,
    ) -> io::Result<Self> {
        let mut stream = Transport::open(stream, tls).await?;
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).await?;
        if preface == PREFACE {
            let peer = Arc::new(Peer::new(stream.client()));
            let cut = peer.cut.clone().cancelled_owned();
            let end = Box::pin(async move {
                let _ = timeout(longest, cut).await;
            });
            Ok(Self { stream, peer, end, ended: false, reread: 0, gathered: false, _permit: permit })
        } else {
            if preface.starts_with(&TLS) {
                hint("a peer spoke TLS, which this port does not: grpcurl needs -plaintext");
            }
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    /// The other end.
    pub fn peer(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }

    /// Fails once the connection is to end.
    fn unended(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.ended = self.ended || self.end.as_mut().poll(cx).is_ready();
        if self.ended { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// What waits for a peer fails once the connection is to end: while it is flushed or shut down nobody reads.
    fn until_the_end<T>(&mut self, waiting: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if waiting.is_pending() {
            self.unended(cx)?;
        }
        waiting
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.unended(cx)?;
        let rest = &PREFACE[self.reread..];
        if rest.is_empty() {
            let left = BURST.saturating_sub(self.peer.read.load(Relaxed));
            if left == 0 {
                return Poll::Pending;
            }
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(left.min(buffer.remaining())));
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut part);
            let filled = part.filled().len();
            buffer.advance(filled);
            self.peer.read.fetch_add(filled, Relaxed);
            return read;
        }
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.reread += count;
        Poll::Ready(Ok(()))
    }
}

/// Not vectored: HTTP/2 then copies short messages behind each other, and one write sends many of them.
impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Answers that are ready with this one go out with it: a write is most of what an answer costs. A lone one waits
        // for nothing.
        if self.peer.under_way.load(Relaxed) > 0 && !mem::replace(&mut self.gathered, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.gathered = written.is_pending();
        self.until_the_end(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waiting = Pin::new(&mut self.stream).poll_flush(cx);
        self.until_the_end(waiting, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waiting = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.until_the_end(waiting, cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// A connection whose peer has sent the preface, and its peer.
    async fn connection() -> (Connection, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let mut peer = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        peer.write_all(&PREFACE).await.expect("a peer that reads");
        let (stream, _) = listener.accept().await.expect("a connection");
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a permit");
        (Connection::open(stream, None, permit, Duration::MAX).await.expect("a preface"), peer)
    }

    #[tokio::test]
    async fn a_connection_reads_a_burst_in_its_turn_and_goes_on_in_the_next() {
        const SENT: usize = 4 * BURST;
        let (mut connection, mut peer) = connection().await;
        peer.write_all(&vec![0; SENT]).await.expect("a peer that reads");
        connection.read_exact(&mut [0; PREFACE.len()]).await.expect("the preface again");
        let (mut turns, mut read) = (Vec::new(), 0);
        while read < SENT {
            connection.peer.read.store(0, Relaxed);
            let turn = poll_fn(|context| {
                let mut of_turn = 0;
                loop {
                    let mut bytes = [0; 1000];
                    let mut buffer = ReadBuf::new(&mut bytes);
                    match Pin::new(&mut connection).poll_read(context, &mut buffer) {
                        Poll::Ready(done) => done.expect("bytes"),
                        Poll::Pending if of_turn == 0 => return Poll::Pending,
                        Poll::Pending => return Poll::Ready(of_turn),
                    }
                    of_turn += buffer.filled().len();
                }
            });
            turns.push(turn.await);
            read += turns[turns.len() - 1];
        }
        assert!(turns.iter().all(|read| *read <= BURST), "{turns:?}");
    }

    #[tokio::test]
    async fn a_write_waits_for_the_calls_that_are_ready_with_it_and_a_lone_one_for_nothing() {
        let (mut connection, _peer) = connection().await;
        for under_way in [0, 1, 1, 0] {
            connection.peer.under_way.store(under_way, Relaxed);
            let ready = tokio::spawn(async {});
            connection.write_all(b"answer").await.expect("a peer that reads");
            assert_eq!(ready.is_finished(), under_way > 0);
        }
    }
}
