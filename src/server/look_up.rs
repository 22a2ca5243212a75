//! Keys are looked up together: all that wait are one query, and where keys are unknown the next one waits. So unknown
//! keys, of which anybody may present any number, cost the database no more than a few queries a second, and keep no
//! other key waiting.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::sleep,
};

use crate::{
    error::{Error, Result},
    store::{self, Store, key::OfOrganization},
};

/// Queries at once: one that hangs leaves the other.
const QUERIES: usize = 2;

/// Keys of one query at the most.
const MOST: usize = 1000;

/// How long a query waits after one that has found a key unknown.
const PAUSE: Duration = Duration::from_millis(20);

/// A key that is looked up, and who waits for it.
struct LookUp {
    lookup: String,
    answer: oneshot::Sender<Result<OfOrganization>>,
}

/// Looks keys up. Ends when it is dropped.
pub struct LookUps(mpsc::UnboundedSender<LookUp>);

impl LookUps {
    pub fn new(store: &Store) -> Self {
        let (sender, waiting) = mpsc::unbounded_channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..QUERIES {
            tokio::spawn(work(store.clone(), Arc::clone(&waiting)));
        }
        Self(sender)
    }

    /// The key with this lookup id. Who calls bounds how many wait at once.
    pub async fn find(&self, lookup: &str) -> Result<OfOrganization> {
        let ended = || Error::Internal("keys are no longer looked up".to_owned());
        let (answer, answered) = oneshot::channel();
        self.0.send(LookUp { lookup: lookup.to_owned(), answer }).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

async fn work(store: Store, waiting: Arc<Mutex<mpsc::UnboundedReceiver<LookUp>>>) {
    let mut taken = Vec::new();
    while waiting.lock().await.recv_many(&mut taken, MOST).await > 0 {
        taken.retain(|look_up| !look_up.answer.is_closed());
        if answer(&store, &mut taken).await {
            sleep(PAUSE).await;
        }
    }
}

/// Answers these look-ups, and whether any of the keys is unknown.
async fn answer(store: &Store, taken: &mut Vec<LookUp>) -> bool {
    if taken.is_empty() {
        return false;
    }
    let lookups: Vec<_> = taken.iter().map(|look_up| look_up.lookup.clone()).collect();
    let found = store::in_time(store::key::look_up_all(store, &lookups)).await;
    let found = found.map(|rows| rows.into_iter().map(|row| (row.key.id.clone(), row)).collect::<HashMap<_, _>>());
    let mut any_unknown = false;
    for LookUp { lookup, answer } in taken.drain(..) {
        let key = match &found {
            Ok(rows) => rows.get(&lookup).cloned().ok_or(Error::ApiKeyInvalid),
            Err(error) => Err(error.clone()),
        };
        any_unknown |= matches!(key, Err(Error::ApiKeyInvalid));
        let _ = answer.send(key); // a caller may have gone away
    }
    any_unknown
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use futures_util::future::join_all;

    use super::*;
    use crate::store::DatabaseUrl;

    #[tokio::test]
    async fn unknown_keys_one_after_the_other_are_few_queries_a_second_and_together_they_are_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite://{}/profiles.db?mode=rwc", directory.path().display()).into();
        let store = Store::connect(&DatabaseUrl::parse(&url).expect("a URL"), 1).await.expect("a database");
        store.migrate().await.expect("a schema");
        let look_ups = LookUps::new(&store);
        let began = Instant::now();
        for _ in 0..20 {
            assert!(matches!(look_ups.find("0000000000000000").await, Err(Error::ApiKeyInvalid)));
        }
        let least = PAUSE * (20 / 2 - 1);
        assert!(began.elapsed() >= least, "{:?}", began.elapsed());
        let began = Instant::now();
        let unknown: Vec<_> = (0..MOST).map(|number| format!("{number:016}")).collect();
        let answers = join_all(unknown.iter().map(|lookup| look_ups.find(lookup))).await;
        assert!(answers.iter().all(|answer| matches!(answer, Err(Error::ApiKeyInvalid))));
        assert!(began.elapsed() < PAUSE * 100, "{:?}", began.elapsed());
    }
}
