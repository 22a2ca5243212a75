//! What operators and machines ask by HTTP, on a port of its own: metrics, and whether the program lives and is ready.
//!
//! It answers as long as the program runs, also while a schema is migrated and during a drain. It has nothing of a person.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::calls::CALLS;
use crate::{
    grpc::status::REASONS,
    metrics::{METRICS, PREFIX, exposition},
};

/// Connections at the most. One more ends the oldest: who keeps them keeps no probe out.
pub const MOST_CONNECTIONS: usize = 16;

/// How long a connection may take: it has one request.
const LONGEST: Duration = Duration::from_secs(5);

/// How long accepting pauses after a failure, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// How old the metrics may be that are answered: whoever asks more often costs no more.
const FRESH: Duration = Duration::from_millis(200);

const OPENMETRICS: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Answers `/metrics`, `/livez` and `/readyz`.
pub struct Exposition {
    /// What is read when it is asked for.
    readings: Mutex<Registry>,
    /// The last answer, and when it was made.
    last: Mutex<Option<(Instant, Bytes)>>,
}

impl Exposition {
    /// Begins to answer on these listeners, as long as the program runs.
    pub fn start(listeners: Vec<TcpListener>) -> Arc<Self> {
        METRICS.expect(&REASONS);
        let readings = Mutex::new(Registry::with_prefix(PREFIX));
        let exposition = Arc::new(Self { readings, last: Mutex::default() });
        for listener in listeners {
            tokio::spawn(Arc::clone(&exposition).accept(listener));
        }
        exposition
    }

    /// Adds metrics of the service's own.
    pub fn add(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.readings.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut open = VecDeque::<AbortHandle>::new();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    open.retain(|connection| !connection.is_finished());
                    if open.len() >= MOST_CONNECTIONS
                        && let Some(oldest) = open.pop_front()
                    {
                        oldest.abort();
                    }
                    open.push_back(tokio::spawn(Arc::clone(&self).serve(stream)).abort_handle());
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection to the metrics could not be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Answers one request. What a connection fails of is its peer's doing.
    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let answers = service_fn(|request: Request<Incoming>| {
            let response = self.answer(request.method(), request.uri().path());
            async { Ok::<_, Infallible>(response) }
        });
        let mut protocol = http1::Builder::new();
        protocol.timer(TokioTimer::new()).keep_alive(false);
        let _ = timeout(LONGEST, protocol.serve_connection(TokioIo::new(stream), answers)).await;
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let (status, kind, body) = match path {
            _ if !matches!(*method, Method::GET | Method::HEAD) => {
                (StatusCode::METHOD_NOT_ALLOWED, TEXT, Bytes::from_static(b"only GET and HEAD\n"))
            }
            "/metrics" => match self.metrics() {
                Ok(metrics) => (StatusCode::OK, OPENMETRICS, metrics),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, TEXT, Bytes::from(format!("{error}\n"))),
            },
            "/livez" => (StatusCode::OK, TEXT, Bytes::from_static(b"alive\n")),
            "/readyz" if METRICS.ready.get() == 1 => (StatusCode::OK, TEXT, Bytes::from_static(b"ready\n")),
            "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, TEXT, Bytes::from_static(b"not ready\n")),
            _ => (StatusCode::NOT_FOUND, TEXT, Bytes::from_static(b"/metrics, /livez, /readyz\n")),
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }

    fn metrics(&self) -> Result<Bytes, fmt::Error> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((made, text)) if made.elapsed() < FRESH => Ok(text.clone()),
            _ => {
                let readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
                let text = Bytes::from(exposition([&CALLS.registry, &*readings])?);
                *last = Some((Instant::now(), text.clone()));
                Ok(text)
            }
        }
    }
}
