//! The accept loop of one server, and the way of a request through it.

use std::future::pending;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::answer::{Answer, Delivery, Payload};
use crate::connection::{Connection, Wire, reset};
use crate::fault::Fault;
use crate::record::{Hop, Recorded, Server};
use crate::script::{Kind, Script};
use crate::state::State;
use crate::token::Expiry;
use crate::{entra, identity, registry, storage};

/// The longest request body that is read; forms with tokens are a few kilobytes.
const LONGEST_BODY: usize = 256 * 1024;
/// The part of a request body that is recorded.
const RECORDED_BODY: usize = 64 * 1024;

/// A request that has been read.
pub(crate) struct Request {
    pub(crate) method: Method,
    /// The path, percent-decoded once, as the registry's own router does.
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    /// All values of a header.
    pub(crate) fn header_values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        value(&self.query, name)
    }

    /// The body as a form.
    pub(crate) fn form(&self) -> Vec<(String, String)> {
        pairs(&self.body)
    }

    pub(crate) fn is_read(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }
}

/// The first value of a field.
pub(crate) fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn pairs(encoded: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(encoded).into_owned().collect()
}

/// Serves one listener until its task is aborted, which closes all its connections.
pub(crate) async fn serve(listener: TcpListener, server: Server, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, server, tls.clone(), Arc::clone(&state)));
                }
                // Out of file descriptors, for one: others may still be served meanwhile.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, server: Server, tls: Option<TlsAcceptor>, state: Arc<State>) {
    if state.is_refusing(server) || sole_hop(server).is_some_and(|hop| state.faults.refuses(hop)) {
        return reset(stream);
    }
    let mut closing = state.closing(server);
    // Small answers must not wait for the acknowledgement of the ones before.
    let _ = stream.set_nodelay(true);
    let connection = Arc::new(Connection::new(state.next_connection()));
    let wire = match tls {
        None => Wire::plain(stream, Arc::clone(&connection)),
        Some(tls) => tokio::select! {
            accepted = tls.accept(stream) => match accepted {
                Ok(stream) => Wire::tls(stream, Arc::clone(&connection)),
                Err(_) => return,
            },
            _ = closing.changed() => return,
        },
    };
    let service = service_fn(|request| handle(request, server, Arc::clone(&state), Arc::clone(&connection)));
    let mut serving = http1::Builder::new().title_case_headers(true).serve_connection(TokioIo::new(wire), service);
    let script = tokio::select! {
        biased;
        _ = &mut serving => return,
        () = connection.reset.notified() => None,
        script = connection.script.taken() => Some(script),
        _ = closing.changed() => return,
    };
    let wire = serving.into_parts().io.into_inner();
    match script {
        None => wire.reset(),
        Some(script) => tokio::select! {
            () = script.play(wire) => {}
            _ = closing.changed() => {}
        },
    }
}

/// The hop of a server that serves one alone.
fn sole_hop(server: Server) -> Option<Hop> {
    match server {
        Server::Entra => Some(Hop::Entra),
        Server::Storage => Some(Hop::Storage),
        Server::Identity => Some(Hop::Imds),
        Server::Registry => None,
    }
}

async fn handle(
    request: hyper::Request<Incoming>,
    server: Server,
    state: Arc<State>,
    connection: Arc<Connection>,
) -> io::Result<Response<Payload>> {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let body = Limited::new(body, LONGEST_BODY).collect().await.map(|body| body.to_bytes());
    let request = Request {
        method: head.method,
        path: percent_decode_str(head.uri.path()).decode_utf8_lossy().into_owned(),
        query: pairs(head.uri.query().unwrap_or_default().as_bytes()),
        headers: head.headers,
        body: body.as_ref().map(Bytes::clone).unwrap_or_default(),
    };
    let hop = sole_hop(server).unwrap_or_else(|| registry::hop(&request.path));
    let fault = state.faults.next(hop, &target);
    let outcome = if body.is_err() {
        Ok((Answer::new(413), Delivery::Whole))
    } else {
        decide(fault, server, hop, &state, &request)
    };
    let status = outcome.as_ref().map_or(0, |(answer, _)| answer.status);
    state.journal.add(record(server, hop, &connection, &request, target, status));

    tokio::time::sleep(state.options.latency).await;
    match outcome {
        Ok((mut answer, delivery)) => {
            answer.set_header("Date", &crate::clock::http_date(state.clock.now()));
            match delivery {
                Delivery::Script(kind) => play(Script::new(kind, answer), &connection).await,
                delivery => Ok(answer.into_response(delivery, &connection)),
            }
        }
        Err(Silence::Hang) => pending().await,
        Err(Silence::Close) => Err(io::Error::other("closed by a fault")),
        Err(Silence::Reset) => {
            connection.reset.notify_one();
            pending().await
        }
    }
}

/// What hyper would not write takes the connection over.
async fn play(script: Script, connection: &Connection) -> io::Result<Response<Payload>> {
    connection.script.give(script);
    pending().await
}

/// A request that gets no answer.
enum Silence {
    Hang,
    Close,
    Reset,
}

fn decide(
    fault: Option<Fault>,
    server: Server,
    hop: Hop,
    state: &State,
    request: &Request,
) -> Result<(Answer, Delivery), Silence> {
    let right = |expiry| match server {
        Server::Entra => entra::answer(state, request, expiry),
        Server::Registry => registry::answer(state, request, expiry),
        Server::Storage => storage::answer(state, request),
        Server::Identity => identity::answer(state, request, expiry),
    };
    let Some(fault) = fault else {
        return Ok((right(Expiry::Stated), Delivery::Whole));
    };
    let whole = |answer| Ok((answer, Delivery::Whole));
    match fault {
        Fault::Status(status) => whole(failure(state, hop, status, request)),
        Fault::StatusWith { status, headers, body } => {
            let answer = Answer::new(status).body(body);
            let answer = headers.iter().fold(answer, |answer, (name, value)| answer.header(name, value));
            let (is_chunked, is_last) = (answer.has("transfer-encoding"), answer.has("connection"));
            let answer = if is_chunked || is_last { answer.chunked() } else { answer };
            Ok((answer, if is_last { Delivery::UntilClose } else { Delivery::Whole }))
        }
        Fault::RefuseConnections => Err(Silence::Reset),
        Fault::ResetMidBody => Ok((right(Expiry::Stated), Delivery::Reset)),
        Fault::Hang => Err(Silence::Hang),
        Fault::GarbageJson => whole(
            Answer::new(200)
                .header("Content-Type", "application/json; charset=utf-8")
                .body("{\"access_token\":\"eyJ, \"refresh_token\":"),
        ),
        Fault::HugeBody => {
            Ok((Answer::new(200).header("Content-Type", "application/json; charset=utf-8"), Delivery::Huge))
        }
        Fault::SlowDrip => Ok((right(Expiry::Stated), Delivery::Drip)),
        Fault::WrongContentType => {
            let mut answer = right(Expiry::Stated);
            answer.set_header("Content-Type", "text/html");
            whole(answer)
        }
        Fault::TokenWithoutExp => whole(right(Expiry::Unstated)),
        Fault::TokenExpired => whole(right(Expiry::Past)),
        Fault::DieBeforeResponse => Err(Silence::Close),
        Fault::CutBody(after) => Ok((right(Expiry::Stated), Delivery::Cut(after))),
        Fault::Challenge401 => whole(registry::challenge(state, request)),
        Fault::Chunked => whole(right(Expiry::Stated).chunked()),
        Fault::UntilClose => Ok((right(Expiry::Stated).chunked(), Delivery::UntilClose)),
        Fault::Gzip => whole(right(Expiry::Stated).gzip()),
        Fault::PauseMidBody(pause) => Ok((right(Expiry::Stated), Delivery::Pause(pause))),
        Fault::DripHead => Ok((right(Expiry::Stated), Delivery::Script(Kind::DripHead))),
        Fault::Interim(status) => Ok((right(Expiry::Stated), Delivery::Script(Kind::Interim(status)))),
        Fault::InterimThenClose(status) => {
            Ok((right(Expiry::Stated), Delivery::Script(Kind::InterimThenClose(status))))
        }
        Fault::InterimForever(status) => Ok((right(Expiry::Stated), Delivery::Script(Kind::InterimForever(status)))),
        Fault::SwitchProtocols => Ok((right(Expiry::Stated), Delivery::Script(Kind::SwitchProtocols))),
    }
}

/// The error that a hop would give with a status.
fn failure(state: &State, hop: Hop, status: u16, request: &Request) -> Answer {
    match hop {
        Hop::Entra => entra::failure(state, status),
        Hop::Imds => identity::failure(status),
        Hop::Exchange | Hop::Token | Hop::Data => registry::failure(state, status, request),
        Hop::Storage => storage::failure(state, status),
    }
}

fn record(
    server: Server,
    hop: Hop,
    connection: &Connection,
    request: &Request,
    target: String,
    status: u16,
) -> Recorded {
    let body = &request.body[..request.body.len().min(RECORDED_BODY)];
    Recorded {
        server,
        hop,
        connection: connection.id,
        method: request.method.to_string(),
        target,
        headers: request
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect(),
        body: String::from_utf8_lossy(body).into_owned(),
        status,
    }
}

/// The `Host` that a client used, which Entra compares with the audience of assertions.
pub(crate) fn host(request: &Request) -> &str {
    request.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}
