//! Where spans are sent, and which: by the environment variables of OpenTelemetry.

use std::time::Duration;

/// How long the collector may take to answer, where nothing else is said: OpenTelemetry's own default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The part of calls that are traced, where nothing else is said: it costs next to nothing.
const RATIO: f64 = 0.01;

/// How spans are made and sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Where the collector is, such as `http://collector:4317`.
    pub endpoint: String,
    /// How long it may take to answer.
    pub timeout: Duration,
    /// The part of calls that is traced, 0 to 1.
    pub ratio: f64,
    /// Whether the flag of a caller's `traceparent` decides.
    pub follows_callers: bool,
}

impl Settings {
    /// From the variables that have a value; none where there is no endpoint.
    ///
    /// # Errors
    ///
    /// A value that could not be honoured.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let value = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, value(name)?)));
        let off = value("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"));
        let endpoint = first(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]);
        let Some((name, endpoint)) = endpoint.filter(|_| !off) else { return Ok(None) };
        match value("OTEL_TRACES_EXPORTER").as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(_) => return Err("OTEL_TRACES_EXPORTER must be otlp or none".to_owned()),
        }
        if !endpoint.starts_with("http://") {
            return Err(format!("{name} must be http://HOST:PORT: spans are sent without TLS"));
        }
        let protocol = first(["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]);
        if let Some((name, _)) = protocol.filter(|(_, protocol)| protocol != "grpc") {
            return Err(format!("{name} must be grpc"));
        }
        let compression = first(["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"]);
        if let Some((name, _)) = compression.filter(|(_, compression)| compression != "none") {
            return Err(format!("{name} must be none"));
        }
        let timeout = match first(["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"]) {
            None => TIMEOUT,
            Some((name, text)) => {
                let milliseconds = text.parse().ok().filter(|milliseconds| (1..=600_000).contains(milliseconds));
                Duration::from_millis(milliseconds.ok_or_else(|| format!("{name} must be milliseconds, 1 to 600000"))?)
            }
        };
        let (sampler, ratio) = (value("OTEL_TRACES_SAMPLER"), value("OTEL_TRACES_SAMPLER_ARG"));
        let ratio = ratio.map(|ratio| ratio.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)));
        let ratio =
            ratio.map(|ratio| ratio.ok_or("OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1")).transpose()?;
        let (ratio, follows_callers) = match sampler.as_deref() {
            None => (ratio.unwrap_or(RATIO), true),
            Some("parentbased_traceidratio") => (ratio.unwrap_or(1.0), true),
            Some("parentbased_always_on") => (1.0, true),
            Some("parentbased_always_off") => (0.0, true),
            Some("traceidratio") => (ratio.unwrap_or(1.0), false),
            Some("always_on") => (1.0, false),
            Some("always_off") => (0.0, false),
            Some(_) => {
                return Err(
                    "OTEL_TRACES_SAMPLER must be traceidratio, always_on or always_off, or one of these after \
                            parentbased_"
                        .to_owned(),
                );
            }
        };
        Ok(Some(Self { endpoint, timeout, ratio, follows_callers }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");

    fn of(variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        Settings::of(|name| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn nothing_is_traced_without_an_endpoint_or_where_it_is_turned_off() {
        for variables in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
            &[("OTEL_TRACES_SAMPLER", "always_on")],
            &[ENDPOINT, ("OTEL_SDK_DISABLED", "true")],
            &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert_eq!(of(variables), Ok(None), "{variables:?}");
        }
    }

    #[test]
    fn every_sampler_of_the_specification_is_honoured() {
        let sampler = |variables: &[(&str, &str)]| {
            let settings = of(&[&[ENDPOINT], variables].concat()).expect("settings").expect("an endpoint");
            (settings.ratio, settings.follows_callers)
        };
        let (name, argument) = ("OTEL_TRACES_SAMPLER", ("OTEL_TRACES_SAMPLER_ARG", "0.25"));
        assert_eq!(sampler(&[]), (0.01, true));
        assert_eq!(sampler(&[argument]), (0.25, true));
        for (text, with, without) in [
            ("parentbased_traceidratio", (0.25, true), (1.0, true)),
            ("parentbased_always_on", (1.0, true), (1.0, true)),
            ("parentbased_always_off", (0.0, true), (0.0, true)),
            ("traceidratio", (0.25, false), (1.0, false)),
            ("always_on", (1.0, false), (1.0, false)),
            ("always_off", (0.0, false), (0.0, false)),
        ] {
            assert_eq!((sampler(&[(name, text), argument]), sampler(&[(name, text)])), (with, without), "{text}");
        }
    }

    #[test]
    fn the_variables_of_traces_come_before_those_of_all_signals() {
        let settings = of(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4317"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ]);
        let settings = settings.expect("settings").expect("an endpoint");
        assert_eq!((settings.endpoint.as_str(), settings.timeout), ("http://traces:4317", Duration::from_millis(500)));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_its_name() {
        for (name, value) in [
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://collector:4317"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4317"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_TRACES_SAMPLER_ARG", "1%"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
            ("OTEL_TRACES_SAMPLER_ARG", "NaN"),
        ] {
            let refused = of(&[ENDPOINT, (name, value)]).expect_err(value);
            assert!(refused.starts_with(&format!("{name} must be")), "{refused}");
        }
    }
}
