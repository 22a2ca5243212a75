//! The turns of connections that have more to read than is served at once: what was taken on goes first, the rest waits
//! unread, and HTTP/2 holds its callers back.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    select,
    sync::{Semaphore, SemaphorePermit},
    task::yield_now,
    time::{Instant, sleep},
};

use super::{listen::BURST, peer::Peer};

/// Places for calls that are free before a connection with more to read goes on: as many as its last burst had calls, and
/// at the most so many.
const ROOM: usize = 32;

/// How long it waits for them at the most, such as when no call ends. What it asks then is refused.
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// How often it looks for them.
const EVERY: Duration = Duration::from_millis(1);

/// When connections with more to read than a burst go on.
pub struct Turns {
    /// As many go on at once as there are threads to serve them.
    permits: Semaphore,
    /// One for each call in flight.
    places: Arc<Semaphore>,
    room: usize,
    longest_wait: Duration,
}

impl Turns {
    /// Of calls that may take these places, which are all free.
    pub fn of(places: Arc<Semaphore>) -> Self {
        let room = ROOM.min(places.available_permits() / 2);
        let permits = Semaphore::new(Handle::current().metrics().num_workers());
        Self { permits, places, room, longest_wait: LONGEST_WAIT }
    }

    /// Waits for a turn in which about so many calls are likely to be served rather than refused.
    async fn next(&self, calls: usize) -> Option<SemaphorePermit<'_>> {
        let turn = self.permits.acquire().await.ok();
        let (room, until) = (calls.min(self.room), Instant::now() + self.longest_wait);
        // It takes none of them: others, which have less to read, would be refused.
        while self.places.available_permits() < room && Instant::now() < until {
            sleep(EVERY).await;
        }
        turn
    }

    /// Serves a connection. It reads a burst at a time: one that has more to read waits for its turn among those that
    /// have, so that what was taken on is served first. What it does not read, its peer's window or socket holds back. It
    /// answers meanwhile, and ends where it is to end.
    pub async fn serve<C: Future>(&self, peer: &Peer, mut serving: Pin<&mut C>) {
        let mut turn = None;
        loop {
            let ended = poll_fn(|context| {
                peer.read.store(0, Relaxed);
                peer.begun.store(0, Relaxed);
                match serving.as_mut().poll(context) {
                    Poll::Ready(_) => Poll::Ready(true),
                    Poll::Pending if peer.read.load(Relaxed) >= BURST => Poll::Ready(false),
                    Poll::Pending => {
                        turn = None;
                        Poll::Pending
                    }
                }
            });
            if ended.await {
                return;
            }
            yield_now().await; // what has come begins within the turn
            drop(turn.take());
            let answering = poll_fn(|context| {
                peer.read.store(BURST, Relaxed); // it reads nothing
                serving.as_mut().poll(context)
            });
            turn = select! {
                turn = self.next(peer.begun.load(Relaxed)) => turn,
                _ = answering => return,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, pin::pin};

    use futures_util::FutureExt as _;

    use super::*;

    /// One turn at once, for calls that may take so many places.
    fn turns(places: usize, longest_wait: Duration) -> Turns {
        let of_all = Turns::of(Arc::new(Semaphore::new(places)));
        Turns { permits: Semaphore::new(1), longest_wait, ..of_all }
    }

    #[tokio::test]
    async fn a_turn_begins_once_there_are_places_for_its_calls_and_takes_none() {
        for (calls, room) in [(1, 1), (2, 2), (100, 2)] {
            let turns = turns(4, Duration::from_hours(1));
            let taken = turns.places.acquire_many(4 - room).await;
            let last = turns.places.acquire().await;
            let mut next = pin!(turns.next(calls));
            assert!(futures_util::poll!(next.as_mut()).is_pending());
            drop(last);
            assert!(next.await.is_some());
            assert_eq!(turns.places.available_permits(), usize::try_from(room).expect("few"));
            drop(taken);
        }
    }

    #[tokio::test]
    async fn a_turn_begins_after_a_while_although_all_places_are_taken_and_at_once_where_it_needs_none() {
        let turns = turns(4, Duration::from_millis(2));
        let _taken = turns.places.acquire_many(4).await;
        let mut next = pin!(turns.next(1));
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        assert!(next.await.is_some());
        assert!(turns.next(0).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_connection_that_waits_for_its_turn_reads_nothing_and_can_end() {
        let turns = turns(1, LONGEST_WAIT);
        let (peer, ends) = (Peer::default(), Cell::new(false));
        let reading = pin!(poll_fn(|_| {
            if peer.read.swap(BURST, Relaxed) < BURST || !ends.get() { Poll::Pending } else { Poll::Ready(()) }
        }));
        let mut served = pin!(turns.serve(&peer, reading));
        let _of_another = turns.permits.acquire().await.expect("a turn");
        for _ in 0..10 {
            assert!(futures_util::poll!(served.as_mut()).is_pending());
            yield_now().await;
        }
        ends.set(true);
        assert!(futures_util::poll!(served).is_ready());
    }

    #[tokio::test]
    async fn a_connection_with_more_to_read_than_a_burst_waits_for_its_turn_among_those() {
        let turns = turns(1, LONGEST_WAIT);
        let (peer, bursts) = (Peer::default(), Cell::new(0));
        let reading = pin!(poll_fn(|_| {
            if peer.read.swap(BURST, Relaxed) < BURST {
                bursts.set(bursts.get() + 1);
            }
            if bursts.get() < 3 { Poll::Pending } else { Poll::Ready(()) }
        }));
        let mut served = pin!(turns.serve(&peer, reading));
        let of_another = turns.permits.acquire().await.expect("a turn");
        for _ in 0..10 {
            assert!(futures_util::poll!(served.as_mut()).is_pending());
            yield_now().await;
        }
        assert_eq!(bursts.get(), 1);
        drop(of_another);
        served.await;
        assert_eq!((bursts.get(), turns.permits.available_permits()), (3, 1));
    }
}
