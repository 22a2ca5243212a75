//! What is counted, and the port that tells it.

#![allow(clippy::float_cmp, reason = "counts are whole numbers")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::{
    Client, Database, Service, http, until,
    wire::{Wire, frame},
};

const GET: [&str; 3] =
    [r#"grpc_type="unary""#, r#"grpc_service="profiles.v1.ProfileService""#, r#"grpc_method="GetProfile""#];

/// A service that tells its metrics, and an organization with a key for everything.
async fn observed<const N: usize>(arguments: [&str; N]) -> (Service, Client) {
    let service = Service::observed(Database::create().into(), arguments);
    let client = service.organization("north").await;
    (service, client)
}

/// The labels of GetProfile's calls with this code.
fn ended(code: &str) -> Vec<String> {
    GET.iter().map(ToString::to_string).chain([format!("grpc_code=\"{code}\"")]).collect()
}

#[tokio::test]
async fn a_call_is_counted_once_by_its_method_and_its_code_and_its_time_is_observed() {
    let (service, north) = observed([]).await;
    let before = service.scrape().await;
    let ada = north.person(json!({})).await;
    for _ in 0..3 {
        north.get(&ada).await.expect("a profile");
    }
    north.get(&json!({ "id": "01890000-0000-7000-8000-000000000000" })).await.expect_err("nobody");
    let counted = async |code: &str| {
        let labels = ended(code);
        let labels: Vec<_> = labels.iter().map(String::as_str).collect();
        service.scrape().await.sum("grpc_server_handled_total", &labels)
    };
    until("all calls are counted", async || counted("NotFound").await > 0.0).await;
    let after = service.scrape().await;
    assert_eq!((counted("OK").await, counted("NotFound").await), (3.0, 1.0));
    for (name, more) in [
        ("grpc_server_started_total", 4.0),
        ("grpc_server_handled_total", 4.0),
        ("grpc_server_handling_seconds_count", 4.0),
    ] {
        assert_eq!(after.sum(name, &GET) - before.sum(name, &GET), more, "{name}");
    }
    let seconds = after.sum("grpc_server_handling_seconds_sum", &GET);
    assert!((0.0..10.0).contains(&seconds) && seconds > 0.0, "{seconds} s");
}

#[tokio::test]
async fn a_caller_who_goes_away_a_stream_and_a_method_that_is_none_are_counted_at_their_ends() {
    let (service, north) = observed([]).await;
    let key = service.key("north", &["profiles.read"]);
    let sum = async |name: &str, labels: &[&str]| service.scrape().await.sum(name, labels);
    let half = Wire::connect(&service.address).await;
    let begun = half.begin("ProfileService/GetProfile", &[("cv-api-key", &key)], frame(b"x").slice(..5), false).await;
    until("it has begun", async || sum("grpc_server_started_total", &GET).await == 1.0).await;
    drop((begun, half));
    let gone = [GET[2], r#"grpc_code="Canceled""#];
    until("it has ended", async || sum("grpc_server_handled_total", &gone).await == 1.0).await;

    let watch = [r#"grpc_type="server_stream""#, r#"grpc_method="WatchProfiles""#];
    let mut messages = north.stream("ProfileQueryService/WatchProfiles", json!({})).await.expect("a stream");
    messages.next().await.expect("a message");
    assert_eq!(sum("grpc_server_started_total", &watch).await, 1.0);
    assert_eq!(sum("grpc_server_handled_total", &watch).await, 0.0);
    drop(messages);
    until("the stream has ended", async || sum("grpc_server_handled_total", &watch).await == 1.0).await;

    let secret = "/ada.example.com/Ada";
    let refused = Wire::connect(&service.address).await.call(secret, &[], frame(b""), true).await;
    assert_eq!(refused.expect_err("no such method").code, Code::Unimplemented);
    let unknown = [r#"grpc_method="unknown""#, r#"grpc_code="Unimplemented""#];
    until("it is counted", async || sum("grpc_server_handled_total", &unknown).await == 1.0).await;
    assert!(!service.scrape().await.samples.keys().any(|series| series.contains("ada")), "a caller's text");
}

#[tokio::test]
async fn reasons_people_who_are_not_there_and_where_keys_were_found_are_counted() {
    let (service, north) = observed([]).await;
    let nobody = "01890000-0000-7000-8000-000000000000";
    north.get(&json!({ "id": nobody })).await.expect_err("nobody");
    let ids = [nobody, "01890000-0000-7000-8000-000000000001"];
    north.call("ProfileQueryService/BatchGetProfiles", json!({ "ids": ids })).await.expect("none of them");
    north.call("ProfileQueryService/LookUpProfile", json!({ "email": "eve@example.com" })).await.expect_err("nobody");
    north.update(json!({ "email": "eve@example.com", "city": "Rome" })).await.expect_err("nobody");
    let scrape = service.scrape().await;
    let sum = |name: &str, label: &str| scrape.sum(name, &[label]);
    assert_eq!(sum("profile_service_not_found_total", r#"by="id""#), 3.0);
    assert_eq!(sum("profile_service_not_found_total", r#"by="contact""#), 2.0);
    assert_eq!(sum("profile_service_errors_total", r#"reason="PROFILE_NOT_FOUND""#), 2.0);
    assert_eq!(sum("profile_service_errors_total", r#"reason="USER_NOT_FOUND""#), 1.0);
    let found = [r#"in="cache""#, r#"in="database""#].map(|label| sum("profile_service_key_lookups_total", label));
    assert!(found[1] >= 1.0 && found.iter().sum::<f64>() == 4.0, "{found:?}");
}

#[tokio::test]
async fn what_is_limited_tells_how_much_is_in_use_and_how_often_it_was_too_little() {
    let (service, north) = observed(["--max-in-flight", "1", "--max-streams", "4"]).await;
    let ada = north.person(json!({})).await;
    let held = service.database.hold().await;
    let (patching, person) = (north.clone(), ada.clone());
    let call = tokio::spawn(async move { patching.patch(&person, json!({ "city": "London" })).await });
    let sum = async |name: &str, label: &str| service.scrape().await.sum(name, &[label]);
    let in_use = "profile_service_permits_in_use";
    until("a call has the permit", async || sum(in_use, r#"of="calls""#).await == 1.0).await;
    north.get(&ada).await.expect_err("there is no other");
    assert_eq!(sum("profile_service_shed_total", r#"limit="calls""#).await, 1.0);
    held.release().await;
    call.await.expect("a call").expect("an answer");
    until("it is free again", async || sum(in_use, r#"of="calls""#).await == 0.0).await;

    let mut stream = north.stream("ProfileQueryService/WatchProfiles", json!({})).await.expect("a stream");
    stream.next().await.expect("a message");
    let Err(refused) = north.stream("ProfileQueryService/WatchProfiles", json!({})).await else { panic!("a second") };
    assert_eq!(refused.reason, "OVERLOADED");
    let scrape = service.scrape().await;
    assert_eq!(scrape.sum("profile_service_shed_total", &[r#"limit="streams_of_a_key""#]), 1.0);
    assert_eq!(scrape.sum(in_use, &[r#"of="streams""#]), 1.0);
    assert!(scrape.sum(in_use, &[r#"of="connections""#]) >= 1.0);
    let limit = |of| scrape.sum("profile_service_permits_limit", &[of]);
    assert_eq!([r#"of="calls""#, r#"of="streams""#].map(limit), [1.0, 4.0]);
}

#[tokio::test]
async fn the_process_tells_of_itself_under_the_usual_names() {
    let (service, _) = observed([]).await;
    let scrape = service.scrape().await;
    let value = |name: &str| scrape.sum(name, &[]);
    assert!(value("process_cpu_seconds_total") > 0.0);
    assert!((1e6..1e9).contains(&value("process_resident_memory_bytes")));
    assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
    assert!(value("process_threads") >= 1.0);
    assert!((3.0..value("process_max_fds")).contains(&value("process_open_fds")));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let age = now - value("process_start_time_seconds");
    assert!((-1.0..120.0).contains(&age), "{age} s");
    assert_eq!(value("profile_service_build_info"), 1.0);
}

#[tokio::test]
async fn the_program_is_alive_while_it_is_not_ready_and_metrics_are_told_during_a_drain() {
    let (mut service, north) = observed(["--drain-timeout", "30s"]).await;
    let metrics = service.metrics_address();
    let status = async |path: &str| http(&metrics, "GET", path).await.0[9..12].to_owned();
    until("it is ready", async || status("/readyz").await == "200").await;
    assert_eq!(status("/livez").await, "200");
    let ada = north.person(json!({})).await;
    let held = service.database.hold().await;
    let _idle = Wire::connect(&service.address).await;
    let call = tokio::spawn(async move { north.patch(&ada, json!({ "city": "London" })).await });
    let in_use = async || service.scrape().await.sum("profile_service_permits_in_use", &[r#"of="calls""#]);
    until("a call is in flight", async || in_use().await == 1.0).await;
    service.signal("TERM");
    until("it is not ready", async || status("/readyz").await == "503").await;
    let ended = async |end| service.scrape().await.sum("profile_service_connections_ended_total", &[end]);
    until("an idle connection has ended", async || ended(r#"end="drain""#).await == 1.0).await;
    assert_eq!(ended(r#"end="peer""#).await, 0.0);
    assert_eq!((status("/livez").await.as_str(), in_use().await), ("200", 1.0));
    assert_eq!(service.scrape().await.sum("profile_service_ready", &[]), 0.0);
    held.release().await;
    call.await.expect("a call").expect("what was taken on is answered");
    assert_eq!(service.end().await.0, Some(0));
}

#[tokio::test]
async fn the_port_answers_what_it_has_and_refuses_the_rest() {
    let (service, _) = observed([]).await;
    let address = service.metrics_address();
    let (head, body) = http(&address, "GET", "/metrics").await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    assert!(body.ends_with("# EOF\n"));
    for (method, path, status) in
        [("HEAD", "/metrics", "200"), ("GET", "/", "404"), ("GET", "/livez/x", "404"), ("POST", "/metrics", "405")]
    {
        let (head, body) = http(&address, method, path).await;
        assert_eq!(&head[9..12], status, "{method} {path}");
        assert!(method != "HEAD" || body.is_empty());
    }
}

#[tokio::test]
async fn who_keeps_connections_to_the_metrics_keeps_no_probe_out_nor_takes_anything_from_calls() {
    let (service, north) = observed([]).await;
    let address = service.metrics_address();
    let mut silent = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(&address).await.expect("a connection");
        stream.write_all(b"GET /metrics HTTP/1.1\r\n").await.expect("half a request");
        silent.push(stream);
    }
    let (head, _) = timeout(Duration::from_secs(4), http(&address, "GET", "/livez")).await.expect("an answer at once");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    north.person(json!({})).await;
    let first = timeout(Duration::from_secs(4), silent[0].read(&mut [0; 1])).await.expect("the oldest has ended");
    assert_eq!(first.unwrap_or_default(), 0);
    let open = service.scrape().await.sum("process_open_fds", &[]);
    assert!(open < 80.0, "{open} open files");
    let last = timeout(Duration::from_secs(20), silent[99].read(&mut [0; 1])).await.expect("none stays for long");
    assert_eq!(last.unwrap_or_default(), 0);
}

#[tokio::test]
async fn without_the_flag_there_is_no_second_port() {
    let service = Service::start();
    HealthClient::new(service.channel().await).check(HealthCheckRequest::default()).await.expect("health");
    assert!(service.line("metrics").is_none());
}
