//! The real program on port 0 with a database of its own, and clients that speak JSON through the descriptors.

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

mod before;
mod client;
mod collector;
mod database;
mod peer;
mod proxy;
mod scrape;
mod service;
pub mod tls;
pub mod wire;

pub use self::{
    before::Before,
    client::{Client, DESCRIPTORS, Failure, Messages, Outcome, POOL, message, method},
    collector::{Collector, attribute},
    database::Database,
    peer::{Act, Peer},
    proxy::{Proxy, Way},
    scrape::{Scrape, http},
    service::{SCOPES, Service, program},
};

/// An organization with a key for everything, on a service of its own.
pub async fn client() -> (Service, Client) {
    let service = Service::start();
    let client = service.organization("north").await;
    (service, client)
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
    }
}

/// How many rounds of a race there are: `PROFILE_TEST_ROUNDS`, or so many.
pub fn rounds(usual: usize) -> usize {
    env::var("PROFILE_TEST_ROUNDS").map_or(usual, |rounds| rounds.parse().expect("a number"))
}

/// Added to a count of successes, it tells those who count to end.
pub const STOP: u64 = 1 << 32;

/// Waits for so many more successes.
pub async fn progress(successes: &AtomicU64, more: u64) {
    let (goal, deadline) = (successes.load(Ordering::SeqCst) + more, Instant::now() + Duration::from_secs(30));
    while successes.load(Ordering::SeqCst) < goal {
        assert!(Instant::now() < deadline, "there is no progress");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
