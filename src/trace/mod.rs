//! Traces, as OpenTelemetry has them: a span for a call, one for its wait for a worker, one for its group's save. They hold
//! names, codes and times, and nothing of a person.
//!
//! A call that is not traced costs a look at its headers and a random number.

mod export;
mod sampler;
mod settings;

use std::{cell::RefCell, sync::Arc, time::SystemTime};

use http::{HeaderMap, HeaderName};
use opentelemetry::{
    Context, InstrumentationScope, KeyValue,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{
        Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceId, Tracer as _,
        TracerProvider as _,
    },
};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{Sampler as AlwaysOn, SdkTracer, SdkTracerProvider, Span},
};
use tokio::task_local;
use tonic::Code;

pub use self::settings::Settings;
use self::{export::Export, sampler::Sampler};
use crate::clock;

/// Names the caller's span (W3C Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The codes by their numbers, as OpenTelemetry spells them.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Where spans are made, and from where they go to the collector.
pub struct Tracing {
    tracer: SdkTracer,
    sampler: Sampler,
    export: Export,
}

impl Tracing {
    /// Sends spans as the settings say.
    ///
    /// # Errors
    ///
    /// An endpoint that is none. A collector that is away is no error.
    pub fn start(settings: &Settings, version: &'static str) -> Result<Self, String> {
        let (export, spans) = Export::start(settings, version)?;
        let provider = SdkTracerProvider::builder().with_sampler(AlwaysOn::AlwaysOn).with_span_processor(spans).build();
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME")).with_version(version).build();
        Ok(Self { tracer: provider.tracer_with_scope(scope), sampler: Sampler::new(settings), export })
    }

    /// Sends what waits, for 2 seconds at the most.
    pub async fn end(&self) {
        self.export.end().await;
    }

    /// The span of a call of this method, if it is traced.
    fn begin(&self, method: &'static str, parent: Option<&SpanContext>) -> Option<Box<CallSpan>> {
        if !self.sampler.samples(parent) {
            return None;
        }
        let attributes = vec![KeyValue::new("rpc.system.name", "grpc"), KeyValue::new("rpc.method", method)];
        let builder = SpanBuilder::from_name(method).with_kind(SpanKind::Server).with_attributes(attributes);
        let call = CallSpan(self.tracer.build_with_context(builder, &below(parent)));
        let known = Arc::new(Call { tracer: self.tracer.clone(), context: call.0.span_context().clone() });
        // Without such a task there is no connection, as in the tests of the layers.
        let _ = CALL.try_with(|place| place.replace(Some(known)));
        Some(Box::new(call))
    }
}

/// The context of what happens below this span.
fn below(parent: Option<&SpanContext>) -> Context {
    let context = Context::new();
    match parent {
        Some(parent) => context.with_remote_span_context(parent.clone()),
        None => context,
    }
}

/// Begins the trace of a call: its span, if it is traced, and the id of the trace that it is part of, here or at its caller.
pub fn begin(
    tracing: Option<&Tracing>,
    method: &'static str,
    headers: &HeaderMap,
) -> (Option<Box<CallSpan>>, Option<TraceId>) {
    let parent = parent(headers);
    let span = tracing.and_then(|tracing| tracing.begin(method, parent.as_ref()));
    let id = span.as_ref().map(|span| span.0.span_context()).or(parent.as_ref()).map(SpanContext::trace_id);
    (span, id)
}

/// The span of the caller, if it names one. Its `tracestate`, any text of the caller's, is left out.
fn parent(headers: &HeaderMap) -> Option<SpanContext> {
    struct Traceparent<'a>(&'a str);

    impl Extractor for Traceparent<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            (key == TRACEPARENT.as_str()).then_some(self.0)
        }

        fn keys(&self) -> Vec<&str> {
            vec!["traceparent"]
        }
    }

    let header = headers.get(TRACEPARENT)?.to_str().ok()?;
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Traceparent(header));
    let parent = context.span().span_context().clone();
    parent.is_valid().then_some(parent)
}

/// The span of a call, until its answer has ended.
pub struct CallSpan(Span);

impl CallSpan {
    /// Ends with a code. A failure of the service is an error; what the caller did wrong is none.
    pub fn end(mut self, code: Code) {
        let name = CODES.get(code as usize).copied().unwrap_or("UNKNOWN");
        self.0.set_attribute(KeyValue::new("rpc.response.status_code", name));
        if matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        ) {
            self.0.set_attribute(KeyValue::new("error.type", name));
            self.0.set_status(Status::error("")); // an error's text may have a value
        }
        self.0.end();
    }
}

/// A call that is traced, as those know it who do a part of it.
struct Call {
    tracer: SdkTracer,
    context: SpanContext,
}

task_local! {
    /// The call of this task, if it is traced.
    static CALL: RefCell<Option<Arc<Call>>>;
}

/// The future of a task that carries out one call.
pub fn of_one_call<F: Future>(call: F) -> impl Future<Output = F::Output> {
    CALL.scope(RefCell::default(), call)
}

/// The wait of a traced call for a worker.
pub struct Wait {
    call: Arc<Call>,
    since: SystemTime,
}

impl Wait {
    /// Begins, if the call of this task is traced.
    pub fn begin() -> Option<Self> {
        let call = CALL.try_with(|call| call.borrow().clone()).ok()??;
        Some(Self { call, since: clock::now().into() })
    }

    /// Waits once more.
    pub fn begin_again(&mut self) {
        self.since = clock::now().into();
    }

    /// A worker has it.
    pub fn end(&self) {
        let Self { call, since } = self;
        let Call { tracer, context } = &**call;
        let wait = SpanBuilder::from_name("wait for a worker").with_start_time(*since);
        tracer.build_with_context(wait, &below(Some(context))).end();
    }
}

/// The save of a group of changes, some of whose calls are traced.
pub struct Save(Span);

impl Save {
    /// Begins below the first of these calls, and linked to all of them. None where none is traced.
    pub fn begin<'a>(mut waits: impl Iterator<Item = &'a Wait>, database: &'static str) -> Option<Self> {
        let first = waits.next()?;
        let Call { tracer, context } = &*first.call;
        let calls = std::iter::once(first).chain(waits).map(|wait| Link::with_context(wait.call.context.clone()));
        let builder = SpanBuilder::from_name("save a group")
            .with_kind(SpanKind::Client)
            .with_links(calls.collect())
            .with_attributes(vec![KeyValue::new("db.system.name", database)]);
        Some(Self(tracer.build_with_context(builder, &below(Some(context)))))
    }

    /// Ends. One that failed, also because another write was faster, is an error.
    pub fn end(mut self, changes: usize, failed: bool) {
        let changes = i64::try_from(changes).unwrap_or(i64::MAX);
        self.0.set_attribute(KeyValue::new("db.operation.batch.size", changes));
        if failed {
            self.0.set_status(Status::error(""));
        }
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_code_has_the_number_of_its_name() {
        for (number, name) in (0..).zip(CODES) {
            let code = format!("{:?}", Code::from_i32(number)).to_uppercase();
            assert_eq!(name.replace('_', ""), code);
        }
    }

    #[test]
    fn the_callers_span_is_known_by_its_traceparent_and_anything_else_is_none() {
        let parent = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, HeaderValue::from_static(text));
            headers.insert("tracestate", HeaderValue::from_static("name=ada"));
            parent(&headers)
        };
        let known = parent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").expect("a span");
        assert_eq!(known.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(known.is_sampled() && known.is_remote());
        assert_eq!(known.trace_state().header(), "");
        for text in [
            "",
            "ada@example.com",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            assert!(parent(text).is_none(), "{text}");
        }
    }
}
