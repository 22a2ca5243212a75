//! What is counted of each call, under the names that gRPC servers of other languages have for it (go-grpc-middleware).

use std::{iter, sync::LazyLock, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use tonic::Code;

use crate::grpc::auth::{self, Access, Method};

/// The codes by their numbers, in gRPC's spelling for this label.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The upper bounds of the histogram of durations, in seconds.
const DURATIONS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What is counted of all calls. A method that is none is `unknown`: its name is the caller's text.
pub static CALLS: LazyLock<Calls> = LazyLock::new(Calls::new);

pub struct Calls {
    pub registry: Registry,
    /// In the order of the table of methods.
    methods: Vec<OfMethod>,
    unknown: OfMethod,
}

/// What is counted of the calls of a method.
pub struct OfMethod {
    started: Counter,
    seconds: Histogram,
    handled: [Counter; CODES.len()],
}

/// Labels and their values.
type Labels<const N: usize> = [(&'static str, &'static str); N];

impl Calls {
    fn new() -> Self {
        let mut registry = Registry::default();
        let started = Family::<Labels<3>, Counter>::default();
        let handled = Family::<Labels<4>, Counter>::default();
        let new_seconds: fn() -> Histogram = || Histogram::new(DURATIONS);
        let seconds = Family::<Labels<3>, Histogram, _>::new_with_constructor(new_seconds);
        registry.register("grpc_server_started", "Calls that have begun", started.clone());
        registry.register("grpc_server_handled", "Calls that have ended, by their codes", handled.clone());
        registry.register("grpc_server_handling_seconds", "How long calls took", seconds.clone());
        let of_method = |kind, service, method| {
            let labels = [("grpc_type", kind), ("grpc_service", service), ("grpc_method", method)];
            let [kind, service, method] = labels;
            OfMethod {
                started: started.get_or_create_owned(&labels),
                seconds: seconds.get_or_create_owned(&labels),
                handled: CODES.map(|code| handled.get_or_create_owned(&[kind, service, method, ("grpc_code", code)])),
            }
        };
        let methods = auth::methods().map(|Method { path, access, .. }| {
            let mut words = path.split('/').skip(1).chain(iter::repeat(""));
            of_method(kind(access), words.next().unwrap_or_default(), words.next().unwrap_or_default())
        });
        Self { methods: methods.collect(), unknown: of_method("unary", "unknown", "unknown"), registry }
    }

    /// What is counted of the calls of this method.
    pub fn of(&self, method: Option<Method>) -> &OfMethod {
        method.and_then(|method| self.methods.get(method.number)).unwrap_or(&self.unknown)
    }
}

/// How a method is called, as the conventions name it.
const fn kind(access: Access) -> &'static str {
    match access {
        Access::Health | Access::AnyKey | Access::Key(_) => "unary",
        Access::HealthWatch | Access::Stream(_) => "server_stream",
        Access::Reflection => "bidi_stream",
    }
}

impl OfMethod {
    /// A call has begun.
    pub fn begin(&self) {
        self.started.inc();
    }

    /// A call has ended. One without a code has lost its caller.
    pub fn end(&self, code: Option<Code>, after: Duration) {
        let code = code.unwrap_or(Code::Cancelled);
        if let Some(handled) = self.handled.get(code as usize) {
            handled.inc();
        }
        self.seconds.observe(after.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_the_number_of_its_name() {
        for (number, name) in (0..).zip(CODES) {
            let code = format!("{:?}", Code::from_i32(number));
            let spelled = match code.as_str() {
                "Ok" => "OK",
                "Cancelled" => "Canceled",
                other => other,
            };
            assert_eq!(name, spelled);
        }
    }
}
