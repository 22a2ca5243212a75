//! `organization create` and `organization list`.

use clap::Subcommand;
use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::{Failure, database::DatabaseArgs, print, print_and_commit};
use crate::{
    clock,
    entity::organization,
    store::{self, Store},
    value,
};

#[derive(Debug, Subcommand)]
pub enum OrganizationCommand {
    /// Make an organization and print its id.
    Create {
        /// Its name, which no other organization has: 1 to 100 characters.
        name: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Print all organizations: id, name, creation.
    List {
        #[command(flatten)]
        database: DatabaseArgs,
    },
}

pub async fn run(command: OrganizationCommand) -> Result<(), Failure> {
    match command {
        OrganizationCommand::Create { name, database } => {
            let name = checked_name(&name)?;
            let store = database.open().await?;
            let tx = store.begin().await?;
            let Some(id) = create(&tx, &name).await? else {
                return Err(Failure::failed(format!("there is an organization {name:?} already")));
            };
            print_and_commit(tx, id.to_string()).await?;
            store.close().await;
        }
        OrganizationCommand::List { database } => {
            let store = database.open().await?;
            let mut lines = vec!["ID\tNAME\tCREATED".to_owned()];
            for organization::Model { id, name, created_at, .. } in store::organization::list(store.reader()).await? {
                lines.push(format!("{id}\t{name}\t{created_at:?}"));
            }
            store.close().await;
            print(&lines.join("\n"))?;
        }
    }
    Ok(())
}

/// Makes an organization, unless its name is taken.
pub async fn create(db: &impl ConnectionTrait, name: &str) -> Result<Option<Uuid>, Failure> {
    let id = clock::new_id();
    let organization = organization::Model { id, name: name.to_owned(), created_at: clock::now(), disabled_at: None };
    Ok(store::organization::create(db, organization).await?.then_some(id))
}

/// The organization with this name.
pub async fn named(store: &Store, name: &str) -> Result<organization::Model, Failure> {
    let found = store::organization::find(store.reader(), name).await?;
    found.ok_or_else(|| unknown(name))
}

/// That no organization has this name.
pub fn unknown(name: &str) -> Failure {
    Failure::failed(format!("there is no organization {name:?}"))
}

/// A name for an organization or a key.
pub fn checked_name(name: &str) -> Result<String, Failure> {
    match &*value::clean(name) {
        "" => Err(Failure::usage("a name is required")),
        name => value::name(name).map_err(|rule| Failure::usage(format!("the name {rule}"))),
    }
}
