//! A forward proxy, as it stands between a company's hosts and the internet: it speaks `CONNECT` as squid 5 does.
//!
//! Every name is on loopback for it: it connects to the port that is asked for. What goes through its tunnels it does not read.
//! It is spoken to in the clear, or over TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::certificates::Pair;
use crate::server::{acceptor, lock, read_head};

/// What the proxy does with a `CONNECT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Does {
    /// Connects to the target; if that fails, answers 503, as squid does.
    Tunnel,
    /// The same for whoever sends these credentials, `user:password` in base64, and 407 for all others.
    Wants(String),
    /// 407 for everybody, with schemes that are not Basic.
    WantsNegotiate,
    /// 403 with a page.
    Denies,
    /// 500, as squid 5 answers for a name that it does not find.
    CannotResolve,
    /// Reads the request, and never answers.
    Hangs,
    /// Reads the request, and closes the connection.
    Closes,
    /// Answers with bytes that are no HTTP.
    Garbage,
    /// Answers with a head that never ends.
    Endless,
    /// Gives the tunnel, and closes it at once.
    Cuts,
    /// Answers 204, which no tunnel follows.
    NoContent,
    /// Gives the tunnel, in which there is a page.
    Page,
}

/// A request that the proxy has got.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `CONNECT`, unless somebody has sent something that is not to be tunnelled.
    pub method: String,
    /// `host:port` of a `CONNECT`.
    pub target: String,
    /// The whole head.
    pub head: String,
}

/// A running forward proxy. Dropping it closes its listener and all tunnels.
pub struct ForwardProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: AbortHandle,
}

struct Shared {
    does: Mutex<Does>,
    asked: Mutex<Vec<Asked>>,
    /// The certificate for TLS; `None` speaks none.
    tls: Mutex<Option<TlsAcceptor>>,
    /// Changes when all tunnels are to close.
    cut: watch::Sender<u64>,
}

impl ForwardProxy {
    /// The same over TLS, with this certificate.
    pub async fn start_tls(pair: &Pair) -> Self {
        let proxy = Self::start().await;
        proxy.certify(pair);
        proxy
    }

    /// From now on it speaks TLS with this certificate on new connections.
    pub fn certify(&self, pair: &Pair) {
        *lock(&self.shared.tls) = Some(acceptor(pair));
    }

    /// Listens on loopback, at a port of the system's choice.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            does: Mutex::new(Does::Tunnel),
            asked: Mutex::default(),
            tls: Mutex::default(),
            cut: watch::Sender::new(0),
        });
        let server = tokio::spawn(serve(listener, Arc::clone(&shared))).abort_handle();
        Self { address, shared, server }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it does this with new requests.
    pub fn set(&self, does: Does) {
        *lock(&self.shared.does) = does;
    }

    /// Stops listening, and closes every connection.
    pub fn stop(&self) {
        self.server.abort();
    }

    /// Closes every tunnel.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|count| *count += 1);
    }

    /// What it was asked for, in the order in which it came.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }

    /// How often it was asked for a tunnel to this port.
    pub fn connects_to(&self, address: SocketAddr) -> usize {
        let end = format!(":{}", address.port());
        lock(&self.shared.asked).iter().filter(|asked| asked.target.ends_with(&end)).count()
    }
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let (tls, shared) = (lock(&shared.tls).clone(), Arc::clone(&shared));
                    connections.spawn(async move {
                        match tls {
                            None => connection(stream, shared).await,
                            // A client that does not trust the certificate ends its handshake.
                            Some(tls) => if let Ok(stream) = tls.accept(stream).await {
                                connection(stream, shared).await;
                            },
                        }
                    });
                }
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection: refusals leave it open for the next request, as HTTP/1.1 has it.
async fn connection<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, shared: Arc<Shared>) {
    let mut cut = shared.cut.subscribe();
    loop {
        let does = tokio::select! {
            does = request(&mut stream, &shared) => does,
            _ = cut.changed() => return,
        };
        let Some((does, target)) = does else { return };
        let outcome = tokio::select! {
            outcome = answer(&mut stream, does, &target) => outcome,
            _ = cut.changed() => return,
        };
        match outcome {
            Outcome::Next => {}
            Outcome::Over => return,
            Outcome::Tunnel(mut other) => {
                tokio::select! {
                    _ = copy_bidirectional(&mut stream, &mut other) => {}
                    _ = cut.changed() => {}
                }
                return;
            }
        }
    }
}

enum Outcome {
    /// The connection is there for another request.
    Next,
    Over,
    Tunnel(TcpStream),
}

/// Reads a request's head, and says what is to be done with it.
async fn request<S: AsyncRead + Unpin>(stream: &mut S, shared: &Shared) -> Option<(Does, String)> {
    let head = read_head(stream).await?;
    let mut words = head.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut does = lock(&shared.does).clone();
    if let Does::Wants(credentials) = &does {
        let wanted = format!("\r\nproxy-authorization: basic {credentials}\r\n").to_ascii_lowercase();
        if head.to_ascii_lowercase().contains(&wanted) {
            does = Does::Tunnel;
        }
    }
    lock(&shared.asked).push(Asked { method, target: target.clone(), head });
    Some((does, target))
}

async fn answer<S: AsyncWrite + Unpin>(stream: &mut S, does: Does, target: &str) -> Outcome {
    match does {
        Does::Tunnel => {
            let port = target.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
            let connected = match port {
                Some(port) => TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok(),
                None => None,
            };
            match connected {
                Some(other) => {
                    let _ = other.set_nodelay(true);
                    // squid says no more than that.
                    send(stream, b"HTTP/1.1 200 Connection established\r\n\r\n", Outcome::Tunnel(other)).await
                }
                None => refuse(stream, "503 Service Unavailable", "ERR_CONNECT_FAIL 111", "").await,
            }
        }
        Does::Wants(_) => {
            let challenge = "Proxy-Authenticate: Basic realm=\"Squid proxy-caching web server\"\r\n";
            refuse(stream, "407 Proxy Authentication Required", "ERR_CACHE_ACCESS_DENIED 0", challenge).await
        }
        Does::WantsNegotiate => {
            let challenges = "Proxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n";
            refuse(stream, "407 Proxy Authentication Required", "ERR_CACHE_ACCESS_DENIED 0", challenges).await
        }
        Does::Denies => refuse(stream, "403 Forbidden", "ERR_ACCESS_DENIED 0", "").await,
        Does::CannotResolve => refuse(stream, "500 Internal Server Error", "ERR_CANNOT_FORWARD 0", "").await,
        Does::Hangs => std::future::pending().await,
        Does::Closes => Outcome::Over,
        Does::Garbage => send(stream, b"\x15\x03\x01\x00\x02\x02\x46", Outcome::Over).await,
        Does::NoContent => send(stream, b"HTTP/1.1 204 No Content\r\n\r\n", Outcome::Over).await,
        Does::Page => {
            send(stream, b"HTTP/1.1 200 OK\r\n\r\n<html>page of the forward proxy</html>", Outcome::Over).await
        }
        Does::Endless => {
            let mut line: &[u8] = b"HTTP/1.1 200 Connection established\r\n";
            while stream.write_all(line).await.is_ok() {
                line = b"X-Filler: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n";
            }
            Outcome::Over
        }
        Does::Cuts => send(stream, b"HTTP/1.1 200 Connection established\r\n\r\n", Outcome::Over).await,
    }
}

/// A refusal with squid's headers and a page, whose text nobody may take for what the registry says.
async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, status: &str, error: &str, headers: &str) -> Outcome {
    let page = "<!DOCTYPE html><html><body><h1>ERROR</h1><p>The page of the forward proxy.</p></body></html>\n";
    let answer = format!(
        "HTTP/1.1 {status}\r\nServer: squid/5.7\r\nMime-Version: 1.0\r\nContent-Type: text/html;charset=utf-8\r\n\
         Content-Length: {}\r\nX-Squid-Error: {error}\r\nVary: Accept-Language\r\nContent-Language: en\r\n{headers}\
         X-Cache: MISS from forward\r\nVia: 1.1 forward (squid/5.7)\r\nConnection: keep-alive\r\n\r\n{page}",
        page.len()
    );
    send(stream, answer.as_bytes(), Outcome::Next).await
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8], then: Outcome) -> Outcome {
    let sent = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    match sent.await {
        Ok(()) => then,
        Err(_) => Outcome::Over,
    }
}
