//! A tunnel through a forward proxy, by `CONNECT` (RFC 9110 section 9.3.6), and why there is none.
//!
//! The proxy is asked by the target's name, which it looks up itself. Its credentials are in the head of the `CONNECT` and
//! in nothing that goes through the tunnel.
//!
//! - `tls`: a proxy that is itself spoken to over TLS, below the tunnel

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use pingora_core::protocols::l4::stream::Stream;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::USER_AGENT;

mod tls;

use tls::Secured;
pub(crate) use tls::Tls;

/// For the connection to the proxy, TLS to it where it wants that, and its answer, in which it connects to the target. A handshake
/// of TLS through the tunnel has to fit into the rest of the time for a connection, `HANDSHAKE_LIMIT` of a request.
pub(crate) const TUNNEL_LIMIT: Duration = Duration::from_millis(3500);
/// Of the answer's head. squid's are below 1 KiB; its page is in the body, which is not read.
const MAX_HEAD: usize = 8 << 10;
/// Fields in it.
const MAX_FIELDS: usize = 64;
/// Interim answers before the final one (RFC 9110 section 15.2). They are rare, and one each of 100, 102 and 103 fits in.
const MAX_INTERIM: usize = 4;
/// Read at once.
const PART: usize = 1 << 10;
/// Of a word that the proxy says, for the log.
const MAX_WORD: usize = 32;

/// The scheme of user and password.
const BASIC: &str = "Basic";
/// Those that forward proxies have. Only names from here are logged: a proxy may repeat what it was sent.
const SCHEMES: [&str; 6] = [BASIC, "Bearer", "Digest", "Kerberos", "Negotiate", "NTLM"];
const OTHER_SCHEME: &str = "an unknown scheme";

/// A forward proxy. Its `Debug` masks the credentials.
#[derive(Debug)]
pub(crate) struct ForwardProxy {
    /// `host:port`.
    pub name: String,
    /// The setting or variable that names it.
    pub setting: &'static str,
    /// `Basic ...`, marked as sensitive.
    pub authorization: Option<HeaderValue>,
    /// How TLS is spoken to it; `None` speaks plain HTTP.
    pub tls: Option<Tls>,
}

impl ForwardProxy {
    /// Its address begins so.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// The way to one target through a forward proxy.
#[derive(Clone, Debug)]
pub(crate) struct Tunnel {
    proxy: Arc<ForwardProxy>,
    /// `host:port`; an IPv6 address is in brackets.
    target: Arc<str>,
}

impl Tunnel {
    /// To this target. Does no network I/O.
    pub(crate) fn new(proxy: &Arc<ForwardProxy>, host: &str, port: u16) -> Self {
        Self { proxy: Arc::clone(proxy), target: format!("{host}:{port}").into() }
    }

    /// The proxy.
    pub(crate) fn proxy(&self) -> &ForwardProxy {
        &self.proxy
    }

    /// What tells connections to different targets through the same proxy apart.
    pub(crate) fn id(&self) -> u32 {
        // FNV-1a: no key is needed, since who could make two targets collide chooses the targets.
        let mix = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        let target = self.target.bytes().fold(0x811c_9dc5, mix);
        match &self.proxy.tls {
            None => target,
            // Pingora does not know the proxy's address then, see [`Self::has_socket`].
            Some(tls) => self.proxy.name.bytes().chain(tls.silences().to_be_bytes()).fold(target, mix),
        }
    }

    /// A connection through it is a socket to the proxy. One over TLS is a socket to a task of this process.
    pub(crate) fn has_socket(&self) -> bool {
        self.proxy.tls.is_none()
    }

    /// Asks the proxy for the tunnel, on a new connection to it.
    pub(crate) async fn open(&self, mut stream: TcpStream, until: Instant) -> Result<Opened, NoTunnel> {
        let opening = async {
            let Some(tls) = &self.proxy.tls else {
                return self.ask(&mut stream).await.map(|()| Opened::Plain(stream));
            };
            let late = || Err(Why::Handshake("no answer in time".to_owned()));
            let mut secured = timeout_at(until, tls.handshake(stream)).await.unwrap_or_else(|_| late())?;
            self.ask(&mut secured).await.map(|()| Opened::Tls(Box::new(secured)))
        };
        let opened = timeout_at(until, opening).await;
        opened.unwrap_or(Err(Why::Silent)).map_err(|why| self.refused(why))
    }

    /// There is no tunnel, for this reason.
    pub(crate) fn refused(&self, why: Why) -> NoTunnel {
        NoTunnel { tunnel: self.clone(), why }
    }

    /// Not a byte behind the head of its answer is read.
    async fn ask<S: Peek>(&self, stream: &mut S) -> Result<(), Why> {
        stream.write_all(&self.request()).await.map_err(|cause| tls::broke(&cause))?;
        stream.flush().await.map_err(|cause| tls::broke(&cause))?;
        let mut head = read_head(stream).await?;
        for _ in 0..MAX_INTERIM {
            if !is_interim(&head) {
                break;
            }
            head = read_head(stream).await?;
        }
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut answer = httparse::Response::new(&mut fields);
        let (Ok(_), Some(code)) = (answer.parse(&head), answer.code) else { return Err(Why::Garbage) };
        let status = StatusCode::from_u16(code).map_err(|_| Why::Garbage)?;
        let values = |wanted: &'static str| {
            let found = answer.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(wanted));
            found.filter_map(|field| std::str::from_utf8(field.value).ok())
        };
        match status {
            // Any success is a tunnel by RFC 9110 section 9.3.6. But proxies that give one say 200, the calls for tokens take no other
            // status, and a server that is no proxy has others.
            StatusCode::OK => Ok(()),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                let mut offered = Vec::new();
                for scheme in values("proxy-authenticate").flat_map(schemes) {
                    if !offered.contains(&scheme) {
                        offered.push(scheme);
                    }
                }
                let has_basic = offered.is_empty() || offered.contains(&BASIC);
                Err(if has_basic { Why::Credentials } else { Why::NotBasic(offered.join(", ")) })
            }
            status => {
                // squid's own word for it, such as ERR_DNS_FAIL.
                let word = values("x-squid-error").next().and_then(|value| squids_word(value.split(' ').next()?));
                Err(Why::Status(status, word.map(str::to_owned)))
            }
        }
    }

    /// The `CONNECT`. It is wiped after it is sent, for it may have the credentials.
    fn request(&self) -> Zeroizing<Vec<u8>> {
        let target = self.target.as_bytes();
        let authorization = self.proxy.authorization.as_ref().map_or(&[][..], HeaderValue::as_bytes);
        let mut request = Zeroizing::new(Vec::with_capacity(256 + 2 * target.len() + authorization.len()));
        for part in [b"CONNECT ", target, b" HTTP/1.1\r\nHost: ", target, b"\r\nUser-Agent: ", USER_AGENT.as_bytes()] {
            request.extend_from_slice(part);
        }
        if !authorization.is_empty() {
            request.extend_from_slice(b"\r\nProxy-Authorization: ");
            request.extend_from_slice(authorization);
        }
        request.extend_from_slice(b"\r\n\r\n");
        request
    }
}

/// A tunnel.
pub(crate) enum Opened {
    /// Through a proxy that is spoken to without TLS.
    Plain(TcpStream),
    /// Through one that is spoken to over TLS.
    Tls(Box<Secured>),
}

impl Opened {
    /// As Pingora takes it. An error is this host's: it has no more descriptors.
    pub(crate) fn into_stream(self, tunnel: &Tunnel) -> io::Result<Stream> {
        match self {
            Self::Plain(stream) => Ok(stream.into()),
            Self::Tls(secured) => tls::relayed(*secured, tunnel),
        }
    }
}

/// A stream whose next bytes can be looked at before they are read.
trait Peek: AsyncRead + AsyncWrite + Unpin {
    /// Copies what comes next, as much as there is, and waits until there is something; 0 at the end.
    async fn peek(&mut self, part: &mut [u8]) -> io::Result<usize>;
}

impl Peek for TcpStream {
    async fn peek(&mut self, part: &mut [u8]) -> io::Result<usize> {
        Self::peek(self, part).await
    }
}

impl Peek for Secured {
    async fn peek(&mut self, part: &mut [u8]) -> io::Result<usize> {
        let next = self.fill_buf().await?;
        let length = next.len().min(part.len());
        part[..length].copy_from_slice(&next[..length]);
        Ok(length)
    }
}

/// Reads the head of an answer and nothing behind it: that belongs to the tunnel.
async fn read_head<S: Peek>(stream: &mut S) -> Result<Vec<u8>, Why> {
    let mut head = Vec::with_capacity(PART);
    let mut part = [0; PART];
    loop {
        let seen = stream.peek(&mut part).await.map_err(|cause| tls::broke(&cause))?;
        if seen == 0 {
            return Err(Why::Closed);
        }
        let before = head.len();
        head.extend_from_slice(&part[..seen]);
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let end = match httparse::Response::new(&mut fields).parse(&head) {
            Ok(httparse::Status::Complete(length)) => Some(length),
            Ok(httparse::Status::Partial) => None,
            Err(httparse::Error::TooManyHeaders) => return Err(Why::TooLong(status_of(&head))),
            Err(_) => return Err(Why::Garbage),
        };
        head.truncate(end.unwrap_or(head.len()));
        let taken = head.len() - before;
        stream.read_exact(&mut part[..taken]).await.map_err(|_| Why::Closed)?;
        match end {
            _ if head.len() > MAX_HEAD => return Err(Why::TooLong(status_of(&head))),
            Some(_) => return Ok(head),
            None => {}
        }
    }
}

/// The status in the first line, if that is whole. What follows may be no head.
fn status_of(head: &[u8]) -> Option<u16> {
    let line = head.split_inclusive(|byte| *byte == b'\n').next()?;
    let mut answer = httparse::Response::new(&mut []);
    // The end of the line is behind the status, and the fields are not read.
    let _ = answer.parse(line);
    answer.code
}

/// The final answer follows. One to change the protocol is final, and nobody asked for it.
fn is_interim(head: &[u8]) -> bool {
    status_of(head).is_some_and(|code| (100..200).contains(&code) && code != 101)
}

/// The schemes that one `Proxy-Authenticate` field offers, by their names; what else is there may be anything. Parameters have an
/// `=` in them.
fn schemes(value: &str) -> impl Iterator<Item = &'static str> {
    let words = value.split(',').filter_map(|challenge| word(challenge.split_ascii_whitespace().next()?));
    words.map(|word| SCHEMES.into_iter().find(|known| word.eq_ignore_ascii_case(known)).unwrap_or(OTHER_SCHEME))
}

/// A word that may be logged.
fn word(text: &str) -> Option<&str> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=MAX_WORD).contains(&text.len()).then_some(text).filter(|text| text.bytes().all(is_word))
}

/// A word of squid's for what went wrong. All of them have this form, which what somebody else repeats of a request has not.
fn squids_word(text: &str) -> Option<&str> {
    let is_squids = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    word(text).filter(|word| word.starts_with("ERR_") && word.bytes().all(is_squids))
}

/// Why there is no tunnel, or no use in it. Prints as one sentence: the proxy, what to do, the cause.
#[derive(Clone, Debug)]
pub(crate) struct NoTunnel {
    tunnel: Tunnel,
    why: Why,
}

/// What went wrong between this program, the proxy, and the target behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The proxy's name has no address yet.
    Unresolved,
    /// No connection to the proxy.
    Unreachable(&'static str),
    /// TLS to it: its certificate is not one to trust, and why.
    Certificate(&'static str),
    /// TLS to it fails otherwise, and how.
    Handshake(String),
    /// 407, and it takes user and password.
    Credentials,
    /// 407, and it takes only these schemes.
    NotBasic(String),
    /// Another status, with squid's word for the cause.
    Status(StatusCode, Option<String>),
    /// No answer in time.
    Silent,
    /// It closes the connection without an answer.
    Closed,
    /// What it answers is not HTTP.
    Garbage,
    /// The head of its answer is too long; with its status, if the first line was read.
    TooLong(Option<u16>),
    /// The tunnel was there, and then this happened.
    Behind(String),
}

impl Why {
    /// No connection to the proxy, by this error.
    pub(crate) fn unreachable(cause: &io::Error) -> Self {
        Self::Unreachable(match cause.kind() {
            ErrorKind::ConnectionRefused => "connection refused",
            ErrorKind::TimedOut => "no connection in time",
            ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => "no route",
            ErrorKind::PermissionDenied => "a firewall of this host forbids it",
            _ => "the connection broke",
        })
    }
}

impl NoTunnel {
    /// The one that is the cause of this error, if that is.
    pub(crate) fn of(error: &pingora_core::Error) -> Option<&Self> {
        error.root_cause().downcast_ref()
    }

    /// A proxy that does not answer.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        let proxy =
            ForwardProxy { name: "proxy.corp:3128".to_owned(), setting: "HTTPS_PROXY", authorization: None, tls: None };
        Tunnel::new(&Arc::new(proxy), "example.azurecr.io", 443).refused(Why::Silent)
    }

    /// The proxy has said no, and says so again: asking once more at once, with the same credentials, can only lock an account. Or
    /// its certificate is none to trust, which somebody has to change.
    pub(crate) fn is_refusal(&self) -> bool {
        match &self.why {
            Why::Credentials | Why::NotBasic(_) | Why::Certificate(_) => true,
            Why::Status(status, _) => !status.is_server_error(),
            Why::Unresolved
            | Why::Unreachable(_)
            | Why::Handshake(_)
            | Why::Silent
            | Why::Closed
            | Why::Garbage
            | Why::TooLong(_)
            | Why::Behind(_) => false,
        }
    }

    /// 407: each attempt with the same credentials may count towards the lock of an account.
    pub(crate) fn is_about_credentials(&self) -> bool {
        matches!(self.why, Why::Credentials | Why::NotBasic(_))
    }

    /// The proxy that was connected to does not work as one; another of its addresses may.
    pub(crate) fn is_proxys(&self) -> bool {
        matches!(self.why, Why::Handshake(_) | Why::Silent | Why::Closed | Why::Garbage | Why::TooLong(_))
    }
}

impl fmt::Display for NoTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tunnel { proxy, target } = &self.tunnel;
        let ForwardProxy { name, setting, authorization, tls } = &**proxy;
        let scheme = proxy.scheme();
        write!(f, "egress proxy {name}: ")?;
        match &self.why {
            Why::Unresolved => write!(f, "its name is not resolved: check {setting} and this host's DNS"),
            Why::Unreachable(cause) => write!(f, "no connection to it: check {setting}, and that it runs: {cause}"),
            Why::Certificate(why) => write!(f, "its certificate is not trusted: {why}"),
            Why::Handshake(cause) => {
                write!(f, "TLS handshake with it failed: is {setting} the port of an https:// proxy?: {cause}")
            }
            Why::Credentials if authorization.is_some() => {
                write!(f, "407: it refuses the user and the password in {setting}: correct them")
            }
            Why::Credentials => {
                write!(
                    f,
                    "407: it wants a user and a password: give them in {setting}, as {scheme}://USER:PASSWORD@{name}"
                )
            }
            Why::NotBasic(schemes) => write!(
                f,
                "407: it offers {schemes}, and this program has Basic only: let the proxy allow this host, or offer Basic"
            ),
            Why::Status(StatusCode::FORBIDDEN, word) => {
                write!(
                    f,
                    "403{}: it does not allow CONNECT to {target}: allow it there, or add the host to no_proxy if this host reaches it directly",
                    Behind(word)
                )
            }
            Why::Status(StatusCode::TOO_MANY_REQUESTS, word) => write!(
                f,
                "429{}: it limits how often CONNECT to {target} is asked for: wait, or have the proxy allow this host more",
                Behind(word)
            ),
            Why::Status(status, word) if status.is_server_error() => write!(
                f,
                "{}{}: it cannot connect to {target}: check the proxy's DNS, its firewall and its log",
                status.as_u16(),
                Behind(word)
            ),
            Why::Status(status, word) => write!(
                f,
                "{}{} to CONNECT {target}: is {setting} a forward proxy that allows CONNECT?",
                status.as_u16(),
                Behind(word)
            ),
            Why::Silent => write!(f, "no answer in time to CONNECT {target}: check the proxy and its way there"),
            Why::Closed => write!(f, "it closed the connection without an answer to CONNECT {target}: check its log"),
            // Servers that expect TLS answer so, or with a page that says so.
            Why::Garbage if tls.is_none() => write!(
                f,
                "its answer to CONNECT {target} is not HTTP: is {setting} the port of an http:// proxy? One that wants TLS is given as https://{name}"
            ),
            Why::Garbage => {
                write!(f, "its answer to CONNECT {target} is not HTTP: is {setting} the port of an https:// proxy?")
            }
            Why::TooLong(status) => write!(
                f,
                "{}the head of its answer to CONNECT {target} has more than {MAX_HEAD} bytes or {MAX_FIELDS} fields",
                status.map(|status| format!("{status}: ")).unwrap_or_default()
            ),
            Why::Behind(cause) => write!(f, "it gave a tunnel to {target}, and no answer came through it: {cause}"),
        }
    }
}

impl std::error::Error for NoTunnel {}

/// A word behind a status.
struct Behind<'a>(&'a Option<String>);

impl fmt::Display for Behind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|word| write!(f, " {word}"))
    }
}

#[cfg(test)]
mod tests;
