//! A connection, served to its end: HTTP/2 within bounds, until it is too old or the server drains.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use axum::body::Body;
use http::Request;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{task::yield_now, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    course,
    layers::Admission,
    listen::Connection,
    peer::{Peer, WINDOW},
    task::Tasks,
    turns::Turns,
};
use crate::metrics::METRICS;

/// Calls at once on one connection.
const STREAMS: u32 = 100;

/// What a peer may send on all streams of its connection before anyone reads it, in bytes. h2 ends a connection of which
/// more than half of it is taken up by short frames, at 256 bytes each: those of calls that were cancelled count too, until
/// they have been taken on.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// The largest list of headers that is read, in bytes.
const LARGEST_HEADERS: u32 = 16 * 1024;

/// Calls of a connection that may have been cancelled before they were taken on: one more ends it, so that it is more than
/// can come in one turn.
const MOST_CANCELLED: usize = 1000;

/// How often a silent peer is asked whether it lives, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// How every connection is served.
#[derive(Clone)]
pub struct Http {
    protocol: http2::Builder<Tasks>,
    calls: Arc<Admission>,
    turns: Arc<Turns>,
    age: Duration,
    stop: CancellationToken,
}

impl Http {
    /// Serves these calls, until the connection has about this age or `stop` is cancelled.
    pub fn new(calls: Arc<Admission>, age: Duration, stop: CancellationToken) -> Self {
        let mut protocol = http2::Builder::new(Tasks);
        protocol
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(LARGEST_HEADERS)
            .max_pending_accept_reset_streams(MOST_CANCELLED)
            .max_local_error_reset_streams(None) // what comes for calls that have ended ends no others
            .keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1);
        let turns = Arc::new(Turns::of(Arc::clone(&calls.permits)));
        Self { protocol, calls, turns, age, stop }
    }

    /// Serves a connection to its end. At its age, or at the drain, its streams end first, so that whoever begins them
    /// again does so elsewhere; then it takes no more calls, and ends when those that it has are answered.
    pub async fn serve(self, connection: Connection) {
        let Self { protocol, calls, turns, age, stop } = self;
        let peer = connection.peer();
        let caller = Arc::clone(&peer);
        let calls = service_fn(move |request: Request<Incoming>| {
            let (calls, caller, under_way) = (Arc::clone(&calls), Arc::clone(&caller), UnderWay::begin(&caller));
            let call = async { Ok::<_, Infallible>(calls.call(caller, request.map(Body::new)).await) };
            unless_cancelled(under_way, call)
        });
        let mut serving = pin!(protocol.serve_connection(TokioIo::new(connection), calls));
        // A tenth more or less: connections that began at once do not end so.
        let age = age.mul_f64(rand::random_range(0.9..=1.1));
        let until_it_ends = async {
            let _ = timeout(age, stop.cancelled()).await;
            peer.ending.cancel();
            peer.streams.close();
            let _ = timeout(course::LONGEST_END, peer.streams.wait()).await;
        };
        // What a connection fails of is its peer's doing.
        let ended = tokio::select! {
            () = turns.serve(&peer, serving.as_mut()) => true,
            () = until_it_ends => false,
        };
        if !ended {
            serving.as_mut().graceful_shutdown();
            turns.serve(&peer, serving).await;
        }
        let ends = &METRICS.connections;
        let end = match ended {
            _ if peer.cut.is_cancelled() => &ends.cut,
            true => &ends.peer,
            false if stop.is_cancelled() => &ends.drain,
            false => &ends.age,
        };
        end.inc();
    }
}

/// A call that has no answer yet.
struct UnderWay(Arc<Peer>);

impl UnderWay {
    fn begin(peer: &Arc<Peer>) -> Self {
        peer.under_way.fetch_add(1, Relaxed);
        peer.begun.fetch_add(1, Relaxed);
        Self(Arc::clone(peer))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// Makes a call, unless its connection has more of them than it may have at once: most of these are cancelled then, and
/// hyper ends a call that is cancelled only once it waits. One that has begun costs a hundred times as much.
async fn unless_cancelled<C: Future>(under_way: UnderWay, call: C) -> C::Output {
    if under_way.0.under_way.load(Relaxed) > STREAMS as usize {
        yield_now().await;
    }
    call.await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn of_more_calls_than_there_may_be_at_once_one_that_is_cancelled_does_not_begin() {
        let (peer, begun) = (Arc::<Peer>::default(), Cell::new(0));
        let call = || {
            unless_cancelled(UnderWay::begin(&peer), async {
                assert!(peer.under_way.load(Relaxed) > 0);
                begun.set(begun.get() + 1);
            })
        };
        let others: Vec<_> = (0..STREAMS).map(|_| call()).collect();
        assert!(call().now_or_never().is_none());
        assert_eq!(begun.get(), 0);
        drop(others);
        assert!(call().now_or_never().is_some());
        assert_eq!((begun.get(), peer.under_way.load(Relaxed)), (1, 0));
    }
}
