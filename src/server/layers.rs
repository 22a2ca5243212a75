//! What happens around every call, in the order of the code: log line, permit, deadline, key, handler.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use http_body_util::BodyExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tracing::{Instrument as _, Span, field::Empty};

use super::{keys::Keys, listen::Peer};
use crate::{
    clock,
    error::{Error, Result},
    grpc::auth::{self, Access},
    profile::change::Author,
    scope::Scope,
    write::Permit,
};

/// The longest that a call may take, whatever its caller allows.
const CEILING: Duration = Duration::from_secs(10);

/// How much earlier than the caller's deadline ours is: tonic has a timer of its own, which starts earlier and answers
/// CANCELLED.
const MARGIN: Duration = Duration::from_millis(100);

/// Answers that may wait to be sent, on all connections: each costs some 10 KB.
const MOST_UNSENT: usize = 2048;

/// Answers that may wait to be sent on one connection in any case: health watches among them.
const FAIR_UNSENT: usize = 4;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// What a call must pass before a handler sees it.
pub struct Admission {
    pub keys: Keys,
    /// One for each call in flight.
    pub permits: Arc<Semaphore>,
    /// Cancelled when the server is to drain.
    pub stop: CancellationToken,
    /// Answers that are ready and not yet sent, on all connections.
    pub unsent: Arc<AtomicUsize>,
}

/// Serves one call and logs it.
pub async fn call(State(admission): State<Arc<Admission>>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    if !is_grpc(request.headers()) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let peer = request.extensions().get::<Arc<Peer>>().cloned().unwrap_or_default();
    let under_way = UnderWay::begin(Arc::clone(&peer));
    let request_id = request_id(request.headers());
    let access = auth::access(request.uri().path());
    let mut line = LogLine::start(access, &request, &request_id);
    let span = line.span.clone();
    let mut response = readable(admission.admit(access, request, next).instrument(span.clone()).await, &span);
    line.code = Some(response.extensions().get().map_or(Code::Ok, Status::code));
    response.headers_mut().insert(REQUEST_ID, request_id);
    drop(under_way);
    let answer = Unsent::ready(Arc::clone(&admission.unsent), peer);
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _until_it_is_sent = &answer;
            frame
        }))
    })
}

/// A call that has no answer yet.
struct UnderWay(Arc<Peer>);

impl UnderWay {
    fn begin(peer: Arc<Peer>) -> Self {
        peer.under_way.fetch_add(1, Relaxed);
        Self(peer)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// An answer that is ready and not yet sent. A peer that lets its answers lie, by a window of 0, is cut off once there
/// are too many of them.
struct Unsent {
    all: Arc<AtomicUsize>,
    peer: Arc<Peer>,
}

impl Unsent {
    fn ready(all: Arc<AtomicUsize>, peer: Arc<Peer>) -> Self {
        let (everyones, own) = (all.fetch_add(1, Relaxed) + 1, peer.unsent.fetch_add(1, Relaxed) + 1);
        if everyones > MOST_UNSENT && own > FAIR_UNSENT {
            peer.cut.cancel();
        }
        Self { all, peer }
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Relaxed);
        self.peer.unsent.fetch_sub(1, Relaxed);
    }
}

/// Answers a call whose handler panicked. The panic hook has logged where.
pub fn panicked(_message: Box<dyn Any + Send>) -> Response {
    Status::from(Error::Internal("a handler panicked".to_owned())).into_http()
}

impl Admission {
    /// Gives a call a permit and a deadline. Health and reflection need no permit: an overloaded service is alive.
    async fn admit(&self, access: Option<Access>, request: Request, next: Next) -> Response {
        let deadline = deadline(request.headers());
        let answered = async {
            match access {
                None => Ok(Status::unimplemented("There is no such method.").into_http()),
                Some(Access::Health) => Ok(next.run(request).await),
                // It answers as long as it is asked: its stream ends where the drain begins.
                Some(Access::Reflection) => Ok(next.run(request.map(|body| self.until_stop(body))).await),
                Some(Access::Key(scope)) => {
                    let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| Error::Overloaded)?;
                    Ok(next.run(self.authenticate(request, scope, permit).await?).await)
                }
            }
        };
        let answer = timeout(deadline, answered).await.unwrap_or(Err(Error::DeadlineExceeded));
        answer.unwrap_or_else(|error| Status::from(error).into_http())
    }

    /// The body, as far as it comes before the drain.
    fn until_stop(&self, body: Body) -> Body {
        Body::from_stream(body.into_data_stream().take_until(self.stop.clone().cancelled_owned()))
    }

    /// The request with its author.
    async fn authenticate(&self, mut request: Request, scope: Scope, permit: OwnedSemaphorePermit) -> Result<Request> {
        let presented = auth::presented(request.headers())?;
        let key = self.keys.authenticate(&presented, scope, clock::now()).await?;
        request.extensions_mut().insert(Author {
            organization_id: key.organization_id,
            key_id: key.id,
            key_name: key.name,
        });
        request.extensions_mut().insert(Permit::from(permit));
        Ok(request)
    }
}

/// What tonic itself answers to bytes that it cannot read is INTERNAL without details; ours always has details.
fn readable(response: Response, span: &Span) -> Response {
    match response.extensions().get::<Status>() {
        Some(status) if status.code() == Code::Internal && status.details().is_empty() => {
            span.in_scope(|| Status::from(Error::InvalidMessage)).into_http()
        }
        _ => response,
    }
}

/// Whether the content type is one of gRPC's: any other is answered 415, as gRPC over HTTP/2 has it.
fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// How long the call may take: until just before the caller's deadline, or the ceiling.
fn deadline(headers: &HeaderMap) -> Duration {
    let allowed = headers.get(GRPC_TIMEOUT).and_then(|value| grpc_timeout(value.to_str().ok()?));
    allowed.map_or(CEILING, |allowed| allowed.saturating_sub(MARGIN.min(allowed / 10)).min(CEILING))
}

/// A timeout in the form of gRPC over HTTP/2: at most 8 digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let valid = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: u64 = if valid { digits.parse().ok()? } else { return None };
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// The caller's request id if it is one that can be logged: short, and without the characters of an e-mail address or
/// a sentence. A new one otherwise.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let tame = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/' | b'=');
    match headers.get(REQUEST_ID) {
        Some(id) if (1..=128).contains(&id.len()) && id.as_bytes().iter().copied().all(tame) => id.clone(),
        _ => HeaderValue::try_from(clock::new_id().to_string()).unwrap_or(HeaderValue::from_static("none")),
    }
}

/// The one line that a call leaves in the log, also when its caller went away: it is written when this is dropped.
struct LogLine {
    span: Span,
    started: Instant,
    /// Health and reflection are asked all the time, and are about nobody.
    quiet: bool,
    code: Option<Code>,
}

impl LogLine {
    fn start(access: Option<Access>, request: &Request, request_id: &HeaderValue) -> Self {
        // A path that is no method's is the caller's text: it stays out of the log.
        let method = if access.is_some() { request.uri().path() } else { "unknown" };
        let request_id = request_id.to_str().unwrap_or_default();
        let span = tracing::info_span!("call", method, request_id, key_id = Empty, profile_id = Empty, reason = Empty);
        Self {
            span,
            started: Instant::now(),
            quiet: matches!(access, Some(Access::Health | Access::Reflection)),
            code: None,
        }
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let code = self.code.map_or_else(|| "caller went away".to_owned(), |code| format!("{code:?}"));
        let duration_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.span.in_scope(|| {
            if self.quiet {
                tracing::debug!(code, duration_us, "call");
            } else {
                tracing::info!(code, duration_us, "call");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::{Router, middleware::from_fn_with_state, routing::post};
    use futures_util::FutureExt as _;
    use tempfile::TempDir;
    use tokio_util::task::TaskTracker;
    use tower::Service as _;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::*;
    use crate::store::{DatabaseUrl, Store};

    async fn admission(directory: &TempDir) -> Arc<Admission> {
        let url = format!("sqlite://{}/profiles.db?mode=rwc", directory.path().display()).into();
        let store = Store::connect(&DatabaseUrl::parse(&url).expect("a URL"), 1).await.expect("a database");
        Arc::new(Admission {
            keys: Keys::new(store, TaskTracker::new()),
            permits: Arc::new(Semaphore::new(1)),
            stop: CancellationToken::new(),
            unsent: Arc::default(),
        })
    }

    fn check(body: &'static str) -> Request {
        let request = Request::post("/grpc.health.v1.Health/Check").header(CONTENT_TYPE, "application/grpc");
        request.body(Body::from(body)).expect("a request")
    }

    #[tokio::test]
    async fn a_call_is_under_way_until_its_answer_is_ready_or_its_caller_has_gone() {
        let directory = tempfile::tempdir().expect("a directory");
        let peer = Arc::<Peer>::default();
        let (called, never) = (Arc::clone(&peer), Arc::clone(&peer));
        let answers = post(|| async move { assert_eq!(called.under_way.load(Relaxed), 1) });
        let hangs = post(|| async move {
            assert_eq!(never.under_way.load(Relaxed), 1);
            pending::<()>().await;
        });
        let admission = admission(&directory).await;
        for handler in [answers, hangs] {
            let mut calls = Router::new()
                .route("/grpc.health.v1.Health/Check", handler)
                .layer(from_fn_with_state(Arc::clone(&admission), call));
            let mut request = check("");
            request.extensions_mut().insert(Arc::clone(&peer));
            let answer = calls.call(request).now_or_never();
            assert_eq!(peer.under_way.load(Relaxed), 0);
            drop(answer);
        }
    }

    #[tokio::test]
    async fn a_panic_is_internal_without_its_words_and_the_next_call_is_served() {
        let directory = tempfile::tempdir().expect("a directory");
        let handler = |body: String| async move { assert!(body != "Ada", "the name is {body}") };
        let mut calls = Router::new()
            .route("/grpc.health.v1.Health/Check", post(handler))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(from_fn_with_state(admission(&directory).await, call));
        for (body, code, message) in [
            ("Ada", Some(Code::Internal), "The service failed; the fault is on its side and in its log."),
            ("Eve", None, ""),
        ] {
            let response = calls.call(check(body)).await.expect("an answer");
            let status = response.extensions().get::<Status>();
            assert_eq!(status.map(Status::code), code);
            assert_eq!(status.map(Status::message).unwrap_or_default(), message);
        }
    }

    #[test]
    fn timeouts_are_read_in_every_unit_and_nothing_else_is_one() {
        let read: Vec<_> = ["1H", "2M", "3S", "4m", "5u", "6n"].map(grpc_timeout).into_iter().flatten().collect();
        assert_eq!(format!("{read:?}"), "[3600s, 120s, 3s, 4ms, 5µs, 6ns]");
        for text in ["", "S", "1", "1s", "-1S", "+1S", "123456789S", "1 S", "\u{e9}"] {
            assert_eq!(grpc_timeout(text), None, "{text:?}");
        }
    }

    #[test]
    fn our_deadline_comes_before_the_callers_and_the_ceiling() {
        let of =
            |value: &'static str| deadline(&HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static(value))]));
        assert_eq!(of("1S"), Duration::from_millis(900));
        assert_eq!(of("10m"), Duration::from_millis(9));
        assert_eq!((of("99999999H"), deadline(&HeaderMap::new())), (CEILING, CEILING));
    }
}
