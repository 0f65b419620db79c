//! A collector of OpenTelemetry: it takes spans by OTLP over HTTP, as the specification says, and decodes them by the messages that
//! OpenTelemetry's own .proto files give.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::PATIENCE;
use crate::certificates::Pair;
use crate::server::{acceptor, lock, read_head};

/// What the collector does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answers {
    /// Takes all spans.
    Takes,
    /// Takes all but so many.
    Rejects(i64),
    /// Answers with this status, and takes nothing.
    Status(u16),
    /// Takes all, after this time.
    Slowly(Duration),
    /// Reads the request, and never answers.
    Hangs,
    /// Answers with a page.
    Page,
}

/// A span as it came, with what it came with.
#[derive(Clone, Debug)]
pub struct Received {
    /// The span itself.
    pub span: Span,
    /// The attributes of the resource.
    pub resource: BTreeMap<String, String>,
}

impl Received {
    /// An attribute of the span as text.
    pub fn get(&self, key: &str) -> Option<String> {
        texts(&self.span.attributes).remove(key)
    }

    /// An id in hexadecimal digits.
    pub fn hex(id: &[u8]) -> String {
        id.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A running collector. Dropping it closes its listener and all connections.
pub struct Collector {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: AbortHandle,
}

struct Shared {
    answers: Mutex<Answers>,
    /// The heads of all requests.
    heads: Mutex<Vec<String>>,
    /// The spans that were taken; their number is sent.
    spans: Mutex<Vec<Received>>,
    changed: watch::Sender<usize>,
}

impl Collector {
    /// Listens on loopback, at a port of the system's choice.
    pub async fn start() -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address")).await
    }

    /// Listens at this address.
    pub async fn at(address: SocketAddr) -> Self {
        Self::listen(address, None).await
    }

    /// Listens on loopback, with TLS by this certificate.
    pub async fn with_tls(pair: &Pair) -> Self {
        Self::listen("127.0.0.1:0".parse().expect("an address"), Some(acceptor(pair))).await
    }

    async fn listen(address: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            answers: Mutex::new(Answers::Takes),
            heads: Mutex::default(),
            spans: Mutex::default(),
            changed: watch::Sender::new(0),
        });
        let server = tokio::spawn(serve(listener, tls, Arc::clone(&shared))).abort_handle();
        Self { address, shared, server }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The value of `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it does this with new requests.
    pub fn set(&self, answers: Answers) {
        *lock(&self.shared.answers) = answers;
    }

    /// The heads of the requests that came, also of those that were not taken.
    pub fn heads(&self) -> Vec<String> {
        lock(&self.shared.heads).clone()
    }

    /// The spans that were taken so far, in the order in which they began.
    pub fn spans(&self) -> Vec<Received> {
        let mut spans = lock(&self.shared.spans).clone();
        spans.sort_by_key(|received| received.span.start_time_unix_nano);
        spans
    }

    /// Waits for so many, and gives all that are there.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        let mut changed = self.shared.changed.subscribe();
        let waited = tokio::time::timeout(PATIENCE, changed.wait_for(|taken| *taken >= count)).await.is_ok();
        let spans = self.spans();
        assert!(waited, "{count} spans never came: {spans:#?}");
        spans
    }

    /// Waits for so many requests, taken or not.
    pub async fn wait_for_requests(&self, count: usize) {
        let mut changed = self.shared.changed.subscribe();
        let came = async {
            while lock(&self.shared.heads).len() < count {
                changed.changed().await.expect("it has a sender");
            }
        };
        tokio::time::timeout(PATIENCE, came).await.expect("the requests came");
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (shared, tls) = (Arc::clone(&shared), tls.clone());
        connections.spawn(async move {
            match tls {
                Some(tls) => connection(tls.accept(stream).await.ok()?, &shared).await,
                None => connection(stream, &shared).await,
            }
        });
    }
}

/// Answers the requests of one connection; `None` when it ends.
async fn connection(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Shared) -> Option<()> {
    loop {
        let head = read_head(&mut stream).await?;
        let field = |wanted: &str| {
            let fields = head.lines().filter_map(|line| line.split_once(':'));
            fields.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim()).next()
        };
        let length = field("content-length").and_then(|length| length.parse().ok()).expect("a request with a length");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let is_right = head.starts_with("POST /v1/traces HTTP/1.1\r\n");
        let is_protobuf = field("content-type") == Some("application/x-protobuf");
        lock(&shared.heads).push(head.clone());
        let answers = lock(&shared.answers).clone();
        shared.changed.send_modify(|_| {});
        let (status, kind, body) = match answers {
            _ if !is_right => (404, "text/plain", Vec::new()),
            _ if !is_protobuf => (415, "text/plain", Vec::new()),
            Answers::Status(status) => (status, "text/plain", Vec::new()),
            Answers::Page => (200, "text/html", b"<html></html>".to_vec()),
            Answers::Hangs => std::future::pending().await,
            Answers::Takes | Answers::Rejects(_) | Answers::Slowly(_) => {
                if let Answers::Slowly(time) = answers {
                    tokio::time::sleep(time).await;
                }
                let request = ExportTraceServiceRequest::decode(&body[..]).expect("the message of the specification");
                take(request, shared);
                let partial_success = match answers {
                    Answers::Rejects(rejected_spans) => {
                        Some(ExportTracePartialSuccess { rejected_spans, error_message: "too old".to_owned() })
                    }
                    _ => None,
                };
                (200, "application/x-protobuf", ExportTraceServiceResponse { partial_success }.encode_to_vec())
            }
        };
        let head = format!("HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat()).await.ok()?;
    }
}

fn take(request: ExportTraceServiceRequest, shared: &Shared) {
    let mut spans = lock(&shared.spans);
    for of_resource in request.resource_spans {
        let resource = texts(&of_resource.resource.unwrap_or_default().attributes);
        for span in of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans) {
            spans.push(Received { span, resource: resource.clone() });
        }
    }
    let count = spans.len();
    drop(spans);
    shared.changed.send_replace(count);
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        other => panic!("{}: {other:?}", attribute.key),
    };
    let texts: BTreeMap<_, _> = attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect();
    assert_eq!(texts.len(), attributes.len(), "a key is there twice");
    texts
}
