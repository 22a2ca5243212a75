//! Connections whose last statement has not been answered in time. PostgreSQL may still be at it: nothing ends a commit
//! that waits for a standby, neither a limit of time nor a client that has gone. Each keeps its place among the connections
//! meanwhile, or new ones would follow until the server refuses everybody.
//!
//! Such a commit is not cancelled: PostgreSQL would go on as if the standby had it, and a repeat of the write would be
//! told that it is saved.

use std::{fmt, sync::Arc, time::Duration};

use sea_orm::sqlx::{
    self, Connection as _, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgConnection},
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, OwnedSemaphorePermit},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::ACQUIRE_TIMEOUT;
use crate::metrics::METRICS;

/// How often the server is asked what it is still at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// For how many milliseconds the oldest statement that writes has been going on.
const OLDEST_WRITE: &str = "SELECT COALESCE(CEIL(MAX(EXTRACT(EPOCH FROM clock_timestamp() - query_start)) * 1000), 0)::bigint \
     FROM pg_stat_activity \
     WHERE datname = current_database() AND usename = current_user AND state = 'active' AND backend_xid IS NOT NULL";

/// Waits for the answers to what nobody else waits for any more. Cheap to clone.
#[derive(Clone)]
pub struct Unanswered(Arc<Shared>);

struct Shared {
    pool: PgPool,
    options: PgConnectOptions,
    last_look: Mutex<Option<Look>>,
}

/// What the server was found to be at.
#[derive(Clone, Copy)]
struct Look {
    began: Instant,
    /// How long the oldest write has been going on; none where that could not be found out.
    oldest_write: Option<Duration>,
}

impl Unanswered {
    pub fn new(pool: PgPool, options: PgConnectOptions) -> Self {
        Self(Arc::new(Shared { pool, options, last_look: Mutex::new(None) }))
    }

    /// Keeps a connection and its permit until its server has answered or broken, or has no write that is as old.
    pub fn keep(self, connection: PoolConnection<Postgres>, permit: OwnedSemaphorePermit) {
        let Ok(runtime) = Handle::try_current() else { return drop(connection.detach()) };
        runtime.spawn(async move {
            let kept = &METRICS.database.unanswered;
            if kept.inc() == 0 {
                tracing::warn!("the database has not answered a write in time: its connection is kept until it does");
            }
            self.wait(connection).await;
            drop(permit);
            if kept.dec() == 1 {
                tracing::info!("no write is left that the database has not answered");
            }
        });
    }

    async fn wait(&self, mut connection: PoolConnection<Postgres>) {
        let since = Instant::now();
        tokio::select! {
            _answer = connection.ping() => {}
            () = self.is_over(since) => {}
            () = self.0.pool.close_event() => {}
        }
        drop(connection.detach()); // nobody knows what else is on its way
    }

    /// Waits until the server has no write that began before this.
    async fn is_over(&self, since: Instant) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.tick().await; // at once
        loop {
            looks.tick().await;
            let Look { began, oldest_write } = self.look(since + LOOK_EVERY).await;
            if oldest_write.is_some_and(|oldest| oldest < began - since) {
                return;
            }
        }
    }

    /// Looks, unless somebody else has done so after this and a moment ago.
    async fn look(&self, after: Instant) -> Look {
        let mut last = self.0.last_look.lock().await;
        if let Some(look) = *last
            && look.began >= after
            && look.began.elapsed() < LOOK_EVERY
        {
            return look;
        }
        let began = Instant::now();
        let asked = timeout(ACQUIRE_TIMEOUT, self.oldest_write()).await;
        *last.insert(Look { began, oldest_write: asked.ok().and_then(Result::ok) })
    }

    /// By a connection beside the pool, whose connections may all be kept.
    async fn oldest_write(&self) -> sqlx::Result<Duration> {
        let mut connection = PgConnection::connect_with(&self.0.options).await?;
        let milliseconds: i64 = sqlx::query_scalar(OLDEST_WRITE).fetch_one(&mut connection).await?;
        let _ = connection.close().await;
        Ok(Duration::from_millis(milliseconds.unsigned_abs()))
    }
}

impl fmt::Debug for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unanswered") // the options have the password
    }
}
