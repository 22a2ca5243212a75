//! The write: the one way in which anything about a profile changes, in one order, with its history.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable as _};
use chrono::{DateTime, Utc};
use sea_orm::{
    ActiveModelTrait as _, ActiveValue::Set, DatabaseTransaction, IdenStatic as _, IntoActiveModel as _, Iterable as _,
    TryIntoModel as _, Value,
};
use secrecy::SecretString;
use serde_json::{Map, Value as Json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{
    entity::{
        profile::{ActiveModel, Column, Model, Role},
        profile_case, profile_change, write_request,
    },
    error::{Error, Result},
    policy::{self, Editable, Rpc},
    store::{self, Store},
    telemetry,
};

/// How long a write keeps trying when other writes are in its way.
const PATIENCE: Duration = Duration::from_secs(2);

/// How much longer than its caller waits a write may hold its connection: PostgreSQL has ended whatever it was by then,
/// unless the connection is dead.
const GRACE: Duration = Duration::from_millis(3500);

/// Who writes.
#[derive(Clone, Debug)]
pub struct Author {
    pub organization_id: Uuid,
    pub key_id: String,
    pub key_name: String,
    /// The call's place among those in flight: a write holds it until it has ended, even when its caller has gone.
    #[expect(dead_code, reason = "held, not read")]
    pub place: Arc<OwnedSemaphorePermit>,
}

/// A write, as a value.
#[derive(Clone)]
pub struct Change {
    pub rpc: Rpc,
    pub target: Target,
    pub edit: Edit,
    /// The version that must be current.
    pub etag: Option<String>,
    pub claim: Option<Claim>,
    pub validate_only: bool,
    pub note: Note,
}

/// What is written.
#[derive(Clone)]
pub enum Edit {
    /// The columns to set, judged and in their stored form.
    Columns(Vec<(Column, Value)>),
    /// How a case about the profile stands, which may lock or unlock it.
    Case(profile_case::Model),
}

/// What support says for the record.
#[derive(Clone, Default)]
pub struct Note {
    pub reason: Option<String>,
    pub ticket: Option<String>,
}

/// What a write leaves.
pub struct Written {
    pub profile: Model,
    /// The case as it is stored, where one was reported.
    pub case: Option<profile_case::Model>,
}

impl From<Model> for Written {
    fn from(profile: Model) -> Self {
        Self { profile, case: None }
    }
}

/// Whose profile is written.
#[derive(Clone)]
pub enum Target {
    /// A profile that is yet to be.
    New(Uuid),
    Id(Uuid),
    /// The profile with this e-mail, and the address as it was sent.
    Email {
        email: String,
        sent: SecretString,
    },
}

/// A request id, and what it stands for.
#[derive(Clone)]
pub struct Claim {
    pub request_id: String,
    pub payload_sha256: Vec<u8>,
}

/// A column that changes, with its values as the history keeps them.
struct Difference {
    column: Column,
    old: Json,
    new: Json,
}

/// Makes writes, each in a task of its own: a caller that goes away cannot drop a transaction in its middle.
pub struct Writer {
    store: Store,
    tasks: TaskTracker,
    /// One for each write that may be in the database at once; the others wait here, where a caller can still go away.
    turns: Arc<Semaphore>,
}

impl Writer {
    pub fn new(store: Store, tasks: TaskTracker) -> Self {
        let turns = Arc::new(Semaphore::new(store.writers()));
        Self { store, tasks, turns }
    }

    /// Makes the change, or nothing of it, and answers what it leaves.
    pub async fn write(&self, author: Author, change: Change, now: DateTime<Utc>) -> Result<Written> {
        let fate = Arc::new(Fate::default());
        let done = timeout(self.store.patience(), self.unit(author, change, now, Arc::clone(&fate))).await;
        done.unwrap_or_else(|_late| Err(fate.give_up()))
    }

    /// Waits for a turn and carries the change out.
    async fn unit(&self, author: Author, change: Change, now: DateTime<Utc>, fate: Arc<Fate>) -> Result<Written> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let store = self.store.clone();
        let longest = store.patience() + GRACE;
        let unit = async move {
            let _turn = turn;
            let retries = ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(2))
                .with_max_delay(Duration::from_millis(100))
                .with_jitter()
                .without_max_times();
            let started = Instant::now();
            (|| attempt(&store, &author, &change, now, &fate))
                .retry(retries)
                .when(|error| {
                    matches!(error, Error::TransactionConflict { retryable: true, .. }) && started.elapsed() < PATIENCE
                })
                .await
        };
        let done = self.tasks.spawn(timeout(longest, unit).in_current_span()).await;
        let done = done.map_err(|_panic| Error::Internal("the write panicked".to_owned()))?;
        done.unwrap_or_else(|_stuck| Err(Error::OutcomeUnknown("the connection is stuck".to_owned())))
    }
}

/// What becomes of a write whose database is slow: its caller may give up until it commits, and not after.
#[derive(Default)]
struct Fate {
    state: AtomicU8,
}

impl Fate {
    const OPEN: u8 = 0;
    const COMMITTING: u8 = 1;
    const GIVEN_UP: u8 = 2;

    /// Whether the write may commit. It may do so again where a commit gave way to other writes.
    fn commit(&self) -> bool {
        self.leave_open_for(Self::COMMITTING) == Self::COMMITTING
    }

    /// What the caller is told: that nothing is written, or that nobody knows.
    fn give_up(&self) -> Error {
        if self.leave_open_for(Self::GIVEN_UP) == Self::GIVEN_UP {
            Error::DatabaseUnavailable("the write was not made in time".to_owned())
        } else {
            Error::OutcomeUnknown("the commit was not answered in time".to_owned())
        }
    }

    /// The state after an attempt to leave `OPEN` for another.
    fn leave_open_for(&self, state: u8) -> u8 {
        match self.state.compare_exchange(Self::OPEN, state, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => state,
            Err(decided) => decided,
        }
    }
}

/// One transaction from begin to its end.
async fn attempt(store: &Store, author: &Author, change: &Change, now: DateTime<Utc>, fate: &Fate) -> Result<Written> {
    let tx = store.begin().await?;
    match apply(&tx, author, change, now).await {
        Ok(written) if change.validate_only => {
            tx.rollback().await?;
            Ok(written)
        }
        Ok(written) if fate.commit() => {
            store::commit(tx).await?;
            Ok(written)
        }
        Ok(_) => {
            tx.rollback().await?;
            Err(Error::DatabaseUnavailable("the write came too late".to_owned()))
        }
        Err(error) => {
            // Where this fails too, the connection is gone, and the transaction with it: the first error says more.
            let _ = tx.rollback().await;
            Err(error)
        }
    }
}

/// The order of every write.
async fn apply(tx: &DatabaseTransaction, author: &Author, change: &Change, now: DateTime<Utc>) -> Result<Written> {
    let claim = change.claim.as_ref().map(|claim| remembered(author, change, claim, now));
    if let Some(claim) = &claim
        && let Some(earlier) = store::request::claim(tx, claim.clone()).await?
    {
        return Ok(replay(tx, claim, &earlier).await?.into());
    }

    let (before, mut row) = start(tx, author, change, now).await?;
    if change.etag.is_some() && change.etag != before.as_ref().map(etag) {
        return Err(Error::EtagMismatch);
    }
    let case = edit(tx, &mut row, &change.edit).await?;
    let after = row.clone().try_into_model()?;
    if let Some(claim) = claim.filter(|claim| claim.profile_id.is_none()) {
        store::request::set_profile(tx, claim, after.id).await?;
    }

    let differences = differences(before.as_ref(), &after)?;
    if differences.is_empty() {
        return Ok(Written { profile: after, case });
    }
    let lock_overridden = before.as_ref().is_some_and(|profile| profile.locked) && overrides(change.rpc, &differences)?;
    row.revision = Set(after.revision + 1);
    row.updated_at = Set(now.max(after.updated_at));
    let saved = if before.is_some() { row.update(tx).await? } else { row.insert(tx).await? };
    store::history::record(tx, history(author, change, &saved, &differences, lock_overridden)).await?;
    if change.validate_only {
        return Ok(Written { profile: unstored(before, saved), case });
    }
    telemetry::note_profile(saved.id);
    Ok(Written { profile: saved, case })
}

/// Puts the edit onto the row, as far as it changes anything, and answers the case that was reported.
async fn edit(tx: &DatabaseTransaction, row: &mut ActiveModel, edit: &Edit) -> Result<Option<profile_case::Model>> {
    match edit {
        Edit::Columns(columns) => {
            for (column, value) in columns {
                row.set_if_not_equals(*column, value.clone());
            }
            Ok(None)
        }
        Edit::Case(report) => {
            let case = store::case::report(tx, report.clone()).await?;
            let locked = store::case::any_locks(tx, case.organization_id, case.profile_id).await?;
            row.locked.set_if_not_equals(locked);
            Ok(Some(case))
        }
    }
}

/// What a repeat answers: the profile as it is now.
async fn replay(
    tx: &DatabaseTransaction,
    claim: &write_request::Model,
    earlier: &write_request::Model,
) -> Result<Model> {
    if claim.payload_sha256 != earlier.payload_sha256 {
        return Err(Error::RequestIdReused);
    }
    let id = earlier.profile_id.unwrap_or_default();
    telemetry::note_profile(id);
    store::profile::find(tx, claim.organization_id, id).await?.ok_or(Error::ProfileNotFound(Some(id)))
}

/// The profile before the write, locked, if there is one, and the row to be.
async fn start(
    tx: &DatabaseTransaction,
    author: &Author,
    change: &Change,
    now: DateTime<Utc>,
) -> Result<(Option<Model>, ActiveModel)> {
    let organization = author.organization_id;
    let profile = match &change.target {
        Target::New(id) => return Ok((None, blank(*id, organization, now))),
        Target::Id(id) => {
            store::profile::lock(tx, organization, *id).await?.ok_or(Error::ProfileNotFound(Some(*id)))?
        }
        Target::Email { email, sent } => match store::profile::lock_by_email(tx, organization, email).await? {
            Some(profile) => profile,
            None => return Err(nobody_here(store::profile::owner_of_email(tx, email).await?, organization, sent)),
        },
    };
    telemetry::note_profile(profile.id);
    if change.rpc.may_write_to(profile.role) {
        Ok((Some(profile.clone()), profile.into_active_model()))
    } else {
        Err(Error::UpdateNotAllowed)
    }
}

/// Why the organization has no profile with an e-mail whose owner is another one, or none.
fn nobody_here(owner: Option<Uuid>, organization: Uuid, sent: &SecretString) -> Error {
    match owner {
        None => Error::UserNotFound(sent.clone()),
        // It came here between the two looks at it: the next attempt finds it.
        Some(owner) if owner == organization => {
            Error::TransactionConflict { cause: "the e-mail has just changed hands".to_owned(), retryable: true }
        }
        Some(_) => Error::UserNotInOrganization(sent.clone()),
    }
}

/// A profile before its first revision; the edit of a create sets every other column.
fn blank(id: Uuid, organization: Uuid, now: DateTime<Utc>) -> ActiveModel {
    ActiveModel {
        id: Set(id),
        organization_id: Set(organization),
        revision: Set(0),
        locked: Set(false),
        role: Set(Role::default()),
        created_at: Set(now),
        updated_at: Set(now),
        ..Default::default()
    }
}

/// What changes, by value: a column that is set to what it has is no change.
fn differences(before: Option<&Model>, after: &Model) -> Result<Vec<Difference>> {
    let (mut old, mut new) = (before.map_or_else(|| Ok(Map::new()), recorded)?, recorded(after)?);
    let compare = |column: Column| Difference {
        column,
        old: old.remove(column.as_str()).unwrap_or_default(),
        new: new.remove(column.as_str()).unwrap_or_default(),
    };
    let tracked = Column::iter().filter(|column| policy::editable(*column) != Editable::Never);
    Ok(tracked.map(compare).filter(|difference| difference.old != difference.new).collect())
}

/// A row by column, as the history keeps it: what is empty or false is not there, as in an answer.
fn recorded(profile: &Model) -> Result<Map<String, Json>> {
    match serde_json::to_value(profile) {
        Ok(Json::Object(mut columns)) => {
            columns.retain(|_, value| !matches!(value, Json::Null | Json::Bool(false)));
            Ok(columns)
        }
        Ok(_) | Err(_) => Err(Error::Internal("a row does not serialize to an object".to_owned())),
    }
}

/// Whether the write changes locked columns, which only some RPCs may.
fn overrides(rpc: Rpc, differences: &[Difference]) -> Result<bool> {
    let columns = differences.iter().map(|difference| difference.column);
    let locked: Vec<_> = columns.filter(|column| policy::editable(*column) == Editable::UntilCase).collect();
    if locked.is_empty() || rpc.passes_lock() {
        Ok(!locked.is_empty())
    } else {
        Err(Error::DemographicsLocked(locked.iter().map(|column| column.as_str().to_owned()).collect()))
    }
}

/// The history's row of a change.
fn history(
    author: &Author,
    change: &Change,
    saved: &Model,
    differences: &[Difference],
    lock_overridden: bool,
) -> profile_change::Model {
    let values = |side: fn(&Difference) -> &Json| {
        let present = differences.iter().filter(|difference| !side(difference).is_null());
        let values: Map<_, _> =
            present.map(|difference| (difference.column.as_str().to_owned(), side(difference).clone())).collect();
        (!values.is_empty()).then(|| Json::Object(values).to_string())
    };
    profile_change::Model {
        profile_id: saved.id,
        revision: saved.revision,
        organization_id: saved.organization_id,
        changed_at: saved.updated_at,
        rpc: change.rpc.name().to_owned(),
        key_id: author.key_id.clone(),
        key_name: author.key_name.clone(),
        request_id: change.claim.as_ref().map(|claim| claim.request_id.clone()),
        reason: change.note.reason.clone(),
        ticket: change.note.ticket.clone(),
        case_id: match &change.edit {
            Edit::Columns(_) => None,
            Edit::Case(report) => Some(report.case_id.clone()),
        },
        lock_overridden,
        fields: differences.iter().map(|difference| difference.column.as_str()).collect::<Vec<_>>().join(" "),
        old_values: values(|difference| &difference.old),
        new_values: values(|difference| &difference.new),
    }
}

/// The row that remembers a request id.
fn remembered(author: &Author, change: &Change, claim: &Claim, now: DateTime<Utc>) -> write_request::Model {
    write_request::Model {
        organization_id: author.organization_id,
        rpc: change.rpc.name().to_owned(),
        request_id: claim.request_id.clone(),
        payload_sha256: claim.payload_sha256.clone(),
        profile_id: match change.target {
            Target::New(id) | Target::Id(id) => Some(id),
            Target::Email { .. } => None,
        },
        created_at: now,
    }
}

/// The profile as a write would leave it, with the version and dates it has without the write: revision 0 if it is not
/// stored at all.
fn unstored(before: Option<Model>, after: Model) -> Model {
    let (revision, updated_at) = before.map_or((0, after.updated_at), |before| (before.revision, before.updated_at));
    Model { revision, updated_at, ..after }
}

/// The version of a profile, in the form of RFC 7232.
pub fn etag(profile: &Model) -> String {
    format!("\"{}\"", profile.revision)
}
