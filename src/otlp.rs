//! Spans of requests, for a collector of OpenTelemetry (OTLP over HTTP, binary Protocol Buffers).
//!
//! A request only pushes its span into a bounded queue when it is over. A thread of its own exports what is there in batches,
//! each with a limit of time over all its attempts. What has no room, or is not taken, is dropped and counted; no request waits.
//!
//! - `settings`: the variables of the environment that OpenTelemetry's specification names
//! - `sampler`: which requests have a span
//! - `span`: what of a request is exported
//! - `message`: the same as OTLP has it
//! - `queue`: the spans that wait, and the thread
//! - `export`: batches, attempts, and what the log says of losses
//! - `collector`: one call to the collector
//!
//! Without the feature `otlp` only the names of the variables are here, for a warning.

#[cfg(feature = "otlp")]
mod collector;
#[cfg(feature = "otlp")]
mod export;
#[cfg(feature = "otlp")]
mod message;
#[cfg(feature = "otlp")]
mod queue;
#[cfg(feature = "otlp")]
mod sampler;
#[cfg(feature = "otlp")]
mod settings;
#[cfg(feature = "otlp")]
mod span;

#[cfg(feature = "otlp")]
pub(crate) use queue::Spans;
#[cfg(feature = "otlp")]
pub(crate) use settings::Settings;
#[cfg(feature = "otlp")]
pub(crate) use span::{Ids, Span, Value};

/// Where the collector is. The first is the whole address, to the second `/v1/traces` is added.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// The variable that asks for spans, and its value. `variable` reads one; an empty value counts as none, as the specification
/// says.
fn wanted(variable: impl Fn(&str) -> Option<String>) -> Option<(&'static str, String)> {
    let value = |name: &str| Some(variable(name)?.trim().to_owned()).filter(|text| !text.is_empty());
    let is = |name: &str, word: &str| value(name).is_some_and(|text| text.eq_ignore_ascii_case(word));
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return None;
    }
    ENDPOINTS.into_iter().find_map(|name| Some((name, value(name)?)))
}

/// A sentence for the log, if the environment asks for what this build leaves out.
#[cfg(not(feature = "otlp"))]
pub(crate) fn missing(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let (name, _) = wanted(variable)?;
    Some(format!(
        "{name}: this build exports no spans: build it with `cargo build --features otlp`, or unset the variable"
    ))
}

#[cfg(test)]
mod tests {
    use super::wanted;

    #[test]
    fn spans_are_wanted_where_an_endpoint_is_named_and_nothing_switches_them_off() {
        let (base, own) = (("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318"), "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        for (variables, expected) in [
            (&[][..], None),
            (&[base], Some((base.0, base.1))),
            (&[base, (own, "http://b/x")], Some((own, "http://b/x"))),
            (&[base, (own, " ")], Some((base.0, base.1))),
            (&[base, ("OTEL_SDK_DISABLED", "True")], None),
            (&[base, ("OTEL_SDK_DISABLED", "false")], Some((base.0, base.1))),
            (&[base, ("OTEL_TRACES_EXPORTER", "none")], None),
            (&[base, ("OTEL_TRACES_EXPORTER", "otlp")], Some((base.0, base.1))),
            (&[("OTEL_TRACES_EXPORTER", "otlp")], None),
        ] {
            let value = |name: &str| Some(variables.iter().find(|(known, _)| *known == name)?.1.to_owned());
            assert_eq!(wanted(value), expected.map(|(name, url)| (name, url.to_owned())), "{variables:?}");
        }
    }
}
