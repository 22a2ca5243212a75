//! From a group of changes to their answers: load, decide, save.
//!
//! Optimistic, on PostgreSQL: nothing is locked while it is loaded, and one statement saves the rows that nobody has changed
//! meanwhile. Locked: a transaction around the same steps, its rows locked as they are loaded. That is SQLite's only way,
//! which has one writer; on PostgreSQL it is the way of reports, and of what another write was in the way of.

use std::{
    collections::{HashSet, VecDeque},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use prometheus_client::metrics::counter::Counter;
use sea_orm::DbBackend;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit},
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::{
    Pending, blocked,
    load::{self, Wanted},
};
use crate::{
    entity::write_request,
    error::{Error, Result},
    metrics::METRICS,
    profile::{
        change::{Author, Change, Target, Written},
        erase::Erased,
        group::{Dependency, Group, Revised, Rows, Saving, Step},
    },
    queue::{Item as _, Lane, Queue, Taken},
    store::{self, KEPT, PinnedConnection, Store, failure::uncommitted},
    trace::{Save, Wait},
};

/// How many changes are decided and saved together at the most: more would only take longer.
const LARGEST_GROUP: usize = 32;

/// How long a change waits for a worker before its caller is told to come again: writes that are slow would have all of the
/// calls in flight. Those to PostgreSQL have been given up by then.
const LONGEST_WAIT: Duration = Duration::from_millis(2500);

/// How long a load without locks may take.
const LOAD_TIMEOUT: Duration = Duration::from_secs(2);

/// How much longer than its callers a worker waits for a statement that saves: PostgreSQL has ended it by then, unless the
/// connection is dead.
const GRACE: Duration = Duration::from_secs(1);

/// How long a row's lock is waited for before the profile counts as blocked.
const BLOCKED_AFTER: Duration = Duration::from_millis(50);

/// How long a change waits before it is tried again where another write is in its way: up to twice as long.
const BACKOFF: Duration = Duration::from_millis(3);

/// How many connections of the pool may turn out to be broken before a load fails.
const BROKEN_CONNECTIONS: usize = 16;

/// Carries out groups of changes.
pub struct Worker {
    store: Store,
    queue: Arc<Queue<Pending>>,
    lane: Lane,
    /// Whether it locks rows, in a transaction.
    locks: bool,
    connection: Option<PinnedConnection>,
    /// Told of what is saved.
    saved: Arc<Notify>,
}

/// A change that is being carried out, with the permit of its call.
struct Running {
    pending: Pending,
    permit: Arc<OwnedSemaphorePermit>,
}

impl Running {
    /// None where the caller has gone, or the change has waited for so long that its caller is told to come again.
    fn begin(pending: Pending) -> Option<Self> {
        let permit = pending.permit.upgrade().filter(|_| !pending.answer.is_closed())?;
        pending.wait.iter().for_each(Wait::end);
        if pending.queued.elapsed() > LONGEST_WAIT {
            drop(permit);
            METRICS.shed.write_wait.inc();
            pending.answer(None, Err(Error::Overloaded));
            return None;
        }
        Some(Self { pending, permit })
    }

    const fn change(&self) -> (&Author, &Change) {
        (&self.pending.author, &self.pending.change)
    }

    fn answer(self, profile_id: Option<Uuid>, result: Result<Written>) {
        let Self { pending, permit } = self;
        drop(permit); // before the answer: whoever has it may call again
        pending.answer(profile_id, result);
    }
}

/// A change that was decided, and what has to be saved for its answer to hold.
struct Decided {
    running: Running,
    profile_id: Option<Uuid>,
    result: Result<Written>,
    depends_on: Dependency,
}

impl Decided {
    fn answer(self) {
        let Self { running, profile_id, result, depends_on: _ } = self;
        running.answer(profile_id, result);
    }

    fn fail(self, error: Error) {
        let Self { running, profile_id, result: _, depends_on: _ } = self;
        let stored = profile_id.filter(|_| !matches!(running.pending.change.target, Target::New(_)));
        running.answer(stored, Err(error));
    }
}

/// What became of the statements that save a group: each is saved as a whole or not at all, but for rows that another
/// write was faster with.
struct Saved {
    created: Result<()>,
    updated: Result<HashSet<Uuid>>,
    claims: Result<()>,
}

impl Worker {
    pub fn new(store: Store, queue: Arc<Queue<Pending>>, lane: Lane, saved: Arc<Notify>) -> Self {
        let locks = lane == Lane::Locked || store.writers().locked == 0;
        Self { store, queue, lane, locks, connection: None, saved }
    }

    /// Carries out one group after the other until the queue ends. A connection is kept while there is work.
    pub async fn work(mut self, tasks: TaskTracker) {
        loop {
            let next = self.queue.take(self.lane, LARGEST_GROUP);
            let taken = match &self.connection {
                None => next.await,
                Some(_) => match timeout(KEPT, next).await {
                    Ok(taken) => taken,
                    Err(_nobody_came) => {
                        self.connection = None;
                        continue;
                    }
                },
            };
            let Some(Taken { items, held }) = taken else { return };
            let running = tasks.token();
            let group = items.into_iter().filter_map(Running::begin).collect();
            // A panic ends no more than this group.
            let panicked = AssertUnwindSafe(self.carry_out(group)).catch_unwind().await.is_err();
            if panicked || self.store.is_wanted() || self.connection.as_ref().is_some_and(PinnedConnection::is_due) {
                self.connection = None;
            }
            drop((held, running));
        }
    }

    /// Carries out a group, and then what could not be part of it.
    async fn carry_out(&mut self, group: Vec<Running>) {
        let mut groups = VecDeque::from([group]);
        while let Some(group) = groups.pop_front() {
            if group.is_empty() {
                continue;
            }
            if self.locks {
                groups.extend(self.locked(group).await);
            } else {
                groups.extend(self.optimistic(group).await);
            }
        }
    }

    /// Loads, decides and saves without a lock. Answers the groups that are left to do.
    async fn optimistic(&mut self, group: Vec<Running>) -> Vec<Vec<Running>> {
        let (mut connection, rows) = match self.load(&group).await {
            Ok(loaded) => loaded,
            Err(error) => return unloaded(group, &error),
        };
        let alone = group.len() == 1;
        let (saving, decided, later) = decide(rows, group);
        let save = self.begin_save(&decided);
        let saved = self.save(&mut connection, &saving).await;
        if let Some(save) = save {
            save.end(decided.len(), saved.created.is_err() || saved.updated.is_err() || saved.claims.is_err());
        }
        let created: HashSet<_> = saving.created.iter().map(|revised| revised.profile.id).collect();
        self.connection = Some(connection);
        if saving.changes_profiles() {
            self.saved.notify_one();
        }
        for decided in decided {
            let saved = match decided.depends_on {
                Dependency::Nothing => Ok(true),
                Dependency::Transaction => {
                    Err(Error::Internal("a report or an erasure was not made with its profile locked".to_owned()))
                }
                Dependency::Claims => saved.claims.clone().map(|()| true),
                Dependency::Profile(id) if created.contains(&id) => saved.created.clone().map(|()| true),
                Dependency::Profile(id) => saved.updated.as_ref().map(|ids| ids.contains(&id)).map_err(Clone::clone),
            };
            let claims = decided.running.pending.change.claim.is_some();
            match saved {
                Ok(true) => decided.answer(),
                Err(error @ (Error::OutcomeUnknown(_) | Error::DatabaseUnavailable(_))) => decided.fail(error),
                // With a claim it may be a repeat whose first call was faster.
                Err(error) if error.is_in_use() && alone && !claims => decided.fail(error),
                Ok(false) => self.try_locked(decided, &METRICS.conflicts.row),
                Err(_) => self.try_locked(decided, &METRICS.conflicts.statement),
            }
        }
        vec![later]
    }

    /// The span of a save, where calls of these changes are traced.
    fn begin_save(&self, decided: &[Decided]) -> Option<Save> {
        let waits = decided.iter().filter_map(|decided| decided.running.pending.wait.as_ref());
        Save::begin(waits, if self.store.backend() == DbBackend::Postgres { "postgresql" } else { "sqlite" })
    }

    /// Hands a change that another write was in the way of to the workers that lock its profile.
    fn try_locked(&self, decided: Decided, conflicts: &Counter) {
        let Decided { running: Running { mut pending, permit }, profile_id, result: _, depends_on: _ } = decided;
        drop(permit); // a change that waits does not hold it
        pending.state.wait_for_others(conflicts);
        pending.wait.iter_mut().for_each(Wait::begin_again);
        (pending.lane, pending.queued) = (Lane::Locked, Instant::now());
        pending.profile = profile_id;
        if let Err(pending) = self.queue.push(pending) {
            pending.answer(profile_id, Err(blocked()));
        }
    }

    /// Loads with the rows locked, decides, saves and commits. Answers the groups that are left to do.
    async fn locked(&mut self, group: Vec<Running>) -> Vec<Vec<Running>> {
        let (mut connection, rows) = match self.load_locked(&group).await {
            Ok(loaded) => loaded,
            Err(Error::TransactionConflict { retryable: true, cause }) => {
                let (overdue, again): (_, Vec<Running>) =
                    group.into_iter().partition(|running| running.pending.is_overdue());
                for running in &again {
                    running.pending.state.conflict(&METRICS.conflicts.lock);
                }
                METRICS.conflicts.lock.inc_by(overdue.len() as u64);
                fail(overdue, &Error::TransactionConflict { cause, retryable: true });
                backoff().await;
                return vec![again];
            }
            Err(error) => return unloaded(group, &error),
        };
        let (saving, decided, later) = decide(rows, group);
        let save = self.begin_save(&decided);
        let ended = self.end(&mut connection, &saving).await;
        if let Some(save) = save {
            save.end(decided.len(), ended.is_err());
        }
        if ended.is_err() {
            connection.rollback().await;
        }
        self.connection = Some(connection);
        let mut left = vec![later];
        match ended {
            Ok(()) => {
                if saving.changes_profiles() {
                    self.saved.notify_one();
                }
                decided.into_iter().for_each(Decided::answer);
            }
            Err(error @ (Error::OutcomeUnknown(_) | Error::DatabaseUnavailable(_))) => {
                for decided in decided {
                    decided.fail(error.clone());
                }
            }
            Err(error) => {
                let alone = decided.len() == 1;
                for decided in decided {
                    let again = match &error {
                        Error::TransactionConflict { retryable, .. } => {
                            *retryable && !decided.running.pending.is_overdue()
                        }
                        // With a claim it may be a repeat whose first call was faster.
                        error if error.is_in_use() => {
                            !self.excludes_others() && decided.running.pending.change.claim.is_some()
                        }
                        _ => false,
                    };
                    if alone && !again {
                        decided.fail(error.clone());
                    } else {
                        decided.running.pending.state.wait_for_others(&METRICS.conflicts.statement);
                        left.push(vec![decided.running]);
                    }
                }
                if alone {
                    backoff().await;
                }
            }
        }
        left
    }

    /// Saves and commits, or rolls back where there is nothing to save.
    async fn end(&self, connection: &mut PinnedConnection, saving: &Saving) -> Result<()> {
        let Saving { created, updated, claims, cases, erased } = saving;
        if !saving.changes_profiles() && claims.is_empty() && cases.is_empty() {
            connection.rollback().await;
            return Ok(());
        }
        let save = async {
            self.create(connection, created).await?;
            if self.update(connection, updated).await?.len() < updated.len() {
                return Err(Error::Internal("a locked row was changed by somebody else".to_owned()));
            }
            if let Some(Erased { erasure, history }) = erased {
                self.answered(store::erasure::save(connection, erasure, history.as_ref())).await?;
            }
            self.claim(connection, claims).await?;
            store::case::save(connection, cases).await
        };
        // Nothing was committed yet, whatever became of the connection.
        save.await.map_err(|error| match error {
            Error::OutcomeUnknown(cause) => Error::DatabaseUnavailable(cause),
            error => error,
        })?;
        self.store.check_file()?;
        let committed = timeout(self.longest(), connection.commit()).await;
        committed.map_err(|_| unanswered())?.map_err(uncommitted)
    }

    /// Sends the statements that save, each of which is a transaction of its own. What comes after a lost answer is not sent.
    async fn save(&self, connection: &mut PinnedConnection, saving: &Saving) -> Saved {
        let Saving { created, updated, claims, cases: _, erased: _ } = saving;
        let created = self.create(connection, created).await;
        let updated = if connection.is_broken() { Err(unsent()) } else { self.update(connection, updated).await };
        let claims = if connection.is_broken() { Err(unsent()) } else { self.claim(connection, claims).await };
        Saved { created, updated, claims }
    }

    async fn create(&self, connection: &mut PinnedConnection, created: &[Revised]) -> Result<()> {
        if created.is_empty() {
            return Ok(());
        }
        self.answered(store::save::create(connection, &rows(created))).await
    }

    /// Answers which profiles were updated.
    async fn update(&self, connection: &mut PinnedConnection, updated: &[Revised]) -> Result<HashSet<Uuid>> {
        if updated.is_empty() {
            return Ok(HashSet::new());
        }
        let ids = self.answered(store::save::update(connection, &rows(updated))).await?;
        Ok(HashSet::from_iter(ids))
    }

    async fn claim(&self, connection: &mut PinnedConnection, claims: &[write_request::Model]) -> Result<()> {
        if claims.is_empty() {
            return Ok(());
        }
        self.answered(store::save::claim(connection, &claims.iter().collect::<Vec<_>>())).await
    }

    /// The answer to a statement that saves, if it comes at all.
    async fn answered<T>(&self, saving: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(self.longest(), saving).await.map_err(|_| unanswered())?
    }

    fn longest(&self) -> Duration {
        self.store.write_timeout() + GRACE
    }

    /// Whether no other write can come between a load and its save: SQLite has one writer.
    fn excludes_others(&self) -> bool {
        self.lane == Lane::Groups && self.locks
    }

    /// Loads what a group needs to be decided, from a connection that works.
    async fn load(&mut self, group: &[Running]) -> Result<(PinnedConnection, Rows)> {
        let wanted = Wanted::of(group.iter().map(Running::change));
        let lone = match group {
            [alone] => Some(&alone.pending.change),
            _ => None,
        };
        for _ in 0..BROKEN_CONNECTIONS {
            let mut connection = self.connection().await?;
            let loaded = timeout(LOAD_TIMEOUT, load::load(&mut connection, &wanted, lone)).await;
            match loaded.map_err(|_| Error::DatabaseUnavailable("a load was not answered in time".to_owned()))? {
                Ok(rows) => return Ok((connection, rows)),
                Err(_) if connection.is_broken() => METRICS.database.retry(),
                Err(error) => {
                    self.connection = Some(connection);
                    return Err(error);
                }
            }
        }
        Err(Error::DatabaseUnavailable("every connection was broken".to_owned()))
    }

    /// As `load`, in a transaction and with the group's rows locked.
    async fn load_locked(&mut self, group: &[Running]) -> Result<(PinnedConnection, Rows)> {
        let wanted = Wanted::of(group.iter().map(Running::change));
        for _ in 0..BROKEN_CONNECTIONS {
            let mut connection = self.connection().await?;
            let loaded = timeout(self.store.write_timeout(), async {
                connection.begin().await?;
                self.waiting_for_the_lock(group, load::load_locked(&mut connection, &wanted)).await
            });
            match loaded.await.map_err(|_| Error::DatabaseUnavailable("no lock came in time".to_owned()))? {
                Ok(rows) => return Ok((connection, rows)),
                Err(_) if connection.is_broken() => METRICS.database.retry(),
                Err(error) => {
                    connection.rollback().await;
                    self.connection = Some(connection);
                    return Err(error);
                }
            }
        }
        Err(Error::DatabaseUnavailable("every connection was broken".to_owned()))
    }

    /// Waits for a load. Where it takes long, somebody else has the profile's lock, and few changes may wait for it.
    async fn waiting_for_the_lock<T>(&self, group: &[Running], load: impl Future<Output = T>) -> T {
        let mut load = std::pin::pin!(load);
        if let Ok(loaded) = timeout(BLOCKED_AFTER, &mut load).await {
            return loaded;
        }
        if let (Lane::Locked, [Running { pending, .. }, ..]) = (self.lane, group)
            && let Some(profile) = pending.profile()
        {
            for surplus in self.queue.block(profile) {
                surplus.answer(Some(profile.1), Err(blocked()));
            }
        }
        load.await
    }

    async fn connection(&mut self) -> Result<PinnedConnection> {
        let kept = self.connection.take().filter(|kept| !kept.is_broken()); // a broken one gives up its permit here
        match kept {
            Some(kept) => Ok(kept),
            None => self.store.write_connection().await,
        }
    }
}

/// Decides each change whose caller has not given up, in the order of their arrival, and tells those callers who need nothing to
/// be saved. Answers what is to be saved, the changes that depend on it, and those that belong into the next group.
fn decide(rows: Rows, running: Vec<Running>) -> (Saving, Vec<Decided>, Vec<Running>) {
    let mut group = Group::new(rows);
    let (mut decided, mut later) = (Vec::new(), Vec::new());
    for running in running {
        let Pending { author, change, now, state, .. } = &running.pending;
        if !state.send() {
            continue;
        }
        match group.decide(author, change, *now) {
            Step::Later => {
                state.wait();
                later.push(running);
            }
            Step::Decided { result: Err(Error::TransactionConflict { retryable: true, .. }), .. }
                if !running.pending.is_overdue() =>
            {
                state.wait_for_others(&METRICS.conflicts.row);
                later.push(running);
            }
            Step::Decided { profile_id, result, depends_on: Dependency::Nothing } => running.answer(profile_id, result),
            Step::Decided { profile_id, result, depends_on } => {
                decided.push(Decided { running, profile_id, result, depends_on });
            }
        }
    }
    (group.into_saving(), decided, later)
}

/// The rows of profiles as the store takes them.
pub(super) fn rows(revised: &[Revised]) -> store::save::Rows<'_> {
    store::save::Rows {
        profiles: revised.iter().map(|revised| &revised.profile).collect(),
        expected: revised.iter().map(|revised| revised.expected).collect(),
        history: revised.iter().flat_map(|revised| &revised.history).collect(),
        claims: revised.iter().flat_map(|revised| &revised.claims).collect(),
        added: revised.iter().flat_map(|revised| &revised.added).collect(),
        removed: revised.iter().flat_map(|revised| &revised.removed).collect(),
    }
}

/// What is left to do of a group that could not be loaded: a row that cannot be read is the error of its own change alone.
fn unloaded(group: Vec<Running>, error: &Error) -> Vec<Vec<Running>> {
    match error {
        Error::Internal(_) if group.len() > 1 => group.into_iter().map(|running| vec![running]).collect(),
        _ => {
            fail(group, error);
            Vec::new()
        }
    }
}

/// Tells all of them the same.
fn fail(group: Vec<Running>, error: &Error) {
    for running in group {
        let stored = running.pending.profile.filter(|_| matches!(running.pending.change.target, Target::Id(_)));
        running.answer(stored, Err(error.clone()));
    }
}

fn unanswered() -> Error {
    Error::OutcomeUnknown("the database has not answered in time".to_owned())
}

fn unsent() -> Error {
    Error::DatabaseUnavailable("the connection broke before the write was sent".to_owned())
}

async fn backoff() {
    sleep(BACKOFF.mul_f64(rand::random_range(1.0..2.0))).await;
}
