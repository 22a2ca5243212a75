//! The contract's face: everything that names tonic or a message.

pub mod auth;
mod case;
pub mod change;
pub(crate) mod codec;
pub mod convert;
mod export;
mod identifier;
pub mod json;
mod key;
pub mod mask;
pub mod page;
mod profile;
pub mod query;
pub mod status;
pub mod stream;
pub mod support;
pub mod watch;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;
use tonic::{Request, Response, metadata::MetadataValue};

use self::{page::Tokens, status::Unrepeatable};
pub use crate::pb;
use crate::{
    clock,
    entity::profile::Model,
    error::{Error, Result},
    profile::{
        change::{Author, Change, Written},
        policy::Rpc,
    },
    read::{Profiles, feed::Feed},
    store::Store,
    write::Writer,
};

/// The answer of every RPC that answers a profile: its etag is in the metadata too, for the gateway's header.
fn answer(profile: Model) -> Response<pb::Profile> {
    let profile = pb::Profile::from(profile);
    let etag = (!profile.etag.is_empty()).then(|| MetadataValue::try_from(&profile.etag).ok()).flatten();
    let mut response = Response::new(profile);
    if let Some(etag) = etag {
        response.metadata_mut().insert("etag", etag);
    }
    response
}

/// The handlers of all services.
pub struct Api {
    store: Store,
    profiles: Profiles,
    feed: Feed,
    writer: Writer,
    tokens: Tokens,
    /// The turn of exports to read.
    exports: Arc<Semaphore>,
}

impl Api {
    pub fn new(store: Store, profiles: Profiles, feed: Feed, writer: Writer) -> Self {
        Self { store, profiles, feed, writer, tokens: Tokens::default(), exports: Arc::new(Semaphore::new(1)) }
    }

    /// The way of every write: who, what, and the one function that does it.
    async fn write<T>(
        &self,
        request: Request<T>,
        change: impl FnOnce(T, DateTime<Utc>, &Author) -> Result<Change>,
    ) -> Result<Written> {
        let (author, permit, input) = (auth::author(&request)?, auth::permit(&request)?, auth::input(&request));
        let now = clock::now();
        let unrepeatable: Unrepeatable = auth::extension(&request)?;
        let change = input.and(change(request.into_inner(), now, &author))?;
        // A report is one with a request id: made twice it is made once.
        if change.claim.is_none() && !change.validate_only && !matches!(change.rpc, Rpc::ReportCaseStatus) {
            unrepeatable.set();
        }
        self.writer.write(author, permit, change, now).await
    }

    /// As `write`, of an RPC that answers the profile.
    async fn write_profile<T>(
        &self,
        request: Request<T>,
        change: impl FnOnce(T, DateTime<Utc>, &Author) -> Result<Change>,
    ) -> Result<Response<pb::Profile>> {
        match self.write(request, change).await? {
            Written::Profile(profile) => Ok(answer(profile)),
            Written::Case(_) | Written::Erasure(..) => Err(Error::Internal("a write left no profile".to_owned())),
        }
    }
}
