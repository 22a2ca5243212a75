//! The real program on port 0 with a database of its own, and clients that speak JSON through the descriptors.

mod client;
mod database;
mod proxy;
mod service;
pub mod wire;

pub use self::{
    client::{Client, Failure, Outcome, POOL, message},
    database::Database,
    proxy::Proxy,
    service::{Service, program},
};

/// An organization with a key for everything, on a service of its own.
pub async fn client() -> (Service, Client) {
    let service = Service::start();
    let client = service.organization("north").await;
    (service, client)
}
