//! OTLP's messages (opentelemetry-proto 1.10, `trace/v1/trace.proto` and what it imports), as far as they are written or read here.
//! What a message has besides is left out, which Protocol Buffers allow.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::span::{Span, Value};

/// `SPAN_KIND_SERVER`.
const SERVER: i32 = 2;
/// `STATUS_CODE_ERROR`.
const ERROR: i32 = 2;
/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK`, and that the parent is a span of another program.
const KNOWS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
/// The version of the semantic conventions by which the attributes are named.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

/// The program that the spans are of.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<SpanMessage>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct InstrumentationScope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

/// `Span` in the specification.
#[derive(Clone, PartialEq, prost::Message)]
struct SpanMessage {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(oneof = "any_value::Value", tags = "1, 3, 4")]
    value: Option<any_value::Value>,
}

mod any_value {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Value {
        #[prost(string, tag = "1")]
        String(String),
        #[prost(int64, tag = "3")]
        Int(i64),
        #[prost(double, tag = "4")]
        Double(f64),
    }
}

/// What a collector answers.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ExportTraceServiceResponse {
    /// Absent if it has taken all.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<ExportTracePartialSuccess>,
}

/// It has not taken all; without a number of spans it is a warning.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ExportTracePartialSuccess {
    /// So many spans were not taken.
    #[prost(int64, tag = "1")]
    pub rejected_spans: i64,
    /// Why.
    #[prost(string, tag = "2")]
    pub error_message: String,
}

impl Resource {
    /// With these attributes.
    pub(crate) fn new(attributes: &[(String, String)]) -> Self {
        let attribute = |(key, value): &(String, String)| key_value(key, any_value::Value::String(value.clone()));
        Self { attributes: attributes.iter().map(attribute).collect() }
    }
}

impl ExportTraceServiceRequest {
    /// Of these spans.
    pub(crate) fn new(resource: &Resource, spans: Vec<Span>) -> Self {
        let scope = InstrumentationScope {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let scope_spans = ScopeSpans {
            scope: Some(scope),
            spans: spans.into_iter().map(SpanMessage::from).collect(),
            schema_url: SCHEMA.to_owned(),
        };
        Self {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource.clone()),
                scope_spans: vec![scope_spans],
                schema_url: SCHEMA.to_owned(),
            }],
        }
    }
}

#[cfg(test)]
impl ExportTraceServiceRequest {
    pub(crate) fn count(&self) -> usize {
        self.resource_spans.iter().flat_map(|of| &of.scope_spans).map(|of| of.spans.len()).sum()
    }
}

impl From<Span> for SpanMessage {
    fn from(Span { ids, state, name, started, elapsed, attributes, error }: Span) -> Self {
        let parent = ids.parent.map(|id| id.to_be_bytes().to_vec());
        let remote = if parent.is_some() { IS_REMOTE } else { 0 };
        Self {
            trace_id: ids.trace.to_be_bytes().to_vec(),
            span_id: ids.span.to_be_bytes().to_vec(),
            trace_state: state,
            parent_span_id: parent.unwrap_or_default(),
            name,
            kind: SERVER,
            start_time_unix_nano: nanoseconds(started),
            end_time_unix_nano: nanoseconds(started + elapsed),
            attributes: attributes.into_iter().map(|(key, value)| key_value(key, value.into())).collect(),
            status: error.map(|message| Status { message, code: ERROR }),
            flags: u32::from(ids.flags) | KNOWS_IS_REMOTE | remote,
        }
    }
}

impl From<Value> for any_value::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::Text(text) => Self::String(text),
            Value::Number(number) => Self::Int(number),
            Value::Seconds(time) => Self::Double(time.as_secs_f64()),
        }
    }
}

fn key_value(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

/// Since 1970; a clock before that is 0.
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
