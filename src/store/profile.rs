//! Profiles.

use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, EntityTrait as _, QueryFilter as _, QuerySelect as _,
    Select,
};
use uuid::Uuid;

use crate::{
    entity::profile::{ActiveModel, Column, Entity, Model},
    error::Result,
};

/// The profile, if the organization has it.
pub async fn find(db: &impl ConnectionTrait, organization: Uuid, id: Uuid) -> Result<Option<Model>> {
    Ok(of(organization).filter(Column::Id.eq(id)).one(db).await?)
}

/// The organization's profile with this e-mail.
pub async fn find_by_email(db: &impl ConnectionTrait, organization: Uuid, email: &str) -> Result<Option<Model>> {
    Ok(of(organization).filter(Column::Email.eq(email)).one(db).await?)
}

/// The organization's profile with this phone number.
pub async fn find_by_phone(db: &impl ConnectionTrait, organization: Uuid, number: &str) -> Result<Option<Model>> {
    Ok(of(organization).filter(Column::PhoneNumber.eq(number)).one(db).await?)
}

/// The profile, locked until the transaction ends. SQLite has one writer and needs no lock.
pub async fn lock(tx: &DatabaseTransaction, organization: Uuid, id: Uuid) -> Result<Option<Model>> {
    Ok(of(organization).filter(Column::Id.eq(id)).lock_exclusive().one(tx).await?)
}

/// The profile with this e-mail, locked until the transaction ends: a foreign row is never locked.
pub async fn lock_by_email(tx: &DatabaseTransaction, organization: Uuid, email: &str) -> Result<Option<Model>> {
    Ok(of(organization).filter(Column::Email.eq(email)).lock_exclusive().one(tx).await?)
}

/// Stores a new profile.
pub async fn insert(tx: &DatabaseTransaction, row: ActiveModel) -> Result<()> {
    Entity::insert(row).exec_without_returning(tx).await?;
    Ok(())
}

/// Stores what has changed of a profile.
pub async fn update(tx: &DatabaseTransaction, row: ActiveModel) -> Result<()> {
    Entity::update(row).exec_without_returning(tx).await?;
    Ok(())
}

/// The organization that has a profile with this e-mail.
pub async fn owner_of_email(tx: &DatabaseTransaction, email: &str) -> Result<Option<Uuid>> {
    let owner = Entity::find().select_only().column(Column::OrganizationId).filter(Column::Email.eq(email));
    Ok(owner.into_tuple().one(tx).await?)
}

fn of(organization: Uuid) -> Select<Entity> {
    Entity::find().filter(Column::OrganizationId.eq(organization))
}
