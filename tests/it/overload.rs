//! Too much at once is refused, and what was taken on is served.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::{Database, Service};

#[tokio::test]
async fn a_call_too_many_is_refused_and_health_is_not() {
    let service = Service::on(Database::create().into(), ["--max-in-flight", "1"]);
    let north = service.organization("north").await;
    let ada = north.person(json!({})).await;
    let held = service.database.hold().await;
    let (patching, person) = (north.clone(), ada.clone());
    let call = tokio::spawn(async move {
        loop {
            match patching.patch(&person, json!({ "city": "London" })).await {
                Err(refused) if refused.reason == "OVERLOADED" => {} // a get below was before it
                outcome => break outcome,
            }
        }
    });
    let refused = loop {
        // The first call takes the only place as soon as it arrives.
        if let Err(refused) = north.get(&ada).await {
            break refused;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(refused.retry_after.is_some());
    let mut health = HealthClient::new(service.channel().await);
    health.check(HealthCheckRequest::default()).await.expect("health");
    held.release().await;
    call.await.expect("a call").expect("what was taken on is served");
    north.get(&ada).await.expect("a free place");
}

#[tokio::test]
async fn a_connection_too_many_is_closed_at_once_and_the_next_one_is_served() {
    let service = Service::on(Database::create().into(), ["--max-connections", "2"]);
    let north = service.organization("north").await;
    let second = service.channel().await;
    HealthClient::new(second.clone()).check(HealthCheckRequest::default()).await.expect("health");
    let mut third = TcpStream::connect(&service.address).await.expect("a connection");
    assert_eq!(third.read(&mut [0; 1]).await.unwrap_or_default(), 0, "it is closed");
    drop(second);
    let endpoint = Endpoint::from_shared(format!("http://{}", service.address)).expect("an address");
    let deadline = Instant::now() + Duration::from_secs(5);
    while HealthClient::new(endpoint.connect_lazy()).check(HealthCheckRequest::default()).await.is_err() {
        assert!(Instant::now() < deadline, "the place of an ended connection stays taken");
    }
    north.person(json!({})).await;
}
