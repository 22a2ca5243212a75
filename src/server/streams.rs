//! The places of streams: so many in all and by one key, and none longer than its key is valid.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::keys::Keys;
use crate::{
    clock,
    error::{Error, Result},
    metrics::METRICS,
};

/// The part of all places that one key may take.
const PART_OF_A_KEY: usize = 4;

/// How often the keys of open streams are looked up, all at once. With the 2 seconds that this may take, and as many for
/// a look-up that failed before it, the streams of a revoked key end within 5.
const EVERY: Duration = Duration::from_millis(500);

/// The streams that are open.
pub struct Streams {
    places: Arc<Semaphore>,
    most_of_a_key: usize,
    by_key: Mutex<HashMap<String, OfKey>>,
}

/// The streams of a key.
struct OfKey {
    open: usize,
    /// Cancelled once the key is no longer valid.
    invalid: CancellationToken,
}

impl Streams {
    /// With a permit for each place.
    pub fn new(places: Arc<Semaphore>, most: usize) -> Self {
        let most_of_a_key = (most / PART_OF_A_KEY).max(1);
        Self { places, most_of_a_key, by_key: Mutex::default() }
    }

    /// A place for one more stream of this key.
    pub fn enter(self: &Arc<Self>, key_id: &str) -> Result<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned();
        let permit = permit.map_err(|_| overloaded(&METRICS.shed.streams))?;
        let mut by_key = self.by_key();
        let of_key =
            by_key.entry(key_id.to_owned()).or_insert_with(|| OfKey { open: 0, invalid: CancellationToken::new() });
        if of_key.open >= self.most_of_a_key {
            return Err(overloaded(&METRICS.shed.streams_of_a_key));
        }
        of_key.open += 1;
        let held = HeldByKey { streams: Arc::clone(self), key_id: key_id.to_owned() };
        Ok(Place { invalid: of_key.invalid.clone(), _permit: permit, _held: Some(held) })
    }

    /// Ends the streams of keys that are no longer valid, until the token is cancelled. A database that is away ends
    /// none.
    pub fn watch(self: Arc<Self>, keys: Arc<Keys>, tasks: &TaskTracker, stop: CancellationToken) {
        tasks.spawn(stop.run_until_cancelled_owned(async move {
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let open: Vec<_> = self.by_key().keys().cloned().collect();
                match keys.invalid_of(open, clock::now()).await {
                    Ok(invalid) => self.end(&invalid),
                    Err(error) => tracing::debug!(%error, "the keys of open streams could not be looked up"),
                }
            }
        }));
    }

    fn end(&self, invalid: &[String]) {
        let by_key = self.by_key();
        invalid.iter().filter_map(|key_id| by_key.get(key_id)).for_each(|of_key| of_key.invalid.cancel());
    }

    /// What it holds is whole between two changes: none of them can panic.
    fn by_key(&self) -> MutexGuard<'_, HashMap<String, OfKey>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a call is refused at a limit, whose refusals are counted.
pub fn overloaded(refusals: &Counter) -> Error {
    refusals.inc();
    Error::Overloaded
}

/// A stream's place among those of its kind, as long as it lives.
pub struct Place {
    /// Cancelled once the stream's key is no longer valid.
    pub invalid: CancellationToken,
    _permit: OwnedSemaphorePermit,
    _held: Option<HeldByKey>,
}

impl Place {
    /// A place among the streams that a peer may have open without a key.
    pub fn without_key(permit: OwnedSemaphorePermit) -> Self {
        Self { invalid: CancellationToken::new(), _permit: permit, _held: None }
    }
}

/// One of the streams of a key.
struct HeldByKey {
    streams: Arc<Streams>,
    key_id: String,
}

impl Drop for HeldByKey {
    fn drop(&mut self) {
        let mut by_key = self.streams.by_key();
        if let Some(of_key) = by_key.get_mut(&self.key_id) {
            of_key.open -= 1;
            if of_key.open == 0 {
                by_key.remove(&self.key_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(most: usize) -> Arc<Streams> {
        Arc::new(Streams::new(Arc::new(Semaphore::new(most)), most))
    }

    #[test]
    fn one_key_has_at_most_a_quarter_of_the_places_and_all_have_no_more_than_there_are() {
        let streams = places(8);
        let first = [streams.enter("first").expect("a place"), streams.enter("first").expect("a place")];
        assert!(streams.enter("first").is_err());
        let others: Vec<_> = (0..6).map(|number| streams.enter(&number.to_string()).expect("a place")).collect();
        assert!(streams.enter("last").is_err());
        drop(first);
        let _first = streams.enter("first").expect("a place again");
        drop(others);
        assert_eq!(streams.by_key().len(), 1, "keys without streams are forgotten");
        places(1).enter("only").expect("a quarter of few is one");
    }

    #[test]
    fn the_streams_of_a_key_that_is_no_longer_valid_end_together_and_no_others() {
        let streams = places(12);
        let enter = |key| streams.enter(key).expect("a place");
        let (first, second, other) = (enter("first"), enter("first"), enter("other"));
        streams.end(&["first".to_owned(), "gone".to_owned()]);
        assert!(first.invalid.is_cancelled() && second.invalid.is_cancelled() && !other.invalid.is_cancelled());
        assert!(enter("first").invalid.is_cancelled(), "nor does one begin that was let in before that was known");
    }
}
