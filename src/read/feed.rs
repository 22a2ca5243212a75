//! The changes of an organization in their order, for those who follow them.
//!
//! A follower asks for the page after its position when the head has moved. Followers who ask for the same page at the same
//! time are answered by one query. Nothing is kept for a follower: a slow one asks later.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant as StdInstant},
};

use futures_util::FutureExt as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use super::followers::Followers;
pub use crate::store::feed::{Entry, Place};
use crate::{
    error::{Error, Result},
    metrics::METRICS,
    queue::{Item, Lane, Queue, Sender, Taken},
    store::{self, Store, feed::Head},
};

/// How many changes or profiles a page has at the most: a follower who does not read keeps one.
const PAGE: u64 = 16;

/// How many pages wait for their query before those that nobody waits for any more are forgotten.
const FORGET_AT: usize = 1024;

/// How often the heads of followed organizations are looked at: another replica may have moved them.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a follower asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ask {
    /// The change at this position, if it is not 0, and those after it.
    Changes(i64),
    /// The profiles with ids above this one, as they are now.
    Profiles(Uuid),
}

/// What is asked for, in order; empty where there is nothing more.
pub type Page = Arc<Vec<Entry>>;

type Answer = watch::Sender<Option<Result<Page>>>;

/// Reads the feed. Cheap to clone: clones share their queries. Ends with the last of its clones.
#[derive(Clone)]
pub struct Feed {
    store: Store,
    changes: Arc<Sender<Wanted>>,
    /// Of their own, so that no snapshot holds up those who follow.
    snapshots: Arc<Sender<Wanted>>,
    waiting: Arc<Waiting>,
    heads: Heads,
    followers: Followers,
}

/// The pages that wait for their query, and where they are answered.
#[derive(Default)]
struct Waiting(Mutex<HashMap<(Uuid, Ask), Answer>>);

/// A page that waits for its query.
struct Wanted {
    organization: Uuid,
    ask: Ask,
    since: StdInstant,
    answer: Answer,
}

impl Item for Wanted {
    fn organization(&self) -> Uuid {
        self.organization
    }

    fn since(&self) -> StdInstant {
        self.since
    }

    fn is_abandoned(&self) -> bool {
        self.answer.receiver_count() == 0
    }
}

impl Feed {
    pub fn new(store: &Store) -> Self {
        let waiting = Arc::<Waiting>::default();
        // One query at once of each kind: other reads always find a connection.
        let queues = [&METRICS.queues.feed, &METRICS.queues.snapshots].map(Queue::new);
        let [changes, snapshots] = queues.map(|(sender, queue)| {
            tokio::spawn(work(store.clone(), queue, Arc::clone(&waiting)));
            Arc::new(sender)
        });
        Self {
            store: store.clone(),
            changes,
            snapshots,
            waiting,
            heads: Heads::new(store),
            followers: Followers::default(),
        }
    }

    /// The positions that organizations have reached.
    pub const fn heads(&self) -> &Heads {
        &self.heads
    }

    /// Those who follow the feed.
    pub const fn followers(&self) -> &Followers {
        &self.followers
    }

    /// The last place of an organization, if it has any.
    pub async fn last(&self, organization: Uuid) -> Result<Option<Place>> {
        store::feed::last(&self.store, organization).await
    }

    /// The place at this position of an organization, if there is a change.
    pub async fn place(&self, organization: Uuid, position: i64) -> Result<Option<Place>> {
        store::feed::place(&self.store, organization, position).await
    }

    /// The next page of an organization.
    pub async fn page(&self, organization: Uuid, ask: Ask) -> Result<Page> {
        let mut answered = {
            let mut waiting = self.waiting.lock();
            let joined = waiting.get(&(organization, ask)).map(|answer| (answer.subscribe(), answer.receiver_count()));
            if let Some((answered, 2..)) = joined {
                answered
            } else {
                // Nobody asks, or those who did have gone, and the query with them.
                if waiting.len() >= FORGET_AT {
                    waiting.retain(|_, answer| answer.receiver_count() > 0);
                }
                let (answer, answered) = watch::channel(None);
                waiting.insert((organization, ask), answer.clone());
                let queue = match ask {
                    Ask::Changes(_) => &self.changes,
                    Ask::Profiles(_) => &self.snapshots,
                };
                queue.push(Wanted { organization, ask, since: StdInstant::now(), answer }).map_err(|_| panicked())?;
                answered
            }
        };
        store::in_time(async {
            let answer = answered.wait_for(Option::is_some).await.map_err(|_| panicked())?;
            answer.clone().unwrap_or_else(|| Err(panicked()))
        })
        .await
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<(Uuid, Ask), Answer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers one page after the other, in turn by organization.
async fn work(store: Store, queue: Arc<Queue<Wanted>>, waiting: Arc<Waiting>) {
    while let Some(Taken { items, held: _ }) = queue.take(Lane::Groups, 1).await {
        for Wanted { organization, ask, since: _, answer } in items {
            {
                // Whoever asks from now on needs a query that begins later.
                let mut waiting = waiting.lock();
                if waiting.get(&(organization, ask)).is_some_and(|waiting| waiting.same_channel(&answer)) {
                    waiting.remove(&(organization, ask));
                }
            }
            if answer.receiver_count() > 0 {
                // A panic ends no more than this query.
                let page = AssertUnwindSafe(query(&store, organization, ask)).catch_unwind().await;
                answer.send_replace(Some(page.unwrap_or_else(|_| Err(panicked())).map(Arc::new)));
            }
        }
    }
}

fn panicked() -> Error {
    Error::Internal("a query of the feed panicked".to_owned())
}

async fn query(store: &Store, organization: Uuid, ask: Ask) -> Result<Vec<Entry>> {
    match ask {
        Ask::Changes(from) => store::feed::from(store, organization, from, PAGE + 1).await,
        Ask::Profiles(above) => {
            let profiles = store::profile::walk(store, organization, above, PAGE).await?;
            Ok(profiles.into_iter().map(Entry::present).collect())
        }
    }
}

/// The positions that organizations have reached, for those that are followed.
#[derive(Clone)]
pub struct Heads(Arc<Followed>);

#[derive(Default)]
struct Followed {
    organizations: Mutex<HashMap<Uuid, watch::Sender<i64>>>,
}

impl Heads {
    fn new(store: &Store) -> Self {
        let followed = Arc::<Followed>::default();
        tokio::spawn(look(store.clone(), Arc::downgrade(&followed)));
        Self(followed)
    }

    /// Where an organization's head is, as far as it is known: at first 0. It may go back, where the database is another
    /// one than before.
    pub fn follow(&self, organization: Uuid) -> watch::Receiver<i64> {
        let mut organizations = self.0.organizations();
        let sender = organizations.entry(organization).or_insert_with(|| watch::Sender::new(0));
        sender.subscribe()
    }

    /// These are the heads now.
    pub fn set(&self, heads: &[Head]) {
        self.0.set(heads);
    }
}

impl Followed {
    fn organizations(&self) -> MutexGuard<'_, HashMap<Uuid, watch::Sender<i64>>> {
        self.organizations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, heads: &[Head]) {
        let organizations = self.organizations();
        for Head { organization_id, position } in heads {
            if let Some(known) = organizations.get(organization_id) {
                known.send_if_modified(|known| std::mem::replace(known, *position) != *position);
            }
        }
    }

    /// Those that are followed; the others are forgotten.
    fn current(&self) -> Vec<Uuid> {
        let mut organizations = self.organizations();
        organizations.retain(|_, head| head.receiver_count() > 0);
        organizations.keys().copied().collect()
    }
}

/// Looks at the heads again and again, as long as anybody may follow.
async fn look(store: Store, followed: Weak<Followed>) {
    while let Some(heads) = followed.upgrade() {
        let organizations = heads.current();
        let next = Instant::now() + LOOK_EVERY;
        if !organizations.is_empty() {
            match store::feed::heads(&store, &organizations).await {
                Ok(found) => heads.set(&found),
                Err(error) => tracing::debug!(?error, "the heads of the feed could not be read"),
            }
        }
        drop(heads);
        sleep_until(next).await;
    }
}
