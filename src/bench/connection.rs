//! Connections to both sides and to storage, one HTTP/1.1 client each, so that connecting and asking are timed apart.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use oci::quote::{quoted, registry_error};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::origin::{Origin, Resolver};
use super::phase::Phase;
use super::record::Meter;
use crate::answer::chain;
use crate::net::trust::TrustRoots;

/// TCP and TLS to all addresses of a host; what takes longer is a failure, not a sample.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// An answer's head. The proxy gives its own within 30 s whatever happens, so this never cuts one of them off.
const ANSWER_LIMIT: Duration = Duration::from_secs(40);
/// Between two parts of a body.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// The body of an error or a redirect; real ones have hundreds of bytes.
const MAX_SMALL_BODY: usize = 64 << 10;
/// Idle connections that one worker keeps to one host: as many as it pulls layers at once.
const MAX_IDLE: usize = super::pull::LAYERS_AT_ONCE;

/// Why a pull did not succeed: a sentence without the side's name.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was asked, and what came instead.
    pub sentence: String,
    /// It was a 429.
    pub throttled: bool,
}

impl Failure {
    /// Of anything but a 429.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), throttled: false }
    }
}

/// What all connections of a run have in common.
pub struct Connector {
    tls: TlsConnector,
    resolver: Resolver,
}

impl Connector {
    /// Trusts these roots.
    pub fn new(roots: &TrustRoots) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots.root_store())
            .with_no_client_auth();
        // Neither dockerd nor containerd resumes sessions, so a new connection is a whole handshake.
        config.resumption = Resumption::disabled();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), resolver: Resolver::default() })
    }

    /// The addresses of all hosts.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// A new connection, and how long it took; the look-up of the name does not count.
    async fn connect(&self, origin: &Origin) -> Result<(Sender, Duration), String> {
        let addresses = self.resolver.addresses(origin).await?;
        let begun = Instant::now();
        let connecting = async {
            let mut last = "no address".to_owned();
            for address in addresses.iter() {
                match TcpStream::connect(address).await {
                    Ok(stream) => return self.handshake(origin, stream).await,
                    Err(cause) => last = format!("connect {address}: {cause}"),
                }
            }
            Err(last)
        };
        let sender = timeout(CONNECT_LIMIT, connecting)
            .await
            .unwrap_or_else(|_| Err(format!("connect: not done within {} s", CONNECT_LIMIT.as_secs())))?;
        Ok((sender, begun.elapsed()))
    }

    async fn handshake(&self, origin: &Origin, stream: TcpStream) -> Result<Sender, String> {
        // Small requests must not wait for the acknowledgement of the ones before.
        let _ = stream.set_nodelay(true);
        if !origin.is_tls() {
            return http(stream).await;
        }
        let name = ServerName::try_from(origin.server_name().to_owned()).map_err(|cause| format!("TLS: {cause}"))?;
        http(self.tls.connect(name, stream).await.map_err(|cause| format!("TLS: {cause}"))?).await
    }
}

type Sender = SendRequest<Full<Bytes>>;

async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<Sender, String> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|cause| cause.to_string())?;
    // It ends with its sender, or with the peer; who asks meanwhile is told.
    tokio::spawn(connection);
    Ok(sender)
}

/// The connections of one worker to one side: none are kept if each request is to have a new one.
pub struct Pool {
    connector: Arc<Connector>,
    /// `None` makes a new connection for each request.
    idle: Option<Mutex<HashMap<Origin, Vec<Sender>>>>,
}

/// A request: who, what, and the token if there is one.
pub struct Ask<'a> {
    /// Whom.
    pub origin: &'a Origin,
    /// GET, HEAD or POST.
    pub method: Method,
    /// Path and query.
    pub target: &'a str,
    /// For a manifest, what is understood.
    pub accept: Option<&'static str>,
    /// `Authorization`, for the registry alone.
    pub bearer: Option<HeaderValue>,
    /// A form, if it is a POST.
    pub form: Option<Bytes>,
}

impl<'a> Ask<'a> {
    /// A request without any credentials.
    pub fn new(origin: &'a Origin, method: Method, target: &'a str) -> Self {
        Self { origin, method, target, accept: None, bearer: None, form: None }
    }

    fn build(&self, keep: bool) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder()
            .method(&self.method)
            .uri(self.target)
            .header(header::HOST, self.origin.authority())
            .header(header::USER_AGENT, concat!("acr-cache-proxy/", env!("CARGO_PKG_VERSION"), " bench"));
        if let Some(accept) = self.accept {
            request = request.header(header::ACCEPT, accept);
        }
        if let Some(bearer) = &self.bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        if self.form.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        if !keep {
            request = request.header(header::CONNECTION, "close");
        }
        request.body(Full::new(self.form.clone().unwrap_or_default())).map_err(|cause| cause.to_string())
    }

    /// How it is named in a sentence: without query, which may hold a signature.
    fn name(&self) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        match path.starts_with("/v2/") || path.starts_with("/oauth2/") {
            true => format!("{} {path}", self.method),
            false => format!("{} from blob storage {}", self.method, self.origin.authority()),
        }
    }
}

/// An answer whose body is still to come.
pub struct Answer<'p> {
    pool: &'p Pool,
    origin: Origin,
    sender: Sender,
    body: Incoming,
    name: String,
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// When the request was sent, on a connection that stood.
    pub sent: Instant,
    /// When the head of the answer was there.
    pub answered: Instant,
}

impl Pool {
    /// For one worker.
    pub fn new(connector: Arc<Connector>, keep: bool) -> Self {
        Self { connector, idle: keep.then(Mutex::default) }
    }

    /// Sends a request. One that a kept connection has not lived to see answered is sent again on a new one, as
    /// every client does.
    pub async fn ask(&self, ask: &Ask<'_>, meter: &mut Meter) -> Result<Answer<'_>, Failure> {
        let name = ask.name();
        let failed = |cause: String| Failure::new(format!("{name}: {cause}"));
        while let Some(mut sender) = self.take(ask.origin) {
            let fresh = sender.ready().await.is_ok();
            if fresh && let Ok((response, sent)) = self.send(&mut sender, ask).await {
                return Ok(self.answer(ask, sender, response, sent, name));
            }
        }
        let (mut sender, took) = self.connector.connect(ask.origin).await.map_err(failed)?;
        meter.time(Phase::Connect, took);
        let (response, sent) = self.send(&mut sender, ask).await.map_err(failed)?;
        Ok(self.answer(ask, sender, response, sent, name))
    }

    async fn send(&self, sender: &mut Sender, ask: &Ask<'_>) -> Result<(Response<Incoming>, Instant), String> {
        let request = ask.build(self.idle.is_some())?;
        let sent = Instant::now();
        match timeout(ANSWER_LIMIT, sender.send_request(request)).await {
            Ok(Ok(response)) => Ok((response, sent)),
            Ok(Err(cause)) => Err(chain(&cause as &dyn Error)),
            Err(_) => Err(format!("no answer within {} s", ANSWER_LIMIT.as_secs())),
        }
    }

    fn answer(
        &self,
        ask: &Ask<'_>,
        sender: Sender,
        response: Response<Incoming>,
        sent: Instant,
        name: String,
    ) -> Answer<'_> {
        let answered = Instant::now();
        let (head, body) = response.into_parts();
        let origin = ask.origin.clone();
        Answer { pool: self, origin, sender, body, name, status: head.status, headers: head.headers, sent, answered }
    }

    fn take(&self, origin: &Origin) -> Option<Sender> {
        self.idle.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).get_mut(origin)?.pop()
    }

    fn give_back(&self, origin: Origin, sender: Sender) {
        if let Some(idle) = &self.idle {
            let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = idle.entry(origin).or_default();
            if kept.len() < MAX_IDLE && !sender.is_closed() {
                kept.push(sender);
            }
        }
    }
}

impl Answer<'_> {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The head's time, from the request on.
    pub fn took(&self) -> Duration {
        self.answered - self.sent
    }

    /// Anything that is wrong with it, as a sentence that begins with what was asked.
    pub fn wrong(&self, what: &str) -> Failure {
        Failure::new(format!("{}: {what}", self.name))
    }

    /// Turns an answer that is not what was hoped for into its failure, with the server's own words.
    pub async fn refused(mut self) -> Failure {
        let mut body = Vec::new();
        let _ = self.each_part(MAX_SMALL_BODY as u64, |part| body.extend_from_slice(part)).await;
        let mut sentence = format!("{}: {}", self.name, self.status.as_u16());
        let (code, message) = registry_error(&body);
        let storage = self.header("x-ms-error-code").and_then(quoted);
        if let Some(code) = code.or(storage) {
            sentence = format!("{sentence} {code}");
        }
        if let Some(message) = message {
            sentence = format!("{sentence}: {message}");
        }
        Failure { sentence, throttled: self.status == StatusCode::TOO_MANY_REQUESTS }
    }

    /// Reads the body, part by part, to its end; gives the number of bytes and leaves the connection to the next.
    pub async fn read(mut self, limit: u64, take: impl FnMut(&[u8])) -> Result<u64, Failure> {
        let length = self.each_part(limit, take).await?;
        self.pool.give_back(self.origin, self.sender);
        Ok(length)
    }

    /// The body of a redirect, which nobody reads.
    pub async fn discard(self) -> Result<(), Failure> {
        self.read(MAX_SMALL_BODY as u64, |_| {}).await.map(|_| ())
    }

    async fn each_part(&mut self, limit: u64, mut take: impl FnMut(&[u8])) -> Result<u64, Failure> {
        let mut length = 0;
        loop {
            let frame = match timeout(READ_LIMIT, self.body.frame()).await {
                Ok(None) => return Ok(length),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(cause))) => return Err(self.wrong(&format!("the body broke off: {}", chain(&cause)))),
                Err(_) => return Err(self.wrong(&format!("the body stood still for {} s", READ_LIMIT.as_secs()))),
            };
            if let Some(part) = frame.data_ref() {
                length += part.len() as u64;
                if length > limit {
                    return Err(self.wrong(&format!("the body is longer than {limit} bytes")));
                }
                take(part);
            }
        }
    }
}
