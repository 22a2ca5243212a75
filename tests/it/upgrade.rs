//! Upgrades, and the way back.

use std::sync::Arc;

use serde_json::json;

use crate::harness::{Database, Service};

#[tokio::test]
async fn a_program_serves_a_schema_that_a_newer_one_has_left_and_warns() {
    let database = Arc::new(Database::create());
    drop(Service::on(Arc::clone(&database), []));
    database.execute("ALTER TABLE profile ADD COLUMN later TEXT").await;
    let applied = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20990101_000001_later', 0)";
    database.execute(applied).await;
    let service = Service::on(database, []);
    assert_eq!(service.logged("migrations")["migrations"], "m20990101_000001_later");
    let north = service.organization("north").await;
    let ada = north.person(json!({})).await;
    north.patch(&ada, json!({ "city": "London" })).await.expect("patched");
    assert_eq!(north.changes(&ada).await.len(), 2);
}
