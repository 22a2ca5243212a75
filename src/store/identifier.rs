//! What other systems call people.

use sea_orm::{Value, sea_query::ArrayType};

use super::{PinnedConnection, rows::Sql};
use crate::{
    entity::profile_identifier::{Entity, Key, Model},
    error::Result,
};

/// The types of a key's columns.
pub const KEY: [ArrayType; 3] = [ArrayType::Uuid, ArrayType::String, ArrayType::String];

/// The identifiers with these keys.
pub async fn load(connection: &mut PinnedConnection, keys: &[Key]) -> Result<Vec<Model>> {
    let mut sql = Sql::new(connection.backend());
    sql.push("SELECT ").columns::<Entity>("").push(" FROM profile_identifier WHERE ");
    sql.tuple_is_in("organization_id, system, value", KEY, &values(keys));
    connection.all(sql.build()).await
}

/// The keys as the values of a condition.
pub fn values(keys: &[Key]) -> Vec<[Value; 3]> {
    let values =
        |(organization, system, value): &Key| [(*organization).into(), system.clone().into(), value.clone().into()];
    keys.iter().map(values).collect()
}
