//! Profiles by name. Each query is a range of one index, in its order: none sorts, and none reads what it does not
//! answer, but for a name's words among people of one date of birth.

use chrono::NaiveDate;
use sea_orm::{DbBackend, DbErr, FromQueryResult, QueryResult, Statement};
use uuid::Uuid;

use super::{
    Store,
    rows::{Sql, padded},
};
use crate::{
    entity::profile::{Entity, Model},
    error::Result,
};

/// How many rows a query asks for: few numbers, since they are part of its text, so that PostgreSQL plans for them.
const LIMITS: [u64; 5] = [11, 26, 51, 101, 201];

/// Not greater than any name: what is less is no name, but what the rows of before had until they got one, and what
/// PostgreSQL's index may still have.
const LEAST: &str = " ";

/// Greater than every character of a name: no text may hold it.
const GREATEST: char = '\u{10ffff}';

/// Whom a list has.
pub struct Filter {
    /// The beginning of the folded name; with a date of birth words, each the beginning of a word of it.
    pub name: String,
    pub dob: Option<NaiveDate>,
}

/// A place in the order of a list: that of a folded name and an id.
#[derive(Clone)]
pub struct Position {
    pub sort_name: String,
    pub id: Uuid,
}

/// A profile of a list.
pub struct Listed {
    pub profile: Model,
    /// Its place is by what is stored, which a program of before may have folded in another way.
    pub sort_name: String,
}

impl FromQueryResult for Listed {
    fn from_query_result(row: &QueryResult, prefix: &str) -> Result<Self, DbErr> {
        Ok(Self { profile: Model::from_query_result(row, prefix)?, sort_name: row.try_get(prefix, "sort_name")? })
    }
}

/// The profiles of the list after a position, in order: `limit` at least, if there are so many.
pub async fn list(
    store: &Store,
    organization: Uuid,
    filter: &Filter,
    after: Option<Position>,
    limit: u64,
) -> Result<Vec<Listed>> {
    store.all_of_many(page(store.backend(), organization, filter, after, limit)).await
}

/// How many profiles the list has, up to `most`.
pub async fn count(store: &Store, organization: Uuid, filter: &Filter, most: u32) -> Result<i64> {
    let counted = store.all_of_many::<Counted>(number(store.backend(), organization, filter, most)).await?;
    Ok(counted.into_iter().map(|Counted { number }| number).sum())
}

fn page(backend: DbBackend, organization: Uuid, filter: &Filter, after: Option<Position>, limit: u64) -> Statement {
    let mut sql = Sql::new(backend);
    sql.push("SELECT ").columns::<Entity>("").push(", sort_name FROM profile WHERE ");
    matching(&mut sql, organization, filter, after);
    let limit = LIMITS.into_iter().find(|step| *step >= limit).unwrap_or(limit);
    sql.push(&format!(" ORDER BY sort_name, id LIMIT {limit}"));
    sql.build()
}

fn number(backend: DbBackend, organization: Uuid, filter: &Filter, most: u32) -> Statement {
    let mut sql = Sql::new(backend);
    sql.push("SELECT COUNT(*) AS number FROM (SELECT id FROM profile WHERE ");
    matching(&mut sql, organization, filter, None);
    // In the order of the index, or PostgreSQL might read the table instead.
    sql.push(&format!(" ORDER BY sort_name, id LIMIT {most}) AS found"));
    sql.build()
}

#[derive(FromQueryResult)]
struct Counted {
    number: i64,
}

/// Adds the condition of a list. No id is nil: what is after it is all that begins so.
fn matching(sql: &mut Sql, organization: Uuid, filter: &Filter, after: Option<Position>) {
    let first = if filter.dob.is_some() || filter.name.is_empty() { LEAST } else { &filter.name };
    let Position { sort_name, id } = after.unwrap_or_else(|| Position { sort_name: first.to_owned(), id: Uuid::nil() });
    sql.push("organization_id = ").bind(organization.into());
    sql.push(" AND (sort_name, id) > (").bind(sort_name.into()).push(", ").bind(id.into()).push(")");
    let Some(dob) = filter.dob else {
        sql.push(" AND sort_name < ").bind(format!("{}{GREATEST}", filter.name).into());
        return;
    };
    // Without an end of its range: SQLite would take the other index for it.
    sql.push(" AND dob = ").bind(dob.into());
    let words: Vec<_> = filter.name.split(' ').filter(|word| !word.is_empty()).collect();
    let within = if sql.backend() == DbBackend::Postgres { "strpos" } else { "instr" };
    for word in padded(&words) {
        sql.push(" AND ").push(within).push("(' ' || sort_name, ").bind(format!(" {word}").into()).push(") > 0");
    }
}

#[cfg(test)]
mod tests {
    use std::env;

    use sea_orm::{ConnectionTrait as _, Value};

    use super::*;
    use crate::store::{DatabaseUrl, PinnedConnection};

    const BIG: Uuid = Uuid::from_u128(1);

    /// 20,000 people of 5,000 names and 20 dates of birth, three quarters of them in one organization.
    const PEOPLE: &str = "INSERT INTO profile (id, organization_id, revision, locked, role, first_name, last_name, \
                          dob, sort_name, created_at, updated_at) SELECT ";

    #[tokio::test]
    async fn sqlite_answers_every_page_from_a_range_of_an_index() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = open(&format!("sqlite://{}/profiles.db?mode=rwc", directory.path().display())).await;
        let people = format!(
            "{PEOPLE} randomblob(16), CASE WHEN n % 4 > 0 THEN x'{}' ELSE randomblob(16) END, 1, false, 'USER', \
             'Ada', 'B', \
             date('1985-01-01', (n % 20) || ' days'), printf('name %04d', n % 5000), '', '' FROM (WITH RECURSIVE \
             s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 20000) SELECT n FROM s)",
            BIG.simple()
        );
        store.writer().execute_unprepared(&people).await.expect("people");
        // The program never asks for statistics; an operator may.
        for statistics in ["", "ANALYZE"] {
            store.writer().execute_unprepared(statistics).await.expect("statistics");
            let mut connection = store.read_connection().await.expect("a connection");
            for (what, index, Statement { sql, values, db_backend }) in statements(DbBackend::Sqlite) {
                let explain = Statement { sql: format!("EXPLAIN QUERY PLAN {sql}"), values, db_backend };
                let plan = lines(&mut connection, explain, "detail").await;
                assert!(
                    plan.contains(&format!("SEARCH profile USING INDEX {index} "))
                        || plan.contains(&format!("SEARCH profile USING COVERING INDEX {index} ")),
                    "{what}: {plan}"
                );
                assert!(plan.contains("(sort_name,id)>(?,?)"), "{what}: {plan}");
                assert!(!plan.contains("SCAN profile") && !plan.contains("TEMP B-TREE"), "{what}: {plan}");
            }
        }
    }

    #[tokio::test]
    async fn postgresql_answers_every_page_from_a_range_of_an_index_whether_it_plans_for_the_values_or_not() {
        let Ok(server) = env::var("TEST_DATABASE_URL") else {
            println!("nothing to do without PostgreSQL");
            return;
        };
        let administrator = sea_orm::Database::connect(&server).await.expect("TEST_DATABASE_URL answers");
        let name = "plans_".to_owned() + &BIG.simple().to_string() + &std::process::id().to_string();
        administrator.execute_unprepared(&format!("CREATE DATABASE {name}")).await.expect("a database");
        let plans = postgres_plans(&format!("{}/{name}", server.rsplit_once('/').expect("a database").0)).await;
        administrator.execute_unprepared(&format!("DROP DATABASE {name} WITH (FORCE)")).await.expect("dropped");
        assert_eq!(plans.len(), 2 * statements(DbBackend::Postgres).len());
        for (what, index, plan) in plans {
            assert!(plan.contains(index) && !plan.contains("Seq Scan"), "{what}: {plan}");
            // PostgreSQL may sort the few whom words leave, and take what is only counted in any order.
            let ordered = plan.contains(&format!("using {index} on profile")) && !plan.contains("Sort");
            assert!(what.contains("words") || what.contains("number") || ordered, "{what}: {plan}");
            assert!(plan.contains("ROW(sort_name, id) > ROW("), "{what}: {plan}");
        }
    }

    async fn postgres_plans(url: &str) -> Vec<(String, &'static str, String)> {
        let store = open(url).await;
        let people = format!(
            "{PEOPLE} gen_random_uuid(), CASE WHEN n % 4 > 0 THEN '{BIG}'::uuid ELSE gen_random_uuid() END, 1, false, \
             'USER', 'Ada', 'B', '1985-01-01'::date + n % 20, 'name ' || lpad((n % 5000)::text, 4, '0'), now(), now() \
             FROM generate_series(1, 20000) n"
        );
        store.writer().execute_unprepared(&people).await.expect("people");
        store.writer().execute_unprepared("ANALYZE profile").await.expect("statistics");
        let mut connection = store.read_connection().await.expect("a connection");
        let mut plans = Vec::new();
        let run = |sql: String| Statement::from_string(DbBackend::Postgres, sql);
        for mode in ["force_custom_plan", "force_generic_plan"] {
            connection.fetch(run(format!("SET plan_cache_mode = {mode}"))).await.expect("set");
            for (n, (what, index, Statement { sql, values, .. })) in
                statements(DbBackend::Postgres).into_iter().enumerate()
            {
                connection.fetch(run(format!("PREPARE {mode}_{n} AS {sql}"))).await.expect("prepared");
                let values = values.into_iter().flat_map(|values| values.0).map(literal).collect::<Vec<_>>().join(", ");
                let explain = run(format!("EXPLAIN (ANALYZE, BUFFERS) EXECUTE {mode}_{n}({values})"));
                let plan = lines(&mut connection, explain, "QUERY PLAN").await;
                plans.push((format!("{mode}, {what}"), index, plan));
            }
        }
        drop(connection);
        store.close().await;
        plans
    }

    /// Each kind of list at its first, a middle and its last page, and each number; with the index that answers it.
    fn statements(backend: DbBackend) -> Vec<(String, &'static str, Statement)> {
        let dob = NaiveDate::from_ymd_opt(1985, 1, 11);
        let mut statements = Vec::new();
        for (kind, name, dob, index) in [
            ("all", "", None, "profile_sort_name"),
            ("a wide prefix", "name", None, "profile_sort_name"),
            ("a narrow prefix", "name 04", None, "profile_sort_name"),
            ("nobody", "nobody", None, "profile_sort_name"),
            ("a date", "", dob, "profile_dob_sort_name"),
            ("a date and words", "0431 na", dob, "profile_dob_sort_name"),
        ] {
            let filter = Filter { name: name.to_owned(), dob };
            for after in ["", "name 0450", "name 4999"] {
                let position = Position { sort_name: after.to_owned(), id: Uuid::from_u128(7) };
                let position = (!after.is_empty()).then_some(position);
                // Where there are few people of a date, PostgreSQL may sort those few.
                for size in if dob.is_some() { [1, 50].as_slice() } else { &[1, 50, 200] } {
                    let page = page(backend, BIG, &filter, position.clone(), size + 1);
                    statements.push((format!("{size} of {kind} after {after:?}"), index, page));
                }
            }
            statements.push((format!("number of {kind}"), index, number(backend, BIG, &filter, 10_001)));
        }
        statements
    }

    async fn open(url: &str) -> Store {
        let url = DatabaseUrl::parse(&url.into()).expect("a URL");
        let store = Store::connect(&url, 2).await.expect("a database");
        store.migrate().await.expect("a schema");
        store
    }

    async fn lines(connection: &mut PinnedConnection, explain: Statement, column: &str) -> String {
        let rows = connection.fetch(explain).await.expect("a plan");
        let lines = rows.iter().map(|row| row.try_get::<String>("", column).expect("a line"));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn literal(value: Value) -> String {
        match value {
            Value::String(Some(text)) => format!("'{text}'"),
            Value::Uuid(Some(id)) => format!("'{id}'"),
            Value::ChronoDate(Some(date)) => format!("'{date}'"),
            other => panic!("no literal for {other:?}"),
        }
    }
}
