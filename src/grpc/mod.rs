//! The contract's face: everything that names tonic or a message.

pub mod auth;
mod case;
mod change;
mod codec;
mod convert;
mod identifier;
pub mod json;
mod key;
mod mask;
mod page;
mod profile;
mod query;
pub mod status;
pub mod stream;
mod support;
pub mod watch;

use chrono::{DateTime, Utc};
use tonic::{Request, Response, metadata::MetadataValue};

use self::{page::Tokens, status::Unrepeatable};
use crate::{
    clock,
    entity::profile::Model,
    error::Result,
    profile::{
        change::{Author, Change, Written},
        policy::Rpc,
    },
    read::{Profiles, feed::Feed},
    store::Store,
    write::Writer,
};

pub mod pb {
    //! What build.rs made of `proto/`.
    #![allow(clippy::all, clippy::pedantic, reason = "generated")]

    tonic::include_proto!("profiles.v1");

    /// The descriptors of the contract and of the error details, with comments and options.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

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
}

impl Api {
    pub fn new(store: Store, profiles: Profiles, feed: Feed, writer: Writer) -> Self {
        Self { store, profiles, feed, writer, tokens: Tokens::default() }
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
}
