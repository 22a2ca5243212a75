//! The course of a stream: what it has with it to its end, and who ends it.

use std::{
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Status;

use super::{
    deadline::CEILING,
    line::{LogLine, Sent},
    peer::Peer,
    streams::Place,
};
use crate::error::Error;

/// How long a handler may take to end its stream by itself, once it was told to.
const FOR_THE_HANDLER: Duration = Duration::from_secs(1);

/// How long the peer may take to let the status of a stream come that is ended. Then the stream is reset.
const FOR_THE_STATUS: Duration = Duration::from_millis(500);

/// How long a stream may last once it was told to end, and a little more.
pub const LONGEST_END: Duration = Duration::from_secs(2);

/// How long the peer may leave a message where it is when it has taken others: it may have much to do with those.
const SLOW: Duration = Duration::from_mins(1);

/// How long it may leave the first one: who opens no window, ever, is cut.
const DEAF: Duration = CEILING;

/// What a stream has with it to its end. A call that answers one message has ended when that is ready.
pub struct Course {
    pub line: LogLine,
    pub progress: Arc<Progress>,
    /// Why it ends, where the guard ends it.
    pub ended: oneshot::Receiver<Error>,
    _place: Place,
    _of_peer: TaskTrackerToken,
}

/// Until when a stream must have begun, and ended.
#[derive(Clone, Copy, Default)]
pub struct Until {
    pub first_message: Option<Instant>,
    /// The caller's deadline.
    pub end: Option<Instant>,
}

impl Course {
    /// A stream's course and its guard, which ends it from outside where its time, its connection or its key is over, or
    /// its peer takes nothing: first by a status, and if that does not reach the peer by being ready.
    pub fn begin(
        mut line: LogLine,
        peer: &Peer,
        place: Place,
        until: Until,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let progress = Arc::<Progress>::default();
        let (end, ended) = oneshot::channel();
        let (watched, ending, invalid) = (Arc::clone(&progress), peer.ending.clone(), place.invalid.clone());
        let guard = async move {
            let error = tokio::select! {
                () = at(until.end) => Error::DeadlineExceeded,
                () = watched.late(until.first_message) => Error::DeadlineExceeded,
                () = invalid.cancelled() => Error::ApiKeyInvalid,
                () = async { ending.cancelled().await; sleep(FOR_THE_HANDLER).await } => Error::StreamEnded,
                () = watched.stuck() => Error::StreamEnded,
            };
            let _ = end.send(error); // it has ended by itself
            sleep(FOR_THE_STATUS).await;
        };
        line.sent = Some(Sent::default());
        (Self { line, progress, ended, _place: place, _of_peer: peer.streams.token() }, guard)
    }
}

impl Drop for Course {
    /// Notes why the stream was ended, where its peer could not be told.
    fn drop(&mut self) {
        if self.line.code.is_none()
            && let Ok(error) = self.ended.try_recv()
        {
            self.line.code = Some(self.line.span.in_scope(|| Status::from(error)).code());
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// How much of a stream its peer takes.
pub struct Progress(Mutex<State>);

struct State {
    /// Pieces that HTTP/2 has not sent.
    unread: usize,
    /// Whether any has been sent.
    taken: bool,
    begun: bool,
    /// When the last piece was sent, or the first of those came that are there.
    since: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self(Mutex::new(State { unread: 0, taken: false, begun: false, since: Instant::now() }))
    }
}

impl Progress {
    /// Notes that a piece waits to be sent.
    pub fn wait(&self) {
        let mut state = self.state();
        state.begun = true;
        if state.unread == 0 {
            state.since = Instant::now();
        }
        state.unread += 1;
    }

    /// Notes that a piece was sent.
    pub fn take(&self) {
        let mut state = self.state();
        state.unread -= 1;
        state.taken = true;
        state.since = Instant::now();
    }

    /// Waits until nothing has been taken for too long.
    async fn stuck(&self) {
        loop {
            let due = {
                let state = self.state();
                let patience = if state.taken { SLOW } else { DEAF };
                if state.unread == 0 { Instant::now() + DEAF } else { state.since + patience }
            };
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }

    /// Waits for ever, but where there is no message by then.
    async fn late(&self, time: Option<Instant>) {
        at(time).await;
        if self.state().begun {
            pending().await
        }
    }

    /// What it holds is whole between two changes: none of them can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
