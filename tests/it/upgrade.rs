//! Upgrades, and the way back.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::harness::{Database, Service};

#[tokio::test]
async fn a_program_serves_a_schema_that_a_newer_one_has_left_and_warns() {
    let database = Arc::new(Database::create());
    drop(Service::on(Arc::clone(&database), []));
    database.execute("ALTER TABLE profile ADD COLUMN later TEXT").await;
    let applied = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20990101_000001_later', 0)";
    database.execute(applied).await;
    let service = Service::on(database, []);
    let warning = service.line("the schema is of a newer program").expect("a line");
    assert_eq!((&warning["level"], &warning["migrations"]), (&json!("WARN"), &json!("m20990101_000001_later")));
    let north = service.organization("north").await;
    let ada = north.person(json!({})).await;
    north.patch(&ada, json!({ "city": "London" })).await.expect("patched");
    assert_eq!(north.changes(&ada).await.len(), 2);
}

#[tokio::test]
async fn a_change_that_waited_for_its_place_in_the_feed_gets_it_after_the_upgrade() {
    let database = Arc::new(Database::create());
    let service = Service::on(Arc::clone(&database), []);
    let north = service.organization("north").await;
    for _ in 0..2 {
        north.person(json!({})).await;
    }
    database.sequenced().await;
    drop(service);
    let uuid = if database.is_postgres() { "uuid" } else { "uuid_text" };
    for statement in [
        "DROP TABLE feed_pending",
        &format!(
            "CREATE TABLE feed_pending (organization_id {uuid} NOT NULL, profile_id {uuid} NOT NULL, \
             revision bigint NOT NULL, PRIMARY KEY (profile_id, revision))"
        ),
        "INSERT INTO feed_pending SELECT organization_id, profile_id, revision FROM feed WHERE position = 2",
        "DELETE FROM feed WHERE position = 2",
        "DELETE FROM seaql_migrations WHERE version LIKE 'm20261126_000003%'",
    ] {
        database.execute(statement).await;
    }
    let _service = Service::on(Arc::clone(&database), []);
    database.sequenced().await;
    let placed =
        "SELECT COUNT(*) AS number FROM feed f JOIN profile p ON p.id = f.profile_id AND p.revision = f.revision";
    assert_eq!(database.number(placed).await, 2);
}

/// Puts a row into the state in which a program of before has left it: this name, which is folded in its way.
async fn renamed(database: &Database, city: &str, last_name: &str, first_name: &str, sort_name: &str) {
    let update = format!(
        "UPDATE profile SET last_name = '{last_name}', first_name = '{first_name}', sort_name = '{sort_name}' \
         WHERE city = '{city}'"
    );
    database.execute(&update).await;
}

const LIST: &str = "ProfileQueryService/ListProfiles";

#[tokio::test]
async fn names_with_characters_that_nobody_sees_are_found_without_them_after_the_upgrade() {
    let database = Arc::new(Database::create());
    let key = {
        let service = Service::on(Arc::clone(&database), []);
        let north = service.organization("north").await;
        for city in ["Arlington", "Paris", "Rasht"] {
            north.person(json!({ "city": city })).await;
        }
        database.sequenced().await;
        service.key("north", &["profiles.list"])
    };
    renamed(&database, "Arlington", "Hop\u{ad}per", "Gra\u{200b}ce", "hop\u{ad}per gra\u{200b}ce").await;
    renamed(&database, "Paris", "\u{202e}Curie", "Marie", "\u{202e}curie marie").await;
    let joined = "\u{646}\u{6cc}\u{200c}\u{627}"; // as a program of today folds it
    renamed(&database, "Rasht", joined, "Ada", &format!("{joined} ada")).await;
    database.execute("DELETE FROM seaql_migrations WHERE version LIKE 'm20261127_000001%'").await;
    let rows = "SELECT CAST(SUM(p.revision) + COUNT(*) AS BIGINT) AS number FROM profile p \
                JOIN profile_change c ON c.profile_id = p.id JOIN feed f ON f.profile_id = p.id";
    let before = database.number(rows).await;
    let service = Service::on(Arc::clone(&database), []);
    let north = service.client(&key).await;
    for (prefix, first_name, last_name) in [
        ("hopper gra", "Gra\u{200b}ce", "Hop\u{ad}per"),
        ("Hop\u{200b}per Grace", "Gra\u{200b}ce", "Hop\u{ad}per"),
        ("curie", "Marie", "\u{202e}Curie"),
        (joined, "Ada", joined),
    ] {
        let found = north.call(LIST, json!({ "namePrefix": prefix })).await.expect("a list");
        let found: Vec<_> = found["profiles"].as_array().into_iter().flatten().collect();
        let names: Vec<_> = found.iter().map(|found| (&found["firstName"], &found["lastName"])).collect();
        assert_eq!(names, [(&json!(first_name), &json!(last_name))], "{prefix}");
    }
    assert_eq!(database.number(rows).await, before, "revisions, history and feed are as they were");
    assert_eq!(database.number("SELECT COUNT(*) AS number FROM feed_pending").await, 0);
}

#[tokio::test]
async fn pages_show_everybody_once_whose_names_another_program_has_folded_in_its_way() {
    let service = Service::start();
    let north = service.organization("north").await;
    for city in ["Arlington", "Boston", "Chicago"] {
        north.person(json!({ "lastName": "Hopper", "firstName": city, "city": city })).await;
    }
    north.person(json!({ "lastName": "\u{d8}st", "city": "Oslo" })).await;
    renamed(&service.database, "Boston", "Hop\u{ad}per", "Boston", "hop\u{ad}per boston").await;
    let (mut token, mut cities) = (json!(""), Vec::new());
    while cities.len() < 9 {
        let page = north.call(LIST, json!({ "pageSize": 1, "pageToken": token })).await.expect("a page");
        cities.extend(page["profiles"].as_array().into_iter().flatten().map(|found| found["city"].clone()));
        token = page["nextPageToken"].clone();
        if token.is_null() {
            break;
        }
    }
    assert_eq!(cities, ["Arlington", "Chicago", "Boston", "Oslo"]);
}

/// More than are filled in at once.
const PEOPLE: usize = 10_001;

#[tokio::test]
async fn people_of_the_first_schema_are_found_by_name_after_the_upgrade() {
    let database = Arc::new(Database::create());
    let key = {
        let service = Service::on(Arc::clone(&database), []);
        let north = service.organization("north").await;
        north.person(json!({ "firstName": "Zo\u{eb}", "lastName": "M\u{dc}LLER", "dob": "1985-12-10" })).await;
        service.key("north", &["profiles.list", "profiles.write"])
    };
    to_the_first_schema(&database).await;
    many_more(&database).await;
    // Replicas start at once: one fills in, the other waits.
    let replicas = [(); 2].map(|()| {
        let database = Arc::clone(&database);
        std::thread::spawn(|| Service::on(database, []))
    });
    for replica in replicas.map(|replica| replica.join().expect("a service")) {
        let north = replica.client(&key).await;
        let list = async |request: Json| north.call("ProfileQueryService/ListProfiles", request).await.expect("a list");
        let found = list(json!({ "namePrefix": "muller z" })).await;
        assert_eq!(found["profiles"][0]["firstName"], "Zo\u{eb}");
        assert_eq!(found["profiles"].as_array().expect("a list").len(), 1);
        assert_eq!(list(json!({ "namePrefix": "zoe", "dob": "1985-12-10" })).await, found);
        for number in ["00000", "07777", "10000"] {
            let found = list(json!({ "namePrefix": format!("angstrom {number} ada") })).await;
            assert_eq!(found["profiles"].as_array().expect("a list").len(), 1, "{number}");
        }
        north.person(json!({ "lastName": "New" })).await;
    }
    assert_eq!(database.number("SELECT COUNT(*) AS number FROM profile WHERE sort_name = ''").await, 0);
}

/// Takes back what later migrations have made.
async fn to_the_first_schema(database: &Database) {
    for statement in [
        "ALTER TABLE api_key DROP COLUMN calls_per_second",
        "ALTER TABLE organization DROP COLUMN disabled_at",
        "DROP INDEX profile_sort_name",
        "DROP INDEX profile_dob_sort_name",
        "ALTER TABLE profile DROP COLUMN sort_name",
        "DROP TABLE secret",
        "DROP TABLE erasure",
        "DROP TABLE profile_identifier",
        "ALTER TABLE profile DROP COLUMN identifiers",
        "ALTER TABLE profile_change DROP COLUMN actor",
        "DROP TABLE feed",
        "DROP TABLE feed_pending",
        "DROP TABLE feed_sequencer",
        "DROP TABLE import_progress",
        "DROP INDEX profile_organization_id_id",
        "DELETE FROM seaql_migrations WHERE version > 'm20261123'",
    ] {
        database.execute(statement).await;
    }
}

/// People of the organization of the one who is there.
async fn many_more(database: &Database) {
    let last = PEOPLE - 1;
    let (numbers, name, id) = if database.is_postgres() {
        (format!("SELECT n FROM generate_series(0, {last}) n"), "lpad(n::text, 5, '0')", "gen_random_uuid()")
    } else {
        (
            format!(
                "SELECT n FROM (WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {last}) \
                 SELECT n FROM s)"
            ),
            "printf('%05d', n)",
            "randomblob(16)",
        )
    };
    database
        .execute(&format!(
            "INSERT INTO profile (id, organization_id, revision, locked, role, first_name, last_name, created_at, \
             updated_at) SELECT {id}, p.organization_id, 1, p.locked, p.role, 'Ada', '\u{c5}ngstr\u{f6}m ' || {name}, \
             p.created_at, p.updated_at FROM ({numbers}) AS numbers, profile p WHERE p.first_name = 'Zo\u{eb}'"
        ))
        .await;
}
