//! A client for programs in Rust: the feature `client`, which is on by default.
//!
//! A call is its request: [`Client::call`] takes the request of any RPC with one answer and gives that answer,
//! [`Client::pages`] walks a list, [`Client::stream`] reads a stream, and [`Client::watch`] follows all changes, also when
//! the connection ends. The messages are in [`pb`].
//!
//! ```
//! use profile_service::{
//!     client::{Client, Error, Reason},
//!     pb,
//! };
//!
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service.rs"));
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let service = Service::start();
//! # let (address, key) = (&service.address, &service.key);
//! let client = Client::builder(address).key(key).build()?;
//! let ada = pb::Profile { first_name: Some("Ada".into()), last_name: Some("Byron".into()), ..Default::default() };
//! let ada = client.call(pb::CreateProfileRequest { profile: Some(ada), ..Default::default() }).await?;
//!
//! let patch = pb::Profile { id: ada.id, dob: Some("10 December".into()), ..Default::default() };
//! let refused = client.call(pb::PatchProfileRequest { profile: Some(patch), ..Default::default() }).await;
//! let error: Error = refused.err().expect("no date of birth");
//! assert!(error.is(&Reason::InvalidFields));
//! assert_eq!(error.violations()[0].field, "profile.dob");
//! # Ok(())
//! # }
//! ```
//!
//! What it does by itself:
//!
//! - A write without a `request_id` is given one, so that no repetition makes it twice.
//! - A call is repeated as docs/errors.md says, in the bounds of [`Builder::attempts`] and [`Builder::deadline`]: what was
//!   not executed, after the delay that the service asks for; what may have been, where it is harmless; what was under way
//!   on a connection that ended, such as at its age, at once. Retries of your own around it would multiply.
//! - Each attempt tells the service how much time is left.
//! - A connection that answers no pings for 8 s is given up.
//!
//! One client is one connection, which all its clones share and which is opened again whenever it ends. Keep one for the
//! program. It looks the host up at each connection and takes its first address: replicas need a balancer before them, or
//! the name of one.

mod builder;
mod error;
mod retry;
mod rpc;
mod watch;

use std::time::Duration;

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use http::uri::PathAndQuery;
use tokio::time::{Instant, timeout_at};
use tonic::{
    Request, Streaming,
    client::Grpc,
    metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap},
    transport::Channel,
};
use tonic_prost::ProstCodec;

use self::retry::Attempts;
pub use self::{
    builder::{BuildError, Builder},
    error::{Error, Reason, Violation},
    rpc::{Paged, Rpc, ServerStreaming, Unary},
};
use crate::{clock, pb};
pub use tonic::Code;

/// Messages as they come, to the first error or the end.
pub type Messages<T> = BoxStream<'static, Result<T, Error>>;

/// A client with a key. Clones share its connection.
#[derive(Clone, Debug)]
pub struct Client {
    grpc: Grpc<Channel>,
    metadata: MetadataMap,
    deadline: Duration,
    /// How long a stream may take, if that is limited.
    stream_deadline: Option<Duration>,
    attempts: u32,
}

impl Client {
    /// Begins a client of the service at this address, `http://HOST:PORT` or `https://HOST:PORT`.
    pub fn builder(address: impl Into<String>) -> Builder {
        Builder::new(address.into())
    }

    fn new(channel: Channel, metadata: MetadataMap, deadline: Duration, attempts: u32) -> Self {
        Self { grpc: Grpc::new(channel), metadata, deadline, stream_deadline: None, attempts }
    }

    /// The same client with another deadline. A stream has to end by it too: without this it may last for ever.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, stream_deadline: Some(deadline), ..self.clone() }
    }

    /// The same client with a header besides, such as `x-actor`: who of the caller's people acts, for the history.
    ///
    /// # Errors
    ///
    /// Where no header can have this name or value.
    pub fn with_metadata(&self, name: &'static str, value: &str) -> Result<Self, BuildError> {
        let key = AsciiMetadataKey::from_bytes(name.as_bytes()).map_err(|_| BuildError::Header(name))?;
        let value = AsciiMetadataValue::try_from(value).map_err(|_| BuildError::Header(name))?;
        let mut client = self.clone();
        client.metadata.insert(key, value);
        Ok(client)
    }

    /// Makes a call, and repeats it as docs/errors.md says. A write without a request id is given one; one that has to be
    /// known when the program ends, for a repetition by the next, is set by the caller.
    ///
    /// # Errors
    ///
    /// Where it is not to be repeated, has been attempted often enough, or cannot be repeated before the deadline.
    pub async fn call<R: Unary>(&self, mut request: R) -> Result<R::Response, Error> {
        if let Some(id) = request.request_id().filter(|id| id.is_empty()) {
            *id = clock::new_id().to_string();
        }
        let until = Instant::now() + self.deadline;
        let mut attempts = Attempts::new(self.attempts, R::REPEATABLE);
        loop {
            match self.attempt(request.clone(), until).await {
                Ok(answer) => return Ok(answer),
                Err(error) => attempts.wait(error, Some(until)).await?,
            }
        }
    }

    /// The pages of a list, from the one that the request's token names. Each is a call of its own.
    ///
    /// ```no_run
    /// # use profile_service::{client::{Client, Error}, pb};
    /// use futures_util::TryStreamExt;
    ///
    /// # async fn list(client: Client) -> Result<(), Error> {
    /// let mut pages = client.pages(pb::ListProfilesRequest { name_prefix: "byron".into(), ..Default::default() });
    /// while let Some(page) = pages.try_next().await? {
    ///     println!("{} profiles", page.profiles.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn pages<R: Paged>(&self, request: R) -> Messages<R::Response> {
        let turn = |(client, request): (Self, Option<R>)| async move {
            let Some(mut request) = request else { return Ok(None) };
            let page = client.call(request.clone()).await?;
            let next = request.turn(&page).then_some(request);
            Ok(Some((page, (client, next))))
        };
        stream::try_unfold((self.clone(), Some(request)), turn).boxed()
    }

    /// Reads a stream. Opening it is repeated as a call is; once it has begun, an error ends it, and it has to be begun
    /// anew. WatchProfiles goes on by itself through [`Client::watch`].
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn stream<R: ServerStreaming>(&self, request: R) -> Result<Messages<R::Response>, Error> {
        let until = self.stream_deadline.map(|deadline| Instant::now() + deadline);
        let opened = Instant::now() + self.deadline;
        let mut attempts = Attempts::new(self.attempts, R::REPEATABLE);
        loop {
            match self.open(request.clone(), opened, until).await {
                Ok(messages) => return Ok(messages.map(|message| message.map_err(Error::from)).boxed()),
                Err(error) => attempts.wait(error, Some(opened)).await?,
            }
        }
    }

    /// Follows the changes of all profiles, over as many connections as it takes: where a stream ends or breaks off, or
    /// is silent for 40 s, it is opened again with the last token, for as long as the service is away.
    ///
    /// Every message has the token that goes on behind it; keep the last one that was taken in, and begin with it next
    /// time. A heartbeat comes every 15 s: whoever wants to know that the service is away waits for the next message with a
    /// time limit.
    ///
    /// An error that no repetition helps ends it. At [`Reason::ResumeTokenExpired`], such as after a restore, begin anew
    /// without a token: what the snapshot does not show, up to its end, is gone.
    pub fn watch(&self, request: pb::WatchProfilesRequest) -> Messages<pb::WatchProfilesResponse> {
        watch::watch(self.clone(), request)
    }

    /// One attempt.
    async fn attempt<R: Unary>(&self, request: R, until: Instant) -> Result<R::Response, Error> {
        let mut grpc = self.grpc.clone();
        let answer = async {
            grpc.ready().await.map_err(disconnected)?;
            let request = self.request(request, Some(until));
            let answer = grpc.unary(request, PathAndQuery::from_static(R::PATH), ProstCodec::default()).await?;
            Ok(answer.into_inner())
        };
        timeout_at(until, answer).await.unwrap_or_else(|_| Err(Error::late()))
    }

    /// Opens a stream by the first of these times; it has to end by the second.
    async fn open<R: ServerStreaming>(
        &self,
        request: R,
        opened: Instant,
        until: Option<Instant>,
    ) -> Result<Streaming<R::Response>, Error> {
        let mut grpc = self.grpc.clone();
        let answer = async {
            grpc.ready().await.map_err(disconnected)?;
            let request = self.request(request, until);
            let path = PathAndQuery::from_static(R::PATH);
            Ok(grpc.server_streaming(request, path, ProstCodec::default()).await?.into_inner())
        };
        timeout_at(opened, answer).await.unwrap_or_else(|_| Err(Error::late()))
    }

    /// The message with the key, and the time that is left.
    fn request<T>(&self, message: T, until: Option<Instant>) -> Request<T> {
        let mut request = Request::from_parts(self.metadata.clone(), http::Extensions::new(), message);
        if let Some(until) = until {
            request.set_timeout(until.saturating_duration_since(Instant::now()));
        }
        request
    }
}

#[cfg(doctest)]
#[doc = include_str!("../../docs/rust-client.md")]
struct Document;

/// There is no connection.
fn disconnected(error: tonic::transport::Error) -> Error {
    tonic::Status::from_error(error.into()).into()
}
