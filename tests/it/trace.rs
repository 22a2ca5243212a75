//! Traces, as a collector receives them.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::{Span, Status, span::SpanKind, status::StatusCode};
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;

use crate::harness::{Client, Collector, Proxy, Service, Way, attribute, program, until};

const CREATE: &str = "profiles.v1.ProfileService/CreateProfile";
const GET: &str = "profiles.v1.ProfileService/GetProfile";
const UPDATE: &str = "profiles.v1.ProfileService/UpdateProfile";
const WAIT: &str = "wait for a worker";
const SAVE: &str = "save a group";

const ALL: (&str, &str) = ("OTEL_TRACES_SAMPLER", "always_on");
const NONE_OF_OURS: (&str, &str) = ("OTEL_TRACES_SAMPLER", "parentbased_always_off");

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn traced(endpoint: &str, variables: &[(&str, &str)]) -> Service {
    let ours = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("PROFILE_METRICS_LISTEN", "127.0.0.1:0")];
    Service::with(&[], &[&ours, variables].concat())
}

/// A client whose calls are parts of a trace.
async fn caller(service: &Service, trace: &str, flags: &str) -> Client {
    let key = service.key("north", &["profiles.read", "profiles.write"]);
    let traceparent = format!("00-{trace}-{PARENT}-{flags}");
    let state = "vendor=ada@example.com".to_owned();
    let metadata = vec![("cv-api-key", key), ("traceparent", traceparent), ("tracestate", state)];
    Client::with_metadata(service.channel().await, metadata)
}

#[tokio::test]
async fn a_callers_trace_goes_on_with_the_call_its_wait_and_its_save_and_has_nothing_of_the_person() {
    let collector = Collector::start().await;
    let mut service = traced(&collector.endpoint, &[NONE_OF_OURS]);
    let north = service.organization("north").await;
    north.person(json!({})).await;
    let calls = caller(&service, TRACE, "01").await;
    let ada = calls.person(json!({ "email": "ada@example.com", "city": "Marylebone" })).await;
    calls.get(&ada).await.expect("a profile");
    calls.update(json!({ "email": "nobody@example.com", "city": "Marylebone" })).await.expect_err("nobody");
    let [create, get, update, save] =
        collector.wait_for([CREATE, GET, UPDATE, SAVE], 1).await.map(|spans| spans[0].clone());
    let spans = collector.spans();
    assert!(spans.iter().all(|span| hex::encode(&span.trace_id) == TRACE), "a call without a trace is not traced");
    for (span, code) in [(&create, "OK"), (&get, "OK"), (&update, "NOT_FOUND")] {
        assert_eq!((span.kind(), hex::encode(&span.parent_span_id).as_str()), (SpanKind::Server, PARENT));
        let said = |name| attribute(&span.attributes, name);
        assert_eq!(said("rpc.system.name").as_deref(), Some("grpc"));
        assert_eq!(said("rpc.method").as_deref(), Some(span.name.as_str()));
        assert_eq!(said("rpc.response.status_code").as_deref(), Some(code));
        assert_eq!((span.attributes.len(), span.status.as_ref().map(Status::code)), (3, Some(StatusCode::Unset)));
        let waits: Vec<_> =
            spans.iter().filter(|wait| wait.name == WAIT && wait.parent_span_id == span.span_id).collect();
        assert_eq!(waits.len(), 1, "{}", span.name);
        assert!(span.start_time_unix_nano < waits[0].end_time_unix_nano);
        assert!(waits[0].end_time_unix_nano <= span.end_time_unix_nano);
    }
    assert_eq!((save.kind(), &save.parent_span_id), (SpanKind::Client, &create.span_id));
    assert_eq!(save.links.iter().map(|link| &link.span_id).collect::<Vec<_>>(), [&create.span_id]);
    let database = if service.database.is_postgres() { "postgresql" } else { "sqlite" };
    assert_eq!(attribute(&save.attributes, "db.system.name").as_deref(), Some(database));
    let resource = collector.requests()[0].resource_spans[0].resource.clone().expect("a resource");
    assert_eq!(attribute(&resource.attributes, "service.name").as_deref(), Some("profile-service"));
    assert!(attribute(&resource.attributes, "service.version").is_some_and(|version| version.starts_with("0.")));
    let all = format!("{:?}", collector.requests());
    let id = ada["id"].as_str().expect("an id");
    for word in ["Ada", "ada", "Byron", "example.com", "Marylebone", id] {
        assert!(!all.contains(word), "{word} is in the spans");
    }
    service.signal("TERM");
    let (_, log) = service.end().await;
    let lines = log.iter().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    let ids: Vec<_> =
        lines.filter(|line| line["message"] == "call").map(|line| line["span"]["trace_id"].clone()).collect();
    assert_eq!(ids, [json!(null), json!(TRACE), json!(TRACE), json!(TRACE)]);
}

#[tokio::test]
async fn what_a_caller_does_not_trace_is_not_traced_and_its_line_still_has_the_trace() {
    let collector = Collector::start().await;
    let mut service = traced(&collector.endpoint, &[("OTEL_TRACES_SAMPLER", "parentbased_always_on")]);
    let north = service.organization("north").await;
    let ada = north.person(json!({})).await;
    caller(&service, TRACE, "00").await.get(&ada).await.expect("a profile");
    north.get(&ada).await.expect("a profile");
    let [gets] = collector.wait_for([GET], 1).await;
    assert_eq!(gets.len(), 1);
    assert_ne!(hex::encode(&gets[0].trace_id), TRACE);
    service.signal("TERM");
    let (_, log) = service.end().await;
    let lines = log.iter().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    let ids: Vec<_> = lines.filter(|line| line["span"]["method"] == format!("/{GET}")).collect();
    let ids: Vec<_> = ids.iter().map(|line| line["span"]["trace_id"].clone()).collect();
    assert_eq!(ids, [json!(TRACE), json!(hex::encode(&gets[0].trace_id))]);
}

#[tokio::test]
async fn a_groups_save_is_linked_to_the_calls_that_it_is_for() {
    let collector = Collector::start().await;
    let service = traced(&collector.endpoint, &[ALL]);
    let north = service.organization("north").await;
    let held = service.database.hold().await;
    let creating: Vec<_> = (0..40)
        .map(|_| {
            let north = north.clone();
            tokio::spawn(async move { north.person(json!({})).await })
        })
        .collect();
    if !service.database.is_postgres() {
        tokio::time::sleep(Duration::from_millis(200)).await; // until most of them wait
    }
    held.release().await;
    for create in creating {
        create.await.expect("a new profile");
    }
    let [creates] = collector.wait_for([CREATE], 40).await;
    let of = |create: &Span| {
        let saves = collector.spans().into_iter().filter(|span| span.name == SAVE);
        saves.filter(|save| save.links.iter().any(|link| link.span_id == create.span_id)).collect::<Vec<_>>()
    };
    until("the saves are there", async || {
        tokio::time::sleep(Duration::from_millis(10)).await; // the collector is served by this thread
        creates.iter().all(|create| !of(create).is_empty())
    })
    .await;
    let mut largest = 0;
    for create in &creates {
        let saves = of(create);
        assert_eq!(saves.len(), 1, "it is saved once");
        let size: usize =
            attribute(&saves[0].attributes, "db.operation.batch.size").expect("a size").parse().expect("a number");
        assert_eq!(saves[0].links.len(), size);
        assert_eq!(saves[0].parent_span_id, saves[0].links[0].span_id);
        largest = largest.max(size);
    }
    assert!((2..=32).contains(&largest), "{largest} at once");
}

#[tokio::test]
async fn a_collector_that_is_away_or_hangs_costs_no_call_is_counted_and_ends_in_time() {
    let away = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let gone = format!("http://{}", away.local_addr().expect("an address"));
    drop(away);
    let hanging = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = format!("http://{}", hanging.local_addr().expect("an address"));
    let taking = tokio::spawn(async move {
        let mut taken = Vec::new();
        while let Ok((peer, _)) = hanging.accept().await {
            taken.push(peer); // it is never read
        }
    });
    for (endpoint, timeout) in [(&gone, "10000"), (&silent, "300"), (&silent, "60000")] {
        let mut service = traced(endpoint, &[ALL, ("OTEL_EXPORTER_OTLP_TIMEOUT", timeout)]);
        let north = service.organization("north").await;
        let ada = north.person(json!({})).await;
        for _ in 0..100 {
            north.get(&ada).await.expect("a profile");
        }
        if timeout != "60000" {
            let dropped = [r#"outcome="dropped""#];
            until("spans are counted", async || {
                service.scrape().await.sum("profile_service_spans_total", &dropped) >= 100.0
            })
            .await;
            assert!(service.line("the collector has not taken spans").is_some());
        }
        drop(north);
        service.signal("TERM");
        let began = Instant::now();
        let (code, _) = service.end().await;
        assert_eq!(code, Some(0));
        assert!(began.elapsed() < Duration::from_secs(6), "{:?} after the signal", began.elapsed());
    }
    taking.abort();
}

#[tokio::test]
async fn a_connection_that_dies_without_a_word_is_not_waited_for_again() {
    let collector = Collector::start().await;
    let address = collector.endpoint.strip_prefix("http://").expect("an address").to_owned();
    let proxy = Proxy::start(address, Duration::ZERO).await;
    let endpoint = format!("http://{}", proxy.address);
    let service = traced(&endpoint, &[ALL, ("OTEL_EXPORTER_OTLP_TIMEOUT", "500")]);
    let north = service.organization("north").await;
    let ada = north.person(json!({})).await;
    collector.wait_for([CREATE], 1).await;
    proxy.set(Way::Lost);
    north.get(&ada).await.expect("a profile");
    let dropped = [r#"outcome="dropped""#];
    until("it is lost", async || service.scrape().await.sum("profile_service_spans_total", &dropped) >= 1.0).await;
    north.update(json!({ "email": "nobody@example.com" })).await.expect_err("nobody");
    collector.wait_for([UPDATE], 1).await;
}

#[tokio::test]
async fn what_waits_at_the_end_is_sent() {
    let collector = Collector::start().await;
    let mut service = traced(&collector.endpoint, &[ALL]);
    let north = service.organization("north").await;
    let ada = north.person(json!({})).await;
    for _ in 0..100 {
        north.get(&ada).await.expect("a profile");
    }
    drop(north);
    service.signal("TERM");
    assert_eq!(service.end().await.0, Some(0));
    assert_eq!(collector.spans().iter().filter(|span| span.name == GET).count(), 100);
}

#[test]
fn a_setting_that_cannot_be_honoured_is_refused_at_the_start() {
    for (name, value, words) in [
        ("OTEL_TRACES_SAMPLER_ARG", "1%", "OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "OTEL_EXPORTER_OTLP_PROTOCOL must be grpc"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "spans cannot be sent: "),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", "OTEL_EXPORTER_OTLP_COMPRESSION must be none"),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "https://127.0.0.1:4317",
            "OTEL_EXPORTER_OTLP_ENDPOINT must be http://HOST:PORT",
        ),
    ] {
        let mut serve =
            program(["serve", "--listen", "127.0.0.1:0", "--database-url", "sqlite:///no/such/directory/x.db"]);
        serve.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317").env(name, value);
        let output = serve.output().expect("a program");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
}
