//! `organization create`, `list`, `rename`, `disable` and `enable`.

use chrono::{DateTime, Utc};
use clap::Subcommand;
use sea_orm::ConnectionTrait;
use serde::Serialize;
use uuid::Uuid;

use super::{
    Failure,
    database::DatabaseArgs,
    output::{Output, Row, shown},
    print_and_commit,
};
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
    /// Print all organizations: id, name, creation, and since when they are disabled.
    List {
        /// For people or for programs.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Give an organization another name. Its keys and its profiles stay its own.
    Rename {
        /// Its name.
        name: String,
        /// Its new name, which no other organization has: 1 to 100 characters.
        new_name: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Refuse an organization's keys as if they were revoked, and end its streams, effective within 5 seconds. Nothing of it is
    /// deleted, and commands work on it as before.
    Disable {
        /// Its name.
        name: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Take an organization's keys again, effective within 5 seconds: those that are neither revoked nor expired.
    Enable {
        /// Its name.
        name: String,
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
                return Err(taken(&name));
            };
            print_and_commit(tx, id.to_string()).await?;
            store.close().await;
        }
        OrganizationCommand::List { output, database } => {
            let store = database.open().await?;
            let organizations = store::organization::list(store.reader()).await?;
            store.close().await;
            output.print(organizations.into_iter().map(ListedOrganization::from).collect())?;
        }
        OrganizationCommand::Rename { name, new_name, database } => {
            let (name, new_name) = (checked_name(&name)?, checked_name(&new_name)?);
            let store = database.open().await?;
            let id = named(&store, &name).await?.id;
            if !store::organization::rename(store.writer(), id, &new_name).await? {
                return Err(taken(&new_name));
            }
            store.close().await;
        }
        OrganizationCommand::Disable { name, database } => set_disabled(&name, Some(clock::now()), database).await?,
        OrganizationCommand::Enable { name, database } => set_disabled(&name, None, database).await?,
    }
    Ok(())
}

async fn set_disabled(name: &str, since: Option<DateTime<Utc>>, database: DatabaseArgs) -> Result<(), Failure> {
    let name = checked_name(name)?;
    let store = database.open().await?;
    let id = named(&store, &name).await?.id;
    store::organization::set_disabled(store.writer(), id, since).await?;
    store.close().await;
    Ok(())
}

/// An organization in the list, in the names of the contract.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedOrganization {
    organization_id: Uuid,
    organization_name: String,
    create_time: DateTime<Utc>,
    disable_time: Option<DateTime<Utc>>,
}

impl From<organization::Model> for ListedOrganization {
    fn from(organization: organization::Model) -> Self {
        Self {
            organization_id: organization.id,
            organization_name: organization.name,
            create_time: organization.created_at,
            disable_time: organization.disabled_at,
        }
    }
}

impl Row for ListedOrganization {
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "CREATED", "DISABLED"];

    fn columns(self) -> Vec<String> {
        let disabled = shown(self.disable_time, |time| format!("{time:?}"));
        let created = format!("{:?}", self.create_time);
        vec![self.organization_id.to_string(), self.organization_name, created, disabled]
    }
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

fn taken(name: &str) -> Failure {
    Failure::failed(format!("there is an organization {name:?} already"))
}

/// An organization whose keys are valid: any other's would not work.
pub fn enabled(organization: organization::Model) -> Result<organization::Model, Failure> {
    match organization {
        organization::Model { name, disabled_at: Some(_), .. } => Err(Failure::failed(format!(
            "the organization {name:?} is disabled, and no key of it works: profile-service organization enable"
        ))),
        enabled => Ok(enabled),
    }
}

/// A name for an organization or a key.
pub fn checked_name(name: &str) -> Result<String, Failure> {
    match &*value::clean(name) {
        "" => Err(Failure::usage("a name is required")),
        name => value::name(name).map_err(|rule| Failure::usage(format!("the name {rule}"))),
    }
}
