//! The turns of writes: no more than the database can take at once.
//!
//! A turn may carry a transaction that has begun and seen nothing yet: under load a commit begins the next write's
//! transaction in the same message, and its connection goes from write to write without the pool's ceremony.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use sea_orm::DatabaseTransaction;
use tokio::sync::oneshot;

/// A number of turns, and who waits for one, in the order in which they came.
pub struct Turns(Mutex<State>);

struct State {
    free: usize,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// A write's turn. It goes to the next one when it is dropped.
pub struct Turn {
    turns: Arc<Turns>,
    /// A transaction that has just begun, if there is one, and since when its connection goes from write to write.
    pub begun: Option<(DatabaseTransaction, Instant)>,
}

impl Turns {
    pub fn new(number: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { free: number, waiting: VecDeque::new() })))
    }

    /// Waits for a turn. Whoever stops waiting leaves the queue as if they had never come.
    pub async fn take(self: &Arc<Self>) -> Turn {
        let next = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                None
            } else {
                while state.waiting.pop_front_if(|first| first.is_closed()).is_some() {}
                let (sender, next) = oneshot::channel();
                state.waiting.push_back(sender);
                Some(next)
            }
        };
        match next {
            None => Turn { turns: Arc::clone(self), begun: None },
            Some(next) => next.await.expect("a turn is given to whoever waits"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Whether anybody waits for it.
    pub fn is_wanted(&self) -> bool {
        self.turns.state().waiting.iter().any(|next| !next.is_closed())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        while let Some(next) = state.waiting.pop_front() {
            if !next.is_closed() {
                drop(state);
                // Where they have gone this very moment, their turn is dropped in its turn.
                let _ = next.send(Turn { turns: Arc::clone(&self.turns), begun: self.begun.take() });
                return;
            }
        }
        state.free += 1;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn turns_go_round_in_order_and_pass_over_whoever_has_gone() {
        let turns = Turns::new(1);
        let first = turns.take().now_or_never().expect("a free turn");
        let (mut second, mut third, mut fourth) =
            (Box::pin(turns.take()), Box::pin(turns.take()), Box::pin(turns.take()));
        assert!(!first.is_wanted());
        for waiting in [&mut second, &mut third, &mut fourth] {
            assert!(waiting.now_or_never().is_none());
        }
        assert!(first.is_wanted());
        drop(second);
        drop(first);
        let third = third.now_or_never().expect("the third is now the first");
        assert!(fourth.as_mut().now_or_never().is_none());
        drop(third);
        drop(fourth); // with the turn that it was given and has not seen
        let last = turns.take().now_or_never().expect("the turn came back");
        assert!(!last.is_wanted());
        assert!(turns.take().now_or_never().is_none(), "there is only one");
    }
}
