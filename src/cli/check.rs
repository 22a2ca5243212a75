//! `check`.

use std::{env, net::SocketAddr};

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use serde::Serialize;

use super::{
    Failure,
    database::{DatabaseArgs, connect, exists},
    output::{Output, Row},
    serve::ServeArgs,
};
use crate::{
    clock,
    server::files::OpenFiles,
    store::{
        self, Store,
        schema::{self, Standing},
    },
    trace::Settings,
};

/// What ends within this time is warned of.
const SOON: TimeDelta = TimeDelta::days(30);

/// How many keys are named.
const NAMED: usize = 10;

/// The settings of `serve`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// For people or for programs.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What was found.
#[derive(Serialize)]
struct Finding {
    status: Status,
    check: &'static str,
    detail: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warning,
    Failed,
}

impl Row for Finding {
    const COLUMNS: &'static [&'static str] = &["STATUS", "CHECK", "DETAIL"];

    fn columns(self) -> Vec<String> {
        let status = match self.status {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Failed => "failed",
        };
        vec![status.to_owned(), self.check.to_owned(), self.detail]
    }
}

/// A check's finding, or why it failed.
fn finding(check: &'static str, found: Result<(Status, String), Failure>) -> Finding {
    let (status, detail) = found.unwrap_or_else(|failure| (Status::Failed, failure.sentence));
    Finding { status, check, detail }
}

/// Looks at what `serve` would need with these settings, and changes nothing.
pub async fn run(args: CheckArgs) -> Result<(), Failure> {
    let CheckArgs { serve, output } = args;
    let mut findings = vec![
        finding("configuration", configuration(&serve).await),
        finding("open files", open_files(&serve)),
        finding("TLS", tls(&serve)),
    ];
    findings.extend(database(&serve.database).await);
    let (failed, all) = (findings.iter().filter(|found| found.status == Status::Failed).count(), findings.len());
    output.print(findings)?;
    if failed == 0 { Ok(()) } else { Err(Failure::failed(format!("{failed} of {all} checks failed"))) }
}

async fn configuration(args: &ServeArgs) -> Result<(Status, String), Failure> {
    let listed = |addresses: Vec<SocketAddr>| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let traces = Settings::of(|name| env::var(name).ok()).map_err(Failure::usage)?;
    let traces = if traces.is_some() { "traces are sent" } else { "no traces" };
    let metrics = listed(args.metrics_addresses().await?);
    let metrics = if metrics.is_empty() { "no metrics".to_owned() } else { format!("metrics on {metrics}") };
    Ok((Status::Ok, format!("listens on {}; {metrics}; {traces}", listed(args.addresses().await?))))
}

fn open_files(args: &ServeArgs) -> Result<(Status, String), Failure> {
    let (OpenFiles { limit, connections }, wanted) = (args.open_files()?, args.wanted());
    let status = if connections < wanted { Status::Warning } else { Status::Ok };
    Ok((status, format!("{limit} allow {connections} connections of {wanted}")))
}

fn tls(args: &ServeArgs) -> Result<(Status, String), Failure> {
    let Some(tls) = args.tls.load()? else { return Ok((Status::Ok, "none: plain text".to_owned())) };
    let expiry = tls.expiry();
    let first = expiry.authorities.map_or(expiry.certificate, |authorities| authorities.min(expiry.certificate));
    let status = if is_soon(first) { Status::Warning } else { Status::Ok };
    let authorities = expiry.authorities.map(|end| format!(", an authority of clients {}", shown(end)));
    Ok((status, format!("the certificate ends {}{}", shown(expiry.certificate), authorities.unwrap_or_default())))
}

/// The database, its schema and its keys, as far as each can be looked at.
async fn database(args: &DatabaseArgs) -> Vec<Finding> {
    let connected = async {
        let url = args.url()?;
        match exists(&url) {
            Ok(()) => Ok(Some((connect(&url, args.connections()).await?, url))),
            Err(_) => Ok(None),
        }
    };
    let (store, url) = match connected.await {
        Ok(Some(connected)) => connected,
        Ok(None) => return vec![finding("database", Ok((Status::Warning, "no file yet: serve makes it".to_owned())))],
        Err(failure) => return vec![finding("database", Err(failure))],
    };
    let mut findings = vec![finding("database", Ok((Status::Ok, url.to_string())))];
    let standing = async { Ok(schema::standing(&mut store.read_connection().await?).await?) }.await;
    let has_keys = matches!(standing, Ok(Standing::Current | Standing::Newer));
    findings.push(finding("schema", standing.map(described)));
    if has_keys {
        findings.push(finding("keys", keys(&store).await));
    }
    store.close().await;
    findings
}

fn described(standing: Standing) -> (Status, String) {
    let (status, detail) = match standing {
        Standing::Current => (Status::Ok, "is this program's"),
        Standing::Foreign => (Status::Warning, "has no table of this program: serve makes them"),
        Standing::Older => (Status::Warning, "is older: serve brings it up to date at its start"),
        Standing::Newer => (Status::Warning, "is of a newer program"),
    };
    (status, detail.to_owned())
}

/// Keys that end soon.
async fn keys(store: &Store) -> Result<(Status, String), Failure> {
    let now = clock::now();
    let ending = store::key::ending(store.reader(), now, now + SOON).await?;
    if ending.is_empty() {
        return Ok((Status::Ok, format!("none ends within {} days", SOON.num_days())));
    }
    let named = ending.iter().take(NAMED).map(|key| {
        let end = key.expires_at.map(shown).unwrap_or_default();
        format!("{} ({}) {end}", key.id, key.name)
    });
    let named = named.collect::<Vec<_>>().join(", ");
    Ok((Status::Warning, format!("{} end within {} days: {named}", ending.len(), SOON.num_days())))
}

fn is_soon(end: DateTime<Utc>) -> bool {
    end <= clock::now() + SOON
}

fn shown(end: DateTime<Utc>) -> String {
    end.format("on %Y-%m-%d").to_string()
}
