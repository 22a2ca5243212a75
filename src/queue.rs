//! What waits for a worker. A worker takes all that waits, at most so much, in turn by organization: no organization waits
//! behind another one's flood.
//!
//! There is no timer: a worker that is idle takes a lone item at once, and while it is busy others gather.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::{sync::Notify, task::yield_now};
use uuid::Uuid;

use crate::metrics;

/// How many items may wait for one profile that is blocked: more would take the calls in flight from everybody else.
const MOST_FOR_A_BLOCKED_PROFILE: usize = 32;

/// How many items wait before those that nobody waits for any more are looked for.
const PURGE_AT_LEAST: usize = 1024;

/// Something that waits.
pub trait Item {
    fn organization(&self) -> Uuid;

    /// The profile that no two workers may have at once, by its organization and id.
    fn profile(&self) -> Option<ProfileKey> {
        None
    }

    fn lane(&self) -> Lane {
        Lane::Groups
    }

    /// When it was added.
    fn since(&self) -> Instant;

    /// Whether nobody waits for it any more.
    fn is_abandoned(&self) -> bool;
}

pub type ProfileKey = (Uuid, Uuid);

/// Which workers take an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Those that take items about anything.
    Groups,
    /// Those that take items about one profile.
    Locked,
}

/// What waits, and what workers have taken.
pub struct Queue<T> {
    state: Mutex<State<T>>,
    groups: Notify,
    locked: Notify,
    metrics: &'static metrics::Queue,
}

struct State<T> {
    /// In the order of their turns.
    organizations: VecDeque<(Uuid, VecDeque<T>)>,
    length: usize,
    /// The length at which abandoned items are removed.
    purge_at: usize,
    /// The profiles that a worker has, and whether it is blocked there.
    taken: HashMap<ProfileKey, bool>,
    closed: bool,
}

impl<T: Item> Queue<T> {
    /// A queue, and the only handle that adds to it: workers end when it has been dropped and nothing waits.
    pub fn new(metrics: &'static metrics::Queue) -> (Sender<T>, Arc<Self>) {
        let state = State {
            organizations: VecDeque::new(),
            length: 0,
            purge_at: PURGE_AT_LEAST,
            taken: HashMap::new(),
            closed: false,
        };
        let queue = Arc::new(Self { state: Mutex::new(state), groups: Notify::new(), locked: Notify::new(), metrics });
        (Sender(Arc::clone(&queue)), queue)
    }

    /// Adds an item. It is given back where too many wait already for a profile that is blocked.
    pub fn push(&self, item: T) -> Result<(), T> {
        let lane = item.lane();
        {
            let mut state = self.state();
            state.push(item)?;
            self.tell(&state);
        }
        self.notify(lane).notify_one();
        Ok(())
    }

    /// Takes what waits in this lane, at most so much, or waits for it; none once the queue has ended. In the locked lane
    /// all of it is about one profile.
    pub async fn take(self: &Arc<Self>, lane: Lane, most: usize) -> Option<Taken<T>> {
        loop {
            let notified = self.notify(lane).notified();
            if self.state().length > 0 {
                yield_now().await; // calls that are ready to join these do so first; where there are none it costs nothing
            }
            let (items, profiles, remain, ended) = {
                let mut state = self.state();
                let (items, profiles) = state.take(lane, most);
                self.tell(&state);
                (items, profiles, state.length > 0, state.closed && state.length == 0)
            };
            if !items.is_empty() {
                self.observe(&items);
                if remain {
                    self.notify(lane).notify_one();
                }
                return Some(Taken { items, held: Held { queue: Arc::clone(self), profiles } });
            }
            if ended {
                self.groups.notify_one(); // the other workers end too
                self.locked.notify_one();
                return None;
            }
            notified.await;
        }
    }

    /// Says that a worker waits for a profile that somebody else has locked, and answers the items that may not wait for it.
    pub fn block(&self, profile: ProfileKey) -> Vec<T> {
        let mut state = self.state();
        let surplus = state.block(profile);
        self.tell(&state);
        surplus
    }

    fn tell(&self, state: &State<T>) {
        self.metrics.length.set(i64::try_from(state.length).unwrap_or(i64::MAX));
    }

    fn observe(&self, taken: &[T]) {
        let now = Instant::now();
        for item in taken {
            self.metrics.wait.observe(now.saturating_duration_since(item.since()).as_secs_f64());
        }
        self.metrics.batch.observe(u32::try_from(taken.len()).map_or(f64::INFINITY, f64::from));
    }

    fn notify(&self, lane: Lane) -> &Notify {
        match lane {
            Lane::Groups => &self.groups,
            Lane::Locked => &self.locked,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Item> State<T> {
    fn push(&mut self, item: T) -> Result<(), T> {
        if let Some(profile) = item.profile()
            && self.taken.get(&profile) == Some(&true)
            && self.waiting_for(profile) >= MOST_FOR_A_BLOCKED_PROFILE
        {
            return Err(item);
        }
        if self.length >= self.purge_at {
            self.organizations.iter_mut().for_each(|(_, items)| items.retain(|item| !item.is_abandoned()));
            self.settle();
            self.purge_at = PURGE_AT_LEAST.max(2 * self.length);
        }
        let organization = item.organization();
        match self.organizations.iter_mut().find(|(id, _)| *id == organization) {
            Some((_, items)) => items.push_back(item),
            None => self.organizations.push_back((organization, VecDeque::from([item]))),
        }
        self.length += 1;
        Ok(())
    }

    /// One item of each organization in turn, until there are enough or none is left that may be taken.
    fn take(&mut self, lane: Lane, most: usize) -> (Vec<T>, HashSet<ProfileKey>) {
        let (mut items, mut profiles) = (Vec::new(), HashSet::new());
        // A profile whose row is to be locked is left to the worker that does so, or it might never have its turn.
        let to_lock: HashSet<_> = match lane {
            Lane::Groups => self.items().filter(|item| item.lane() == Lane::Locked).filter_map(Item::profile).collect(),
            Lane::Locked => HashSet::new(),
        };
        let mut without = 0; // organizations in a row without an item that may be taken
        while items.len() < most && without < self.organizations.len() {
            let Some((organization, mut waiting)) = self.organizations.pop_front() else { break };
            let taken = &self.taken;
            let next = waiting.iter().position(|item| {
                let free = match (lane, item.profile()) {
                    (Lane::Locked, Some(profile)) if !profiles.is_empty() => profiles.contains(&profile),
                    (_, Some(profile)) => {
                        !to_lock.contains(&profile) && (profiles.contains(&profile) || !taken.contains_key(&profile))
                    }
                    (_, None) => true,
                };
                // The worker that has a profile's row locked takes along what else waits for it.
                free && (item.lane() == lane || (lane == Lane::Locked && !profiles.is_empty()))
            });
            if let Some(item) = next.and_then(|next| waiting.remove(next)) {
                without = 0;
                profiles.extend(item.profile());
                items.push(item);
            } else {
                without += 1;
            }
            self.organizations.push_back((organization, waiting));
        }
        self.taken.extend(profiles.iter().map(|profile| (*profile, false)));
        self.settle();
        (items, profiles)
    }

    fn block(&mut self, profile: ProfileKey) -> Vec<T> {
        if let Some(blocked) = self.taken.get_mut(&profile) {
            *blocked = true;
        }
        let mut surplus = VecDeque::new();
        if let Some((_, items)) = self.organizations.iter_mut().find(|(organization, _)| *organization == profile.0) {
            items.retain(|item| !item.is_abandoned());
            let mut waiting = 0;
            let (stay, leave) = std::mem::take(items).into_iter().partition(|item| {
                waiting += usize::from(item.profile() == Some(profile));
                item.profile() != Some(profile) || waiting <= MOST_FOR_A_BLOCKED_PROFILE
            });
            *items = stay;
            surplus = leave;
        }
        self.settle();
        surplus.into()
    }

    fn items(&self) -> impl Iterator<Item = &T> {
        self.organizations.iter().flat_map(|(_, items)| items)
    }

    fn waiting_for(&self, profile: ProfileKey) -> usize {
        self.items().filter(|item| item.profile() == Some(profile) && !item.is_abandoned()).count()
    }

    /// Forgets organizations that wait for nothing.
    fn settle(&mut self) {
        self.organizations.retain(|(_, items)| !items.is_empty());
        self.length = self.organizations.iter().map(|(_, items)| items.len()).sum();
    }
}

/// Adds to a queue, which ends when this is dropped.
pub struct Sender<T: Item>(Arc<Queue<T>>);

impl<T: Item> Sender<T> {
    /// Adds an item. It is given back where too many wait already for a profile that is blocked.
    pub fn push(&self, item: T) -> Result<(), T> {
        self.0.push(item)
    }
}

impl<T: Item> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.groups.notify_one();
        self.0.locked.notify_one();
    }
}

/// What a worker has taken.
pub struct Taken<T: Item> {
    pub items: Vec<T>,
    /// While it is kept, no other worker takes items about the same profiles.
    pub held: Held<T>,
}

/// The profiles that a worker has.
pub struct Held<T: Item> {
    queue: Arc<Queue<T>>,
    profiles: HashSet<ProfileKey>,
}

impl<T: Item> Drop for Held<T> {
    fn drop(&mut self) {
        let remain = {
            let mut state = self.queue.state();
            state.taken.retain(|profile, _| !self.profiles.contains(profile));
            state.length > 0 || state.closed
        };
        if remain && !self.profiles.is_empty() {
            self.queue.groups.notify_one();
            self.queue.locked.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::metrics::METRICS;

    fn queue() -> (Sender<Change>, Arc<Queue<Change>>) {
        Queue::new(&METRICS.queues.writes)
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Change {
        organization: Uuid,
        profile: Option<Uuid>,
        lane: Lane,
        abandoned: bool,
    }

    impl Item for Change {
        fn organization(&self) -> Uuid {
            self.organization
        }

        fn profile(&self) -> Option<ProfileKey> {
            self.profile.map(|profile| (self.organization, profile))
        }

        fn lane(&self) -> Lane {
            self.lane
        }

        fn since(&self) -> Instant {
            Instant::now()
        }

        fn is_abandoned(&self) -> bool {
            self.abandoned
        }
    }

    fn change(organization: u128, profile: Option<u128>) -> Change {
        let organization = Uuid::from_u128(organization);
        Change { organization, profile: profile.map(Uuid::from_u128), lane: Lane::Groups, abandoned: false }
    }

    fn locked(change: Change) -> Change {
        Change { lane: Lane::Locked, ..change }
    }

    async fn take(queue: &Arc<Queue<Change>>, lane: Lane, most: usize) -> Taken<Change> {
        queue.take(lane, most).await.expect("a queue that has not ended")
    }

    #[tokio::test]
    async fn organizations_take_turns() {
        let (sender, queue) = queue();
        for change in [change(1, None), change(1, None), change(1, None), change(2, None)] {
            sender.push(change).expect("room");
        }
        let organizations =
            |taken: Taken<Change>| -> Vec<_> { taken.items.iter().map(|item| item.organization.as_u128()).collect() };
        assert_eq!(organizations(take(&queue, Lane::Groups, 2).await), [1, 2]);
        assert_eq!(organizations(take(&queue, Lane::Groups, 32).await), [1, 1]);
    }

    #[tokio::test]
    async fn no_two_workers_have_one_profile() {
        let (sender, queue) = queue();
        for change in [change(1, Some(1)), change(1, Some(1)), change(1, Some(2))] {
            sender.push(change).expect("room");
        }
        let first = take(&queue, Lane::Groups, 2).await;
        assert_eq!(first.items, [change(1, Some(1)), change(1, Some(1))]);
        sender.push(change(1, Some(1))).expect("room");
        assert_eq!(take(&queue, Lane::Groups, 2).await.items, [change(1, Some(2))]);
        assert!(queue.take(Lane::Groups, 2).now_or_never().is_none());
        drop(first);
        assert_eq!(take(&queue, Lane::Groups, 2).await.items, [change(1, Some(1))]);
    }

    #[tokio::test]
    async fn the_locked_lane_takes_one_profile() {
        let (sender, queue) = queue();
        for change in
            [change(1, Some(1)), locked(change(1, Some(2))), locked(change(1, Some(3))), locked(change(1, Some(2)))]
        {
            sender.push(change).expect("room");
        }
        let second = take(&queue, Lane::Locked, 32).await;
        assert_eq!(second.items, [locked(change(1, Some(2))), locked(change(1, Some(2)))]);
        assert_eq!(take(&queue, Lane::Locked, 32).await.items, [locked(change(1, Some(3)))]);
        assert_eq!(take(&queue, Lane::Groups, 32).await.items, [change(1, Some(1))]);
    }

    #[tokio::test]
    async fn few_wait_for_a_blocked_profile_and_any_number_for_another() {
        let (sender, queue) = queue();
        sender.push(locked(change(1, Some(1)))).expect("room");
        let _worker = take(&queue, Lane::Locked, 1).await;
        for _ in 0..40 {
            sender.push(change(1, Some(1))).expect("nobody knows yet that it is blocked");
            sender.push(change(1, Some(2))).expect("room");
        }
        assert_eq!(queue.block((Uuid::from_u128(1), Uuid::from_u128(1))), vec![change(1, Some(1)); 8]);
        assert_eq!(sender.push(change(1, Some(1))), Err(change(1, Some(1))));
        assert_eq!(sender.push(change(1, Some(2))), Ok(()));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_does_not_pile_up() {
        let (sender, queue) = queue();
        for _ in 0..10 * PURGE_AT_LEAST {
            sender.push(Change { abandoned: true, ..change(1, None) }).expect("room");
        }
        assert!(queue.state().length <= PURGE_AT_LEAST);
    }

    #[tokio::test]
    async fn workers_end_with_the_sender_once_nothing_waits() {
        let (sender, queue) = queue();
        sender.push(change(1, None)).expect("room");
        drop(sender);
        assert_eq!(take(&queue, Lane::Groups, 1).await.items.len(), 1);
        assert!(queue.take(Lane::Groups, 1).await.is_none());
        assert!(queue.take(Lane::Locked, 1).await.is_none());
    }
}
