//! Every column of every table has been decided on.

use std::{collections::BTreeSet, sync::Arc};

use profile_service::personal::{COLUMNS, OF_NOBODY};
use sea_orm::{ConnectionTrait as _, Statement};

use crate::harness::{Database, Service};

#[tokio::test]
async fn it_is_decided_of_every_column_what_erasing_exporting_copying_and_the_feed_do_with_it() {
    let database = Arc::new(Database::create());
    let _service = Service::on(Arc::clone(&database), []);
    let schema = if database.is_postgres() {
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
    } else {
        "SELECT t.name AS table_name, c.name AS column_name FROM sqlite_master t, pragma_table_info(t.name) c \
         WHERE t.type = 'table'"
    };
    let connection = database.connect().await;
    let rows = connection.query_all_raw(Statement::from_string(connection.get_database_backend(), schema)).await;
    let there = rows.expect("a schema").into_iter().map(|row| {
        let name = |column| row.try_get::<String>("", column).expect("a name");
        (name("table_name"), name("column_name"))
    });
    let there: BTreeSet<_> = there.filter(|(table, _)| !OF_NOBODY.contains(&table.as_str())).collect();
    let decided: BTreeSet<_> = COLUMNS.iter().map(|column| (column.table.to_owned(), column.name.to_owned())).collect();
    assert_eq!(there, decided);
    assert_eq!(decided.len(), COLUMNS.len(), "a column is decided on once");
}
