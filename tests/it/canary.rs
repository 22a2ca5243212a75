//! Nothing that a caller sends or is sent is anywhere but where the contract puts it: not in the log at its most talkative,
//! not in metrics or traces, and of erased people not in a dump or a file either.

mod calls;
mod faults;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use prost::Message as _;
use serde_json::json;

use self::{
    calls::{ERASE, Heard, Keys, PATCH, call_everything, call_wrongly, provoke},
    faults::{PANICKING, SAID, STREAMS},
};
use crate::{
    erasures::{everything, printed},
    harness::{Collector, Database, Scrape, Service, http},
};

/// What every text has in it that may be nowhere.
const CANARY: &str = "canary";

/// What stands in its place where no word can.
const DIGITS: &str = "99988877766";
const DATE: &str = "1937-03-17";

/// What the contract has in log lines.
const REQUEST_ID: &str = "asked.7";
const ACTOR: &str = "who.acts";

/// A text that may be nowhere, by what it is.
type Hidden<'a> = (&'a str, &'a str);

/// What of these is in a place: how often, and what stands around the first.
fn found(place: &str, text: &str, hidden: &[Hidden<'_>]) -> Vec<String> {
    let tell = |(what, hidden): &Hidden<'_>| {
        let at = text.find(hidden)?;
        let around = text.floor_char_boundary(at.saturating_sub(200))..text.ceil_char_boundary(text.len().min(at + 80));
        // In a dump each table has a line before its rows.
        let table = text[..at].rfind("\nCOPY ").map(|copy| text[copy..].split('(').next().unwrap_or_default().trim());
        let place = [Some(place), table].into_iter().flatten().collect::<Vec<_>>().join(", ");
        let times = text.matches(hidden).count();
        let around = text[around].replace(|c: char| c.is_control() && c != '\n', "\u{b7}"); // traces are no text
        Some(format!("{place} has {what}, {hidden:?}, {times} times, first in: …{around}…"))
    };
    hidden.iter().filter_map(tell).collect()
}

/// Fails where anything was found, and says all of it.
fn assert_nothing(found: impl IntoIterator<Item = Vec<String>>) {
    let found: Vec<_> = found.into_iter().flatten().collect();
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}

/// The reasons that the service tells of: all, also those that nobody has met.
fn reasons(scrape: &Scrape) -> BTreeSet<String> {
    let reason = |sample: &'_ String| -> Option<String> {
        Some(sample.strip_prefix("profile_service_errors_total{reason=\"")?.strip_suffix("\"}")?.to_owned())
    };
    scrape.samples.keys().filter_map(reason).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_key_header_or_token_is_anywhere_but_where_the_contract_puts_it() {
    let collector = Collector::start().await;
    let environment = [
        ("RUST_LOG", "trace"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint),
        ("OTEL_TRACES_SAMPLER", "always_on"),
        ("PROFILE_METRICS_LISTEN", "127.0.0.1:0"),
        ("PROFILE_MAX_STREAMS", &*STREAMS.to_string()),
    ];
    let database = Arc::new(Database::create());
    let (url, proxy) = database.behind_a_proxy(Duration::ZERO).await;
    let mut service = Service::by_url_with(Arc::clone(&database), &url, &[], &environment);
    let (keys, mut heard) = (Keys::make(&service), Heard::default());
    let ids = call_everything(&service, &keys, &mut heard).await;
    provoke(&service, &keys, &ids, &mut heard).await;
    call_wrongly(&service, &keys, &mut heard).await;
    faults::panic(&service, &keys, &ids[0], &mut heard).await;
    let open = faults::happen(&service, proxy.as_ref(), &keys, &mut heard).await;

    let expected = reasons(&service.scrape().await);
    let metrics = http(&service.metrics_address(), "GET", "/metrics").await.1;
    service.signal("TERM");
    faults::end(open, &mut heard).await;
    let missing: BTreeSet<_> = expected.symmetric_difference(&heard.reasons).collect();
    assert!(missing.is_empty(), "nothing has brought these reasons about, or they are unknown: {missing:?}");
    heard.tokens.remove("");
    assert!(heard.tokens.len() > 5, "{:?}", heard.tokens);

    let log = service.end().await.1.join("\n");
    let traces = collector
        .requests()
        .iter()
        .map(|request| String::from_utf8_lossy(&request.encode_to_vec()).into_owned())
        .collect::<String>();
    for there in ["\"TRACE\"", REQUEST_ID, ACTOR, &*ids[0]].iter().chain(&PANICKING) {
        assert!(log.contains(there), "the log at its most talkative has no {there}");
    }
    assert!(!log.contains("\"dropped\""), "the log is not whole");
    assert!(traces.contains(PATCH), "the traces have no call");
    let bytes = format!("{:?}", CANARY.as_bytes());
    let hexadecimal = hex::encode(CANARY);
    let mut hidden = vec![
        ("a text of a caller", CANARY),
        ("a number of a caller", DIGITS),
        ("a date of birth", DATE),
        ("a text of a caller, in hexadecimal", &hexadecimal),
        ("a text of a caller, as bytes", bytes.trim_matches(['[', ']'])),
    ];
    hidden.extend(keys.secrets());
    hidden.extend(heard.tokens.iter().map(|token| ("a token", token.as_str())));
    let beside = [("a name of the operator", "operator"), ("a request id", "remembered"), ("a panic's text", SAID)];
    let of_calls = [&hidden[..], &beside].concat();
    let places = [("the log", &log), ("metrics", &metrics), ("traces", &traces)];
    assert_nothing(places.map(|(place, text)| found(place, text, &of_calls)));

    let restored = Arc::new(database.copy());
    erase_everybody(&database, &keys).await;
    let exported = printed(&database, ["erasures", "export"]);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), exported).expect("a file");
    printed(&restored, ["erasures", "replay", file.path().to_str().expect("a path")]);
    let kind = if database.is_postgres() { "the dump" } else { "the compacted file" };
    let left = [(&database, ""), (&restored, " that was restored and replayed")].map(|(database, which)| {
        if !database.is_postgres() {
            printed(database, ["compact"]);
        }
        let everything = String::from_utf8_lossy(&everything(database)).into_owned();
        assert!(everything.contains("remembered"), "request ids are still remembered");
        found(&format!("{kind}{which}"), &everything, &hidden)
    });
    assert_nothing(left);
}

/// Erases everybody of both organizations, and ends.
async fn erase_everybody(database: &Arc<Database>, keys: &Keys) {
    let mut service = Service::on(Arc::clone(database), []);
    for key in [&keys.north, &keys.south] {
        let client = service.client(key).await;
        let all = client.call("ProfileQueryService/ListProfiles", json!({ "pageSize": 200 })).await.expect("a page");
        for person in all["profiles"].as_array().into_iter().flatten() {
            let erase = json!({ "id": person["id"], "reasonCode": "REASON_CODE_LEGAL_ORDER", "evenIfLocked": true });
            client.call(ERASE, erase).await.expect("erased");
        }
    }
    service.signal("TERM");
    service.end().await;
}
