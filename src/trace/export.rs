//! Spans on their way to the collector: a bounded queue and a task of their own, so that no call waits for it. What does
//! not fit, or is not taken, is dropped and counted.

use std::{
    mem,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanExporter as _, SpanProcessor},
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::settings::Settings;
use crate::{clock, metrics::METRICS};

/// Spans that wait at the most, some hundred bytes each.
const MOST: usize = 8192;

/// Spans that are sent at once.
const BATCH: usize = 512;

/// How long a span waits for others.
const GATHER: Duration = Duration::from_secs(1);

/// How long the end waits for the collector.
const LAST: Duration = Duration::from_secs(2);

/// At most one warning in this time.
const WARNINGS: Duration = Duration::from_mins(1);

/// Where ended spans wait.
#[derive(Debug)]
pub struct Queue {
    spans: mpsc::Sender<SpanData>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            METRICS.spans.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The task that sends spans.
pub struct Export {
    closing: CancellationToken,
    sending: Mutex<Option<JoinHandle<()>>>,
}

impl Export {
    /// Begins to send what comes into the queue.
    pub fn start(settings: &Settings, version: &'static str) -> Result<(Self, Queue), String> {
        let resource = resource(version);
        let exporter = exporter(settings, &resource).map_err(|error| format!("spans cannot be sent: {error}"))?;
        let (spans, waiting) = mpsc::channel(MOST);
        let closing = CancellationToken::new();
        let sender = Sender { exporter, settings: settings.clone(), resource, told: None };
        let sending = tokio::spawn(sender.send(waiting, closing.clone()));
        Ok((Self { closing, sending: Mutex::new(Some(sending)) }, Queue { spans }))
    }

    /// Sends what waits, as far as the collector takes it in time.
    pub async fn end(&self) {
        self.closing.cancel();
        let sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut sending) = sending else { return };
        if timeout(LAST, &mut sending).await.is_err() {
            sending.abort();
            tracing::warn!("the collector has not taken the last spans in time");
        }
    }
}

/// Connects when there is something to send.
fn exporter(settings: &Settings, resource: &Resource) -> Result<SpanExporter, ExporterBuildError> {
    let exporter = SpanExporter::builder().with_tonic();
    let mut exporter = exporter.with_endpoint(&settings.endpoint).with_timeout(settings.timeout).build()?;
    exporter.set_resource(resource);
    Ok(exporter)
}

/// Who this is, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` say otherwise.
fn resource(version: &'static str) -> Resource {
    let ours = Resource::builder_empty().with_attributes([
        KeyValue::new("service.name", env!("CARGO_PKG_NAME")),
        KeyValue::new("service.version", version),
        KeyValue::new("service.instance.id", clock::new_id().to_string()),
    ]);
    let said = Resource::builder().build();
    // Where nobody has named the service, the other one says so.
    let said = said
        .iter()
        .filter(|(key, value)| !(key.as_str() == "service.name" && value.as_str().starts_with("unknown_service")));
    ours.with_attributes(said.map(|(key, value)| KeyValue::new(key.clone(), value.clone()))).build()
}

struct Sender {
    exporter: SpanExporter,
    settings: Settings,
    resource: Resource,
    /// When a loss was last told, and how many spans were lost until then.
    told: Option<(Instant, u64)>,
}

impl Sender {
    /// Sends batches until it is closing, and then what is left.
    async fn send(mut self, mut waiting: mpsc::Receiver<SpanData>, closing: CancellationToken) {
        let mut batch = Vec::new();
        while closing.run_until_cancelled(gather(&mut waiting, &mut batch)).await == Some(true) {
            self.export(mem::take(&mut batch)).await;
        }
        waiting.close();
        while waiting.recv_many(&mut batch, BATCH).await > 0 || !batch.is_empty() {
            self.export(mem::take(&mut batch)).await;
        }
    }

    async fn export(&mut self, batch: Vec<SpanData>) {
        let unsent = Unsent(batch.len() as u64);
        let error = match timeout(self.settings.timeout, self.exporter.export(batch)).await {
            Ok(Ok(())) => return unsent.sent(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        drop(unsent);
        // Its connection may have died without a word, and would be waited for again and again.
        if let Ok(anew) = exporter(&self.settings, &self.resource) {
            self.exporter = anew;
        }
        let dropped = METRICS.spans.dropped.get();
        let before = self.told.map_or(0, |(_, before)| before);
        if self.told.is_none_or(|(last, _)| last.elapsed() >= WARNINGS) {
            self.told = Some((Instant::now(), dropped));
            tracing::warn!(spans = dropped - before, error, "the collector has not taken spans");
        }
    }
}

/// Spans on their way. They are lost where the collector has not taken them, also because the program ends.
struct Unsent(u64);

impl Unsent {
    fn sent(mut self) {
        METRICS.spans.exported.inc_by(mem::take(&mut self.0));
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        METRICS.spans.dropped.inc_by(self.0);
    }
}

/// Waits for spans, and then a little for others. False where there will be none.
async fn gather(waiting: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>) -> bool {
    waiting.recv_many(batch, BATCH).await;
    let more = async { while batch.len() < BATCH && waiting.recv_many(batch, BATCH - batch.len()).await > 0 {} };
    let _ = timeout(GATHER, more).await;
    !batch.is_empty()
}
