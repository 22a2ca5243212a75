//! Metrics that are read when they are asked for: until then they cost nothing.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

/// Reads a value, where there is one.
type Read = Box<dyn Fn() -> Option<f64> + Send + Sync>;

/// A count as a value.
pub fn count(number: usize) -> Option<f64> {
    u32::try_from(number).ok().map(f64::from)
}

/// A metric that is read when it is asked for.
pub struct Reading {
    kind: MetricType,
    /// A value without a label, or one for each value of a label.
    series: Vec<(Vec<(&'static str, &'static str)>, Read)>,
}

impl Reading {
    /// A number that only grows.
    pub fn counter(read: impl Fn() -> Option<f64> + Send + Sync + 'static) -> Self {
        Self { kind: MetricType::Counter, series: vec![(Vec::new(), Box::new(read))] }
    }

    /// A number.
    pub fn gauge(read: impl Fn() -> Option<f64> + Send + Sync + 'static) -> Self {
        Self { kind: MetricType::Gauge, series: vec![(Vec::new(), Box::new(read))] }
    }

    /// Numbers, one for each value of a label.
    pub const fn gauges() -> Self {
        Self { kind: MetricType::Gauge, series: Vec::new() }
    }

    /// With a number for this value of a label.
    #[must_use]
    pub fn with(
        mut self,
        label: &'static str,
        value: &'static str,
        read: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) -> Self {
        self.series.push((vec![(label, value)], Box::new(read)));
        self
    }
}

impl EncodeMetric for Reading {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        for (labels, read) in &self.series {
            if let Some(value) = read() {
                encode(encoder.encode_family(labels)?, self.kind, value)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        self.kind
    }
}

fn encode(mut encoder: MetricEncoder, kind: MetricType, value: f64) -> fmt::Result {
    match kind {
        MetricType::Counter => encoder.encode_counter::<NoLabelSet, _, f64>(&value, None),
        _ => encoder.encode_gauge(&value),
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").finish_non_exhaustive()
    }
}
