//! The other ends of connections, and what waits for them: bytes that they have not read, or not sent to the end.

use std::{
    collections::BTreeMap,
    ptr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What may wait for all peers together, in bytes.
const MOST: usize = 64 * 1024 * 1024;

/// What may wait for one peer, in bytes: 32 of the largest answers.
const MOST_OF_ONE: usize = 8 * 1024 * 1024;

/// What a call costs beside its message while it waits, in bytes.
const CALL: usize = 10 * 1024;

/// What a peer may send on a stream before anyone reads it, in bytes.
pub const WINDOW: u32 = 64 * 1024;

/// Streams that a peer may have open without a key, of health and of reflection.
const KEYLESS_STREAMS: usize = 4;

/// Look-ups of keys that wait for one peer at once.
const KEY_LOOK_UPS: usize = 8;

/// The other end of a connection, as its calls know it.
pub struct Peer {
    /// Calls that have no answer yet.
    pub under_way: AtomicUsize,
    /// Calls that have begun since its connection let others have their turn.
    pub begun: AtomicUsize,
    /// What was read from it since its connection let others have their turn, in bytes.
    pub read: AtomicUsize,
    /// One for each stream that needs no key.
    pub keyless_streams: Arc<Semaphore>,
    /// Its streams that have not ended.
    pub streams: TaskTracker,
    /// Cancelled where its streams are to end: the server drains, or the connection has reached its age.
    pub ending: CancellationToken,
    /// One for each key of its that is looked up: unknown ones keep no other peer's waiting.
    pub key_look_ups: Semaphore,
    /// Whether it has ever presented a key that is valid.
    pub known: AtomicBool,
    /// Cancelled, it ends the connection at once.
    pub cut: CancellationToken,
    /// The name in its certificate, if it has presented one.
    pub client: Option<String>,
    /// Its part of the backlog, in bytes; changed only under the backlog's lock.
    waiting: AtomicUsize,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            under_way: AtomicUsize::default(),
            begun: AtomicUsize::default(),
            read: AtomicUsize::default(),
            keyless_streams: Arc::new(Semaphore::new(KEYLESS_STREAMS)),
            streams: TaskTracker::default(),
            ending: CancellationToken::default(),
            key_look_ups: Semaphore::new(KEY_LOOK_UPS),
            known: AtomicBool::default(),
            cut: CancellationToken::default(),
            client: None,
            waiting: AtomicUsize::default(),
        }
    }
}

impl Peer {
    /// One whose certificate has this name.
    pub fn new(client: Option<String>) -> Self {
        Self { client, ..Self::default() }
    }
}

/// What waits for all peers. Where it is too much, the peer that has kept the service waiting for longest is cut off,
/// and one without a valid key before any other: who reads what it asks for is never that one.
#[derive(Default)]
pub struct Backlog(Mutex<State>);

#[derive(Default)]
struct State {
    /// In the order in which they are given up: of unknown peers first, then the oldest.
    waiting: BTreeMap<(bool, u64), Waiting>,
    bytes: usize,
    next: u64,
}

struct Waiting {
    peer: Arc<Peer>,
    bytes: usize,
}

impl Backlog {
    /// Counts a call whose message of this many bytes waits for its peer, until what is answered here is dropped.
    pub fn wait(self: &Arc<Self>, peer: &Arc<Peer>, bytes: usize) -> Held {
        let order = self.change(|state| {
            let order = (peer.known.load(Relaxed), state.next);
            state.next += 1;
            state.waiting.insert(order, Waiting { peer: Arc::clone(peer), bytes: 0 });
            state.add(order, CALL + bytes);
            order
        });
        Held { backlog: Arc::clone(self), order }
    }

    /// What it holds is whole between two changes: none of them can panic.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn add(&mut self, order: (bool, u64), bytes: usize) {
        // What a peer that was cut off still had is no longer here.
        let Some(waiting) = self.waiting.get_mut(&order) else { return };
        waiting.bytes += bytes;
        self.bytes += bytes;
        if waiting.peer.waiting.fetch_add(bytes, Relaxed) + bytes > MOST_OF_ONE {
            let peer = Arc::clone(&waiting.peer);
            self.cut(&peer);
        }
        while self.bytes > MOST
            && let Some((_, Waiting { peer, .. })) = self.waiting.first_key_value()
        {
            let peer = Arc::clone(peer);
            self.cut(&peer);
        }
    }

    fn remove(&mut self, order: (bool, u64)) {
        if let Some(Waiting { peer, bytes }) = self.waiting.remove(&order) {
            self.bytes -= bytes;
            peer.waiting.fetch_sub(bytes, Relaxed);
        }
    }

    /// Ends a connection. What waits for it is as good as gone.
    fn cut(&mut self, peer: &Peer) {
        peer.cut.cancel();
        self.waiting.retain(|_, waiting| !ptr::eq(&raw const *waiting.peer, peer));
        self.bytes -= peer.waiting.swap(0, Relaxed);
    }
}

/// A part of the backlog, as long as it lives.
pub struct Held {
    backlog: Arc<Backlog>,
    order: (bool, u64),
}

impl Held {
    /// Counts more bytes.
    pub fn add(&self, bytes: usize) {
        self.backlog.change(|state| state.add(self.order, bytes));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.backlog.change(|state| state.remove(self.order));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: usize = 256 * 1024;

    fn peer(known: bool) -> Arc<Peer> {
        Arc::new(Peer { known: known.into(), ..Peer::default() })
    }

    #[test]
    fn one_peer_that_lets_too_much_wait_is_cut_and_no_other() {
        let (backlog, deaf, polite) = (Arc::<Backlog>::default(), peer(true), peer(true));
        let _answer = backlog.wait(&polite, MESSAGE);
        let answers: Vec<_> = (0..MOST_OF_ONE / (MESSAGE + CALL)).map(|_| backlog.wait(&deaf, MESSAGE)).collect();
        assert!(!deaf.cut.is_cancelled());
        answers[0].add(MESSAGE);
        assert!(deaf.cut.is_cancelled() && !polite.cut.is_cancelled());
        assert_eq!(backlog.change(|state| state.bytes), CALL + MESSAGE);
    }

    #[test]
    fn of_all_who_let_too_much_wait_the_unknown_is_cut_first_and_then_who_has_waited_longest() {
        let backlog = Arc::<Backlog>::default();
        let crowd: Vec<_> = (0..MOST / MESSAGE).map(|number| peer(number != 7)).collect();
        let mut held: Vec<_> = crowd.iter().map(|peer| backlog.wait(peer, MESSAGE - CALL)).collect();
        let (polite, mut order) = (peer(true), vec![]);
        while order.len() < 3 {
            held.push(backlog.wait(&polite, 0)); // it has read nothing either, but came later
            let new = (0..crowd.len()).find(|at| crowd[*at].cut.is_cancelled() && !order.contains(at));
            order.extend(new);
        }
        assert_eq!(order, [7, 0, 1]);
        assert!(!polite.cut.is_cancelled());
    }

    #[test]
    fn what_is_read_waits_no_longer() {
        let (backlog, reader) = (Arc::<Backlog>::default(), peer(false));
        for _ in 0..1000 {
            drop(backlog.wait(&reader, MESSAGE));
        }
        assert!(!reader.cut.is_cancelled());
        assert_eq!((reader.waiting.load(Relaxed), backlog.change(|state| state.bytes)), (0, 0));
    }
}
