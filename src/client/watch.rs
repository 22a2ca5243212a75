//! WatchProfiles, over as many streams as it takes.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, timeout_at};
use tonic::Streaming;

use super::{Client, Error, Messages, retry::Attempts};
use crate::pb::{WatchProfilesRequest, WatchProfilesResponse};

/// How long a stream may be silent: heartbeats come every 15 s.
const SILENCE: Duration = Duration::from_secs(40);

/// A follower, and where it is.
struct Follower {
    client: Client,
    /// What opens the next stream.
    request: WatchProfilesRequest,
    until: Option<Instant>,
    open: Option<Streaming<WatchProfilesResponse>>,
    attempts: Attempts,
}

pub fn watch(client: Client, request: WatchProfilesRequest) -> Messages<WatchProfilesResponse> {
    let until = client.stream_deadline.map(|deadline| Instant::now() + deadline);
    let follower = Follower { client, request, until, open: None, attempts: Attempts::unbounded() };
    let next = |mut follower: Follower| async move { Ok(Some((follower.next().await?, follower))) };
    stream::try_unfold(follower, next).boxed()
}

impl Follower {
    /// The next message, by whichever stream.
    async fn next(&mut self) -> Result<WatchProfilesResponse, Error> {
        loop {
            match self.read().await {
                Ok(message) => {
                    self.request = WatchProfilesRequest {
                        resume_token: message.resume_token.clone(),
                        ..WatchProfilesRequest::default()
                    };
                    self.attempts = Attempts::unbounded();
                    return Ok(message);
                }
                Err(error) => {
                    self.open = None;
                    self.attempts.wait(error, self.until).await?;
                }
            }
        }
    }

    /// The next message of this stream, which is opened if it is not.
    async fn read(&mut self) -> Result<WatchProfilesResponse, Error> {
        let messages = match &mut self.open {
            Some(messages) => messages,
            closed => {
                let opened = Instant::now() + self.client.deadline;
                closed.insert(self.client.open(self.request.clone(), opened, self.until).await?)
            }
        };
        let silent = Instant::now() + SILENCE;
        match timeout_at(silent.min(self.until.unwrap_or(silent)), messages.message()).await {
            Ok(message) => message?.ok_or_else(Error::broken),
            Err(_) if self.until.is_some_and(|until| until <= Instant::now()) => Err(Error::late()),
            Err(_) => Err(Error::broken()),
        }
    }
}
