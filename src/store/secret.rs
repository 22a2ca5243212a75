//! Secrets that the replicas on one database share.

use sea_orm::FromQueryResult;

use super::{Store, rows::Sql};
use crate::error::{Error, Result};

#[derive(FromQueryResult)]
struct Secret {
    value: Vec<u8>,
}

/// The secret that seals page tokens.
pub async fn page_token(store: &Store) -> Result<Vec<u8>> {
    let mut sql = Sql::new(store.backend());
    sql.push("SELECT value FROM secret WHERE name = 'page_token'");
    let found = store.all::<Secret>(sql.build()).await?.pop();
    found.map(|Secret { value }| value).ok_or_else(|| Error::Internal("page tokens have no secret".to_owned()))
}
