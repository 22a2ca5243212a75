//! How many calls a second a key may make here. Each program counts for itself: nothing is shared.

use std::{sync::Arc, time::Duration};

use governor::{
    DefaultDirectRateLimiter, Quota,
    clock::{Clock as _, DefaultClock},
};
use moka::future::Cache;

use crate::{
    error::{Error, Result},
    value::Rate,
};

/// How long what a key has used is kept after its last look-up: after one second it is all there again.
const KEPT: Duration = Duration::from_mins(1);

/// What keys with a rate have used. Their owners make keys, and their callers none, so that it is as large as those want it.
pub struct Rates(Cache<String, Arc<Limit>>);

impl Default for Rates {
    fn default() -> Self {
        Self(Cache::builder().time_to_idle(KEPT).build())
    }
}

impl Rates {
    /// The limit of a key with this rate: the one that it had, if that has not changed.
    pub async fn of(&self, lookup: &str, rate: Rate) -> Arc<Limit> {
        if let Some(limit) = self.0.get(lookup).await.filter(|limit| limit.rate == rate) {
            return limit;
        }
        let limit = Arc::new(Limit::new(rate));
        self.0.insert(lookup.to_owned(), Arc::clone(&limit)).await;
        limit
    }
}

/// The limit of one key: its calls of a second may come all at once, and then as they are due.
pub struct Limit {
    rate: Rate,
    used: DefaultDirectRateLimiter,
}

impl Limit {
    fn new(rate: Rate) -> Self {
        Self { rate, used: DefaultDirectRateLimiter::direct(Quota::per_second(rate.calls_per_second())) }
    }

    /// Counts a call, or says how long it has come too early.
    pub fn count(&self) -> Result<()> {
        let early =
            |until: governor::NotUntil<_>| Error::RateLimited(until.wait_time_from(DefaultClock::default().now()));
        self.used.check().map_err(early)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_that_is_looked_up_again_goes_on_where_it_was_unless_its_rate_has_changed() {
        let (rates, slow, fast): (_, Rate, Rate) =
            (Rates::default(), "1/s".parse().expect("a rate"), "2/s".parse().expect("a rate"));
        rates.of("a", slow).await.count().expect("the first call");
        let Err(Error::RateLimited(wait)) = rates.of("a", slow).await.count() else { panic!("a call too many") };
        assert!((Duration::from_millis(1)..=Duration::from_secs(1)).contains(&wait), "{wait:?}");
        rates.of("b", slow).await.count().expect("another key");
        rates.of("a", fast).await.count().expect("a new rate");
    }
}
