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
    /// A stream's course and its guard, which ends it from outside where its time, its connection or its key is over,
    /// or its peer takes nothing: first by a status, and if that does not reach the peer by being ready.
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

impl State {
    /// When its peer has taken nothing for too long, unless it takes something before.
    fn due(&self) -> Option<Instant> {
        let patience = if self.taken { SLOW } else { DEAF };
        (self.unread > 0).then(|| self.since + patience)
    }
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
            let due = self.state().due();
            if due.is_some_and(|due| due <= Instant::now()) {
                return;
            }
            // What comes meanwhile is due no earlier.
            sleep_until(due.unwrap_or_else(|| Instant::now() + DEAF)).await;
        }
    }

    /// Waits for ever, but where there is no message by then.
    async fn late(&self, time: Option<Instant>) {
        at(time).await;
        if self.state().begun {
            at(None).await;
        }
    }

    /// What it holds is whole between two changes: none of them can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::{FutureExt as _, future::BoxFuture};
    use tokio::sync::Semaphore;
    use tokio_util::sync::CancellationToken;
    use tonic::Code;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    fn begin(peer: &Peer, invalid: &CancellationToken, until: Until) -> (Course, BoxFuture<'static, ()>) {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a place");
        let mut place = Place::without_key(permit);
        place.invalid = invalid.clone();
        let (course, guard) = Course::begin(LogLine::start(None, "", None), peer, place, until);
        (course, guard.boxed())
    }

    /// How the guard ends the stream, before it resets it.
    async fn ended(course: &mut Course, mut guard: BoxFuture<'static, ()>) -> Code {
        let error = tokio::select! {
            error = &mut course.ended => error.expect("a reason"),
            () = &mut guard => unreachable!("it says why first"),
        };
        assert!((&mut guard).now_or_never().is_none(), "it leaves the peer time to read that");
        guard.await;
        Status::from(error).code()
    }

    #[tokio::test]
    async fn a_stream_ends_where_its_time_its_connection_or_its_key_does_whether_it_is_read_or_not() {
        for unread in [false, true] {
            let (peer, invalid) = (Peer::default(), CancellationToken::new());
            let begin = |until| {
                let stream = begin(&peer, &invalid, until);
                if unread {
                    stream.0.progress.wait();
                }
                stream
            };
            let (mut late, late_guard) = begin(Until { end: Some(Instant::now() + SOON), ..Until::default() });
            assert_eq!(ended(&mut late, late_guard).await, Code::DeadlineExceeded);
            let ((mut old, old_guard), (mut revoked, revoked_guard)) =
                (begin(Until::default()), begin(Until::default()));
            peer.ending.cancel();
            assert_eq!(ended(&mut old, old_guard).await, Code::Unavailable);
            invalid.cancel();
            assert_eq!(ended(&mut revoked, revoked_guard).await, Code::Unauthenticated);
        }
    }

    #[tokio::test]
    async fn a_stream_must_begin_in_time_and_then_may_take_any() {
        let until = Until { first_message: Some(Instant::now() + SOON), ..Until::default() };
        let (peer, valid) = (Peer::default(), CancellationToken::new());
        let (begun, mut begun_guard) = begin(&peer, &valid, until);
        begun.progress.wait();
        begun.progress.take();
        let (mut silent, silent_guard) = begin(&peer, &valid, until);
        assert!((&mut begun_guard).now_or_never().is_none());
        assert_eq!(ended(&mut silent, silent_guard).await, Code::DeadlineExceeded);
        assert!((&mut begun_guard).now_or_never().is_none());
    }

    #[test]
    fn who_takes_nothing_at_all_is_stuck_sooner_than_who_is_slow() {
        let progress = Progress::default();
        let due = || {
            let state = progress.state();
            state.due().map(|due| (due - state.since).as_secs())
        };
        assert_eq!(due(), None);
        progress.wait();
        progress.wait();
        assert_eq!(due(), Some(10));
        progress.take();
        assert_eq!(due(), Some(60));
        progress.take();
        assert_eq!(due(), None);
        progress.wait();
        assert_eq!(due(), Some(60));
    }

    #[tokio::test]
    async fn who_takes_nothing_for_too_long_is_stuck() {
        let (peer, valid) = (Peer::default(), CancellationToken::new());
        let (mut deaf, guard) = begin(&peer, &valid, Until::default());
        deaf.progress.wait();
        deaf.progress.state().since -= DEAF;
        assert_eq!(ended(&mut deaf, guard).await, Code::Unavailable);
    }

    #[tokio::test]
    async fn a_stream_is_one_of_its_connection_until_it_ends() {
        let peer = Peer::default();
        let stream = begin(&peer, &CancellationToken::new(), Until::default());
        peer.streams.close();
        let mut all = pin!(peer.streams.wait());
        assert!(all.as_mut().now_or_never().is_none());
        drop(stream);
        all.await;
    }
}
