//! What happens around every call, in the order of the code: a free place, log line, deadline, key, whole message, permit, handler.

use std::{any::Any, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, Either, Ready, ready},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
    try_join,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, codegen::Service as _};
use tracing::Instrument as _;

use super::{
    answer::Answer,
    calls::CALLS,
    course::{Course, Until},
    deadline,
    keys::Keys,
    line::LogLine,
    message,
    peer::{Backlog, Peer, WINDOW},
    streams::{Place, Streams, overloaded},
    task,
};
use crate::{
    clock,
    error::{Error, Result},
    grpc::{
        auth::{self, Access},
        status::{self, Unrepeatable},
        stream::StreamEnd,
    },
    metrics::METRICS,
    profile::change::Author,
    scope::Scope,
    telemetry,
    trace::Tracing,
    write::Permit,
};

/// The largest message that is read, in bytes.
pub const LARGEST_MESSAGE: usize = 64 * 1024;

/// The largest message of health and reflection, which need no key, in bytes.
pub const LARGEST_QUESTION: usize = 1024;

/// What a stream of reflection keeps besides an answer that its peer has not read, in bytes: two more answers, of a file
/// each, and the questions that wait for theirs.
const REFLECTION: usize = 2 * LARGEST_FILE + WINDOW as usize;

/// The largest file of the contract, in bytes.
const LARGEST_FILE: usize = 20 * 1024;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a call must pass before a handler sees it.
pub struct Admission {
    pub keys: Arc<Keys>,
    /// One for each call in flight.
    pub permits: Arc<Semaphore>,
    /// Streams that need a key, which are no calls in flight.
    pub streams: Arc<Streams>,
    /// Cancelled when the server is to drain.
    pub stop: CancellationToken,
    /// What waits for peers to read it, or to send the rest of it.
    pub backlog: Arc<Backlog>,
    /// Where calls are traced.
    pub tracing: Option<Arc<Tracing>>,
    /// What answers a call that has passed.
    pub handlers: Router,
}

/// What is answered, and a stream's place among those of its kind.
type Admitted = (Response, Option<Place>);

/// Answers a call whose handler panicked. The panic hook has logged where.
pub fn panicked(_message: Box<dyn Any + Send>) -> Response {
    Status::from(Error::Internal("a handler panicked".to_owned())).into_http()
}

impl Admission {
    /// Serves one call of this peer.
    pub fn call(
        self: Arc<Self>,
        peer: Arc<Peer>,
        request: Request,
    ) -> Either<Ready<Response>, BoxFuture<'static, Response>> {
        match self.refused_at_once(&request) {
            Some(response) => ready(response).left_future(),
            None => self.served(peer, request).boxed().right_future(),
        }
    }

    /// The answer to what is no call, or one for which there is no place: before its key is looked up and its message is
    /// read, so that a flood costs less. It is counted like any other, and has no line in the log.
    fn refused_at_once(&self, request: &Request) -> Option<Response> {
        if request.method() != http::Method::POST {
            return Some(StatusCode::METHOD_NOT_ALLOWED.into_response());
        }
        if !is_grpc(request.headers()) {
            return Some(StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response());
        }
        // One that still finds a place here may find none when it takes its permit.
        let method = auth::method(request.uri().path()).filter(|method| {
            matches!(method.access, Access::AnyKey | Access::Key(_)) && self.permits.available_permits() == 0
        })?;
        let counted = CALLS.of(Some(method));
        counted.begin();
        METRICS.shed.calls.inc();
        let mut response = status::overloaded();
        counted.end(Some(Code::ResourceExhausted), Duration::ZERO);
        response.headers_mut().insert(REQUEST_ID, request_id(request.headers()));
        Some(response)
    }

    /// Serves one call and logs it.
    async fn served(self: Arc<Self>, peer: Arc<Peer>, mut request: Request) -> Response {
        let request_id = request_id(request.headers());
        let method = auth::method(request.uri().path());
        let access = method.map(|method| method.access);
        let (started, allowed) = (Instant::now(), deadline::of_caller(request.headers()));
        let mut line = LogLine::start(method, request_id.to_str().unwrap_or_default(), peer.client.as_deref());
        line.trace(self.tracing.as_deref(), method, request.headers());
        let unrepeatable = Unrepeatable::default();
        request.extensions_mut().insert(unrepeatable.clone());
        let until_it_answers = allowed.unwrap_or(Duration::MAX).min(deadline::CEILING);
        let answered = async {
            let admitted = timeout(until_it_answers, self.admit(access, &peer, request)).await;
            let admitted = admitted.unwrap_or(Err(Error::DeadlineExceeded));
            let (response, place) = admitted.unwrap_or_else(|error| (Status::from(error).into_http(), None));
            (explained(response, &unrepeatable), place)
        };
        let (mut response, place) = answered.instrument(line.span.clone()).await;
        response.headers_mut().insert(REQUEST_ID, request_id);
        let course = match (place, response.extensions().get()) {
            (Some(place), None) => {
                let first_message = matches!(access, Some(Access::Stream(_))).then(|| started + deadline::CEILING);
                let until = Until { first_message, end: allowed.and_then(|allowed| started.checked_add(allowed)) };
                let (course, guard) = Course::begin(line, &peer, place, until);
                task::guard(guard);
                Some(course)
            }
            (_, status) => {
                line.code = Some(status.map_or(Code::Ok, Status::code));
                None
            }
        };
        let kept = if access == Some(Access::Reflection) { REFLECTION } else { 0 };
        let backlog = Arc::clone(&self.backlog);
        response.map(|body| Body::new(Answer { body, kept, backlog, peer, course }))
    }

    /// Lets a call pass: its key, its whole message, its permit. Health and reflection need neither key nor permit
    /// among the calls in flight: an overloaded service is alive.
    async fn admit(&self, access: Option<Access>, peer: &Arc<Peer>, request: Request) -> Result<Admitted> {
        match access {
            None => Err(Error::UnknownMethod),
            Some(Access::Health) => Ok((self.handled(self.whole(request, LARGEST_QUESTION, peer).await?).await, None)),
            Some(Access::HealthWatch) => {
                let place = keyless_stream(peer)?;
                Ok((self.handled(self.whole(request, LARGEST_QUESTION, peer).await?).await, Some(place)))
            }
            // It answers as long as it is asked: its stream ends where the drain begins.
            Some(Access::Reflection) => {
                let place = keyless_stream(peer)?;
                Ok((self.handled(request.map(|body| self.until_stop(body))).await, Some(place)))
            }
            Some(Access::AnyKey) => self.answer(None, peer, request).await,
            Some(Access::Key(scope)) => self.answer(Some(scope), peer, request).await,
            Some(Access::Stream(scope)) => self.stream(scope, peer, request).await,
        }
    }

    /// Answers one message, as a call in flight.
    async fn answer(&self, scope: Option<Scope>, peer: &Arc<Peer>, request: Request) -> Result<Admitted> {
        let mut request = self.authenticated(request, scope, peer).await?.0;
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| overloaded(&METRICS.shed.calls))?;
        request.extensions_mut().insert(Permit::from(permit));
        Ok((self.handled(request).await, None))
    }

    /// Answers a stream, which is no call in flight: it may stay open for long, and does little.
    async fn stream(&self, scope: Scope, peer: &Arc<Peer>, request: Request) -> Result<Admitted> {
        let (mut request, key_id) = self.authenticated(request, Some(scope), peer).await?;
        let place = self.streams.enter(&key_id)?;
        request.extensions_mut().insert(StreamEnd(peer.ending.clone()));
        Ok((self.handled(request).await, Some(place)))
    }

    /// The request with its whole message and its author, and the author's key.
    async fn authenticated(
        &self,
        request: Request,
        scope: Option<Scope>,
        peer: &Arc<Peer>,
    ) -> Result<(Request, String)> {
        let (head, body) = request.into_parts();
        let read = |counted| message::read(body, LARGEST_MESSAGE, &self.backlog, peer, counted);
        let (author, (message, _counted)) = {
            let mut author = pin!(self.authenticate(&head.headers, scope, peer));
            if let Some(author) = author.as_mut().now_or_never() {
                (author?, read(None).await?)
            } else {
                // The message is read meanwhile, so that nothing is left where it is not counted, and waits with its call;
                // a key that is refused is told first.
                try_join!(author, read(Some(self.backlog.wait(peer, 0))))?
            }
        };
        let mut request = Request::from_parts(head, message.into());
        let key_id = author.key_id.clone();
        request.extensions_mut().insert(author);
        Ok((request, key_id))
    }

    /// Who makes a call with this key.
    async fn authenticate(&self, headers: &HeaderMap, scope: Option<Scope>, peer: &Peer) -> Result<Author> {
        let presented = auth::presented(headers)?;
        let key = self.keys.authenticate(&presented, scope, peer, clock::now()).await?;
        // What is no actor stays out of the log; the handler refuses it, with whatever else is wrong.
        let actor = auth::actor(headers).ok().flatten();
        actor.iter().for_each(telemetry::note_actor);
        Ok(Author { organization_id: key.organization_id, key_id: key.id, key_name: key.name, actor })
    }

    /// The request with its whole message.
    async fn whole(&self, request: Request, most: usize, peer: &Arc<Peer>) -> Result<Request> {
        let (head, body) = request.into_parts();
        let (message, _counted) = message::read(body, most, &self.backlog, peer, None).await?;
        Ok(Request::from_parts(head, message.into()))
    }

    async fn handled(&self, request: Request) -> Response {
        self.handlers.clone().call(request).await.unwrap_or_else(|never| match never {})
    }

    /// The body, as far as it comes before the drain.
    fn until_stop(&self, body: Body) -> Body {
        Body::from_stream(body.into_data_stream().take_until(self.stop.clone().cancelled_owned()))
    }
}

/// A place among the streams that the peer may have open without a key: no peer's keep another's out.
fn keyless_stream(peer: &Peer) -> Result<Place> {
    let permit = Arc::clone(&peer.keyless_streams).try_acquire_owned();
    let permit = permit.map_err(|_| overloaded(&METRICS.shed.streams_without_key))?;
    Ok(Place::without_key(permit))
}

/// The answer, which says why where tonic itself has refused, and whether the call may be repeated.
fn explained(response: Response, unrepeatable: &Unrepeatable) -> Response {
    let mut response = match response.extensions().get().and_then(status::explained) {
        Some(status) => status.into_http(),
        None => response,
    };
    if let Some(status) = response.extensions().get()
        && unrepeatable.forbids(status)
    {
        response.headers_mut().insert(status::PUSHBACK, status::NEVER);
    }
    response
}

/// Whether the content type is one of gRPC's: any other is answered 415, as gRPC over HTTP/2 has it.
fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
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

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use http_body::Frame;
    use http_body_util::BodyExt as _;
    use prost::Message as _;
    use prost_types::FileDescriptorSet;
    use tempfile::TempDir;
    use tokio_util::task::TaskTracker;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::*;
    use crate::{
        pb,
        store::{DatabaseUrl, Store},
        value::KeyText,
    };

    async fn admission(directory: &TempDir, handlers: Router) -> Arc<Admission> {
        let url = format!("sqlite://{}/profiles.db?mode=rwc", directory.path().display()).into();
        let store = Store::connect(&DatabaseUrl::parse(&url).expect("a URL"), 1).await.expect("a database");
        Arc::new(Admission {
            keys: Arc::new(Keys::new(store, TaskTracker::new())),
            permits: Arc::new(Semaphore::new(1)),
            streams: Arc::new(Streams::new(Arc::new(Semaphore::new(1)), 1)),
            stop: CancellationToken::new(),
            backlog: Arc::default(),
            tracing: None,
            handlers,
        })
    }

    #[test]
    fn no_file_is_larger_than_what_is_counted_for_it() {
        for descriptors in [pb::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET] {
            let files = FileDescriptorSet::decode(descriptors).expect("descriptors").file;
            for file in files {
                assert!(file.encoded_len() <= LARGEST_FILE, "{}: {}", file.name(), file.encoded_len());
            }
        }
    }

    fn question(path: &str, body: &'static str) -> Request {
        let request = Request::post(path).header(CONTENT_TYPE, "application/grpc");
        request.body(Body::from(body)).expect("a request")
    }

    #[tokio::test]
    async fn an_answer_of_reflection_that_is_not_read_counts_what_its_stream_keeps_besides() {
        const ANSWERS: usize = 100;
        let directory = tempfile::tempdir().expect("a directory");
        let paths = ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"];
        let answers = |path| Router::new().route(path, post(async || "answer"));
        let admission = admission(&directory, answers(paths[0]).merge(answers(paths[1]))).await;
        for (path, is_too_much) in paths.into_iter().zip([false, true]) {
            let (peer, mut unread) = (Arc::<Peer>::default(), Vec::new());
            for _ in 0..ANSWERS {
                let response = Arc::clone(&admission).call(Arc::clone(&peer), question(path, "")).await;
                unread.push(response.into_body().frame().await);
            }
            assert!(unread.iter().flatten().all(|frame| frame.as_ref().is_ok_and(Frame::is_data)));
            assert_eq!(peer.cut.is_cancelled(), is_too_much, "{path}");
        }
    }

    #[tokio::test]
    async fn a_call_is_counted_as_long_as_its_key_is_looked_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let (admission, peer) = (admission(&directory, Router::new()).await, Arc::<Peer>::default());
        let calls: Vec<_> = (0..1000)
            .map(|_| {
                let mut request = question("/profiles.v1.ProfileService/GetProfile", "");
                let key = KeyText::generate().expose().parse().expect("a header");
                request.headers_mut().insert("cv-api-key", key);
                let mut call = Arc::clone(&admission).call(Arc::clone(&peer), request);
                assert!((&mut call).now_or_never().is_none());
                call
            })
            .collect();
        assert!(peer.cut.is_cancelled(), "{} calls with 10 KiB each", calls.len());
    }

    #[tokio::test]
    async fn a_panic_is_internal_without_its_words_and_the_next_call_is_served() {
        let directory = tempfile::tempdir().expect("a directory");
        let handler = |body: String| async move { assert!(body != "Ada", "the name is {body}") };
        let handlers =
            Router::new().route("/grpc.health.v1.Health/Check", post(handler)).layer(CatchPanicLayer::custom(panicked));
        let admission = admission(&directory, handlers).await;
        for (body, code, message) in [
            ("Ada", Some(Code::Internal), "The service failed; the fault is on its side and in its log."),
            ("Eve", None, ""),
        ] {
            let response =
                Arc::clone(&admission).call(Arc::default(), question("/grpc.health.v1.Health/Check", body)).await;
            let status = response.extensions().get::<Status>();
            assert_eq!(status.map(Status::code), code);
            assert_eq!(status.map(Status::message).unwrap_or_default(), message);
        }
    }
}
