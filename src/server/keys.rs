//! Who a presented API key stands for.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use moka::future::Cache;
use subtle::ConstantTimeEq as _;
use tokio_util::task::TaskTracker;

use super::{
    look_up::LookUps,
    peer::Peer,
    rate::{Limit, Rates},
};
use crate::{
    entity::api_key,
    error::{Error, Result},
    metrics::METRICS,
    scope::Scope,
    store::{self, Store, key::OfOrganization},
    telemetry,
    value::{KeyText, Rate},
};

/// How long a key's row is trusted. With the 2 seconds that a look-up may take, a revoked key stops within 5.
const TRUSTED: Duration = Duration::from_secs(3);

/// How many keys are remembered at most.
const REMEMBERED: u64 = 10_000;

/// A key, what it may do, and whether its use has been noted since it was read.
struct Remembered {
    found: OfOrganization,
    scopes: Vec<Scope>,
    limit: Option<Arc<Limit>>,
    touched: AtomicBool,
}

/// Finds out who a presented key stands for.
pub struct Keys {
    store: Store,
    tasks: TaskTracker,
    cache: Cache<String, Arc<Remembered>>,
    look_ups: LookUps,
    rates: Rates,
}

impl Keys {
    pub fn new(store: Store, tasks: TaskTracker) -> Self {
        let cache = Cache::builder().max_capacity(REMEMBERED).time_to_live(TRUSTED).build();
        Self { look_ups: LookUps::new(&store), store, tasks, cache, rates: Rates::default() }
    }

    /// The row of the key that a peer presents, if it is known, current, within its rate, and has the scope, where one is
    /// required.
    pub async fn authenticate(
        &self,
        presented: &KeyText,
        scope: Option<Scope>,
        peer: &Peer,
        now: DateTime<Utc>,
    ) -> Result<api_key::Model> {
        let lookup = &presented.lookup;
        let remembered = match self.cache.get(lookup).await {
            Some(remembered) => {
                METRICS.keys.remembered.inc();
                remembered
            }
            // Boxed, since every call has room for it, and moves it, and few need it.
            None => Box::pin(self.cache.try_get_with_by_ref(lookup, self.look_up(lookup, peer)))
                .await
                .map_err(|error| Error::clone(&error))?,
        };
        let row = &remembered.found.key;
        let same_secret: bool = presented.secret_sha256().ct_eq(&row.secret_sha256).into();
        if !same_secret {
            return Err(Error::ApiKeyInvalid);
        }
        telemetry::note_key(&row.id);
        if let Some(state) = ended(&remembered.found, now) {
            telemetry::note_key_state(state);
            return Err(Error::ApiKeyInvalid);
        }
        peer.known.store(true, Ordering::Relaxed);
        if let Some(limit) = &remembered.limit {
            limit.count()?;
        }
        self.note_use(&remembered, now);
        match scope.filter(|scope| !remembered.scopes.contains(scope)) {
            None => Ok(row.clone()),
            Some(scope) => Err(Error::ScopeMissing(scope)),
        }
    }

    /// Those of these keys that are not known, or no longer current, by one query.
    pub async fn invalid_of(&self, lookups: Vec<String>, now: DateTime<Utc>) -> Result<Vec<String>> {
        if lookups.is_empty() {
            return Ok(lookups);
        }
        let rows = store::in_time(store::key::look_up_all(&self.store, &lookups)).await?;
        let valid: HashSet<_> = rows.iter().filter(|row| ended(row, now).is_none()).map(|row| &row.key.id).collect();
        Ok(lookups.into_iter().filter(|lookup| !valid.contains(lookup)).collect())
    }

    async fn look_up(&self, lookup: &str, peer: &Peer) -> Result<Arc<Remembered>> {
        METRICS.keys.looked_up.inc();
        let in_turn = async {
            let _permit = peer.key_look_ups.acquire().await;
            self.look_ups.find(lookup).await
        };
        let found = store::in_time(in_turn).await?;
        // A scope that this program does not know allows nothing here.
        let scopes = found.key.scopes.split(' ').filter_map(|name| name.parse().ok()).collect();
        let limit = match found.key.calls_per_second {
            Some(calls) => Some(self.rates.of(lookup, Rate::stored(calls)).await),
            None => None,
        };
        Ok(Arc::new(Remembered { found, scopes, limit, touched: AtomicBool::new(false) }))
    }

    /// Notes the use beside the call: nobody waits for it.
    fn note_use(&self, remembered: &Remembered, now: DateTime<Utc>) {
        let key = &remembered.found.key;
        let stale = key.last_used_at.is_none_or(|last| last < now - store::key::LAST_USE_STEP);
        if stale && !remembered.touched.swap(true, Ordering::Relaxed) {
            let (store, lookup) = (self.store.clone(), key.id.clone());
            self.tasks.spawn(async move {
                if let Err(error) = store::key::touch(&store, &lookup, now).await {
                    tracing::warn!(key_id = lookup, ?error, "the key's last use could not be noted");
                }
            });
        }
    }
}

/// Why a key is no longer valid, if it is not.
fn ended(OfOrganization { key, disabled_at }: &OfOrganization, now: DateTime<Utc>) -> Option<&'static str> {
    if key.revoked_at.is_some() {
        Some("revoked")
    } else if disabled_at.is_some() {
        Some("disabled")
    } else {
        key.expires_at.is_some_and(|expiry| expiry <= now).then_some("expired")
    }
}
