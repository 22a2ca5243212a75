//! How far those are who follow the feed, for whoever looks at all of them.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicI64, Ordering::Relaxed},
};

use tokio::sync::watch;

/// How many may have gone before they are forgotten.
const FORGET_AT: usize = 64;

/// Those who follow the feed now. Cheap to clone: clones share them.
#[derive(Clone, Default)]
pub struct Followers(Arc<Mutex<Vec<Weak<Follower>>>>);

/// One who follows, as long as it lives.
pub struct Follower {
    position: AtomicI64,
    head: watch::Receiver<i64>,
}

impl Followers {
    /// One more, of the organization with this head.
    pub fn enter(&self, head: watch::Receiver<i64>) -> Arc<Follower> {
        let follower = Arc::new(Follower { position: AtomicI64::default(), head });
        let mut followers = self.followers();
        if followers.len() >= FORGET_AT && followers.len() == followers.capacity() {
            followers.retain(|follower| follower.strong_count() > 0);
        }
        followers.push(Arc::downgrade(&follower));
        follower
    }

    /// How many there are.
    pub fn number(&self) -> usize {
        self.followers().iter().filter(|follower| follower.strong_count() > 0).count()
    }

    /// How many changes the last of them has not been sent.
    pub fn largest_lag(&self) -> u64 {
        let followers = self.followers();
        followers.iter().filter_map(Weak::upgrade).map(|follower| follower.lag()).max().unwrap_or_default()
    }

    /// What it holds is whole between two changes: none of them can panic.
    fn followers(&self) -> MutexGuard<'_, Vec<Weak<Follower>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    /// It has been sent the changes up to this position.
    pub fn reach(&self, position: i64) {
        self.position.store(position, Relaxed);
    }

    /// Its organization's head may not be known yet, or go back.
    fn lag(&self) -> u64 {
        u64::try_from(*self.head.borrow() - self.position.load(Relaxed)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_that_of_the_last_and_those_who_have_gone_are_forgotten() {
        let (followers, head) = (Followers::default(), watch::Sender::new(7));
        let (near, far) = (followers.enter(head.subscribe()), followers.enter(head.subscribe()));
        near.reach(6);
        far.reach(2);
        assert_eq!((followers.number(), followers.largest_lag()), (2, 5));
        head.send_replace(1); // another database
        assert_eq!(followers.largest_lag(), 0);
        drop((near, far));
        assert_eq!((followers.number(), followers.largest_lag()), (0, 0));
        for _ in 0..100 * FORGET_AT {
            followers.enter(head.subscribe());
        }
        assert!(followers.followers().capacity() <= 2 * FORGET_AT);
    }
}
