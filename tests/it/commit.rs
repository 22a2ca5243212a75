//! Commits that PostgreSQL does not answer, as while a synchronous standby is frozen.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{task::JoinSet, time::sleep};
use tonic::Code;

use crate::harness::{Database, STOP, Service, Way, progress, until};

/// How many connections the program may have.
const CONNECTIONS: i64 = 4;

/// How long commits wait: past three times the wait of a worker.
const LONG: Duration = Duration::from_secs(12);

/// What a commit does that saves a new profile: it waits as long as there is a row in `frozen`, and no limit of time of a
/// statement ends that.
const FREEZE: &str = "CREATE TABLE frozen (name text); \
     CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN \
     WHILE EXISTS (SELECT FROM frozen) LOOP PERFORM pg_sleep(0.02); END LOOP; RETURN NULL; END$$; \
     CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON profile DEFERRABLE INITIALLY DEFERRED \
     FOR EACH ROW EXECUTE FUNCTION wait()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_are_not_answered_keep_their_places_and_reads_have_theirs() {
    let database = Arc::new(Database::create());
    if !database.is_postgres() {
        println!("nothing to do: SQLite waits for no standby");
        return;
    }
    let service = Service::observed(Arc::clone(&database), ["--database-connections", "4"]);
    let kept = async || service.scrape().await.sum("profile_service_database_connections_unanswered", &[]);
    let north = service.organization("north").await;
    let ada = north.person(json!({})).await;
    database.execute(FREEZE).await;
    let successes = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let (north, successes) = (north.clone(), Arc::clone(&successes));
        callers.spawn(async move {
            let mut acknowledged = Vec::new();
            while successes.load(Ordering::SeqCst) < STOP {
                match north.create(json!({ "firstName": "Ada", "lastName": "Byron" })).await {
                    Ok(person) => {
                        acknowledged.push(person);
                        successes.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(refused) => assert_eq!(refused.code, Code::Unavailable, "{refused:?}"),
                }
            }
            acknowledged
        });
    }
    progress(&successes, 50).await;
    database.execute("INSERT INTO frozen VALUES ('standby')").await;
    let sessions = "SELECT COUNT(*) AS number FROM pg_stat_activity \
                    WHERE datname = current_database() AND application_name = 'profile-service'";
    let began = Instant::now();
    while began.elapsed() < LONG {
        let sessions = database.number(sessions).await;
        // One more asks what the server is at.
        assert!(sessions <= CONNECTIONS + 1, "{sessions} sessions after {:?}", began.elapsed());
        assert_eq!(north.get(&ada).await.as_ref(), Ok(&ada));
        sleep(Duration::from_millis(100)).await;
    }
    assert!(kept().await >= 1.0);
    database.execute("DELETE FROM frozen").await;
    let thawed = Instant::now();
    progress(&successes, 50).await;
    println!("50 writes acknowledged {:?} after commits went on", thawed.elapsed());
    assert!(thawed.elapsed() < Duration::from_secs(4), "{:?}", thawed.elapsed());
    successes.fetch_add(STOP, Ordering::SeqCst);
    for person in callers.join_all().await.into_iter().flatten() {
        assert_eq!(north.get(&person).await.as_ref(), Ok(&person));
    }
    until("all have been answered", async || kept().await == 0.0).await;
}

#[tokio::test]
async fn a_commit_that_is_not_answered_keeps_no_program_from_its_end() {
    let database = Arc::new(Database::create());
    if !database.is_postgres() {
        println!("nothing to do: SQLite waits for no standby");
        return;
    }
    let mut service = Service::on(Arc::clone(&database), []);
    let north = service.organization("north").await;
    database.execute(FREEZE).await;
    database.execute("INSERT INTO frozen VALUES ('standby')").await;
    let refused = north.create(json!({ "firstName": "Ada", "lastName": "Byron" })).await.expect_err("no answer");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "OUTCOME_UNKNOWN"));
    let kept = "SELECT COUNT(*) AS number FROM pg_stat_activity \
                WHERE datname = current_database() AND backend_xid IS NOT NULL";
    until("its commit waits", async || database.number(kept).await == 1).await;
    sleep(Duration::from_secs(2)).await;
    service.signal("TERM");
    let began = Instant::now();
    assert_eq!(service.end().await.0, Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_lost_gives_its_place_back() {
    let database = Arc::new(Database::create());
    let (url, Some(proxy)) = database.behind_a_proxy(Duration::ZERO).await else {
        println!("nothing to do: SQLite has no connections that could be lost");
        return;
    };
    let service = Service::by_url(database, &url, ["--database-connections", "2"]);
    let north = service.organization("north").await;
    let successes = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        let (north, successes) = (north.clone(), Arc::clone(&successes));
        callers.spawn(async move {
            while successes.load(Ordering::SeqCst) < STOP {
                match north.create(json!({ "firstName": "Ada", "lastName": "Byron" })).await {
                    Ok(_) => drop(successes.fetch_add(1, Ordering::SeqCst)),
                    Err(refused) => assert_eq!(refused.code, Code::Unavailable, "{refused:?}"),
                }
            }
        });
    }
    for _ in 0..3 {
        progress(&successes, 20).await;
        proxy.set(Way::Lost);
        let lost = Instant::now();
        progress(&successes, 20).await;
        assert!(lost.elapsed() < Duration::from_secs(10), "{:?}", lost.elapsed());
        println!("20 writes acknowledged {:?} after the only connection to write with was lost", lost.elapsed());
    }
    successes.fetch_add(STOP, Ordering::SeqCst);
    callers.join_all().await;
}
