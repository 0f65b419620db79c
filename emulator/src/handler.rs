//! One request: read, recorded, answered.

use std::future::pending;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::Response;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use crate::answer::Answer;
use crate::connection::Connection;
use crate::outcome::{NoAnswer, outcome};
use crate::payload::{Delivery, Payload, response};
use crate::query::pairs;
use crate::record::{Hop, Recorded, Server};
use crate::registry;
use crate::request::Request;
use crate::script::Script;
use crate::state::State;

/// The longest request body that is read; forms with tokens are a few kilobytes.
const LONGEST_BODY: usize = 256 * 1024;
/// The part of a request body that is recorded.
const RECORDED_BODY: usize = 64 * 1024;

/// Answers a request, or does to its connection what an injected fault asks for.
pub(crate) async fn handle(
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
    let hop = server.only_hop().unwrap_or_else(|| registry::hop(&request.path));
    let fault = state.faults.next(hop, &target);
    let outcome = if body.is_err() {
        Ok((Answer::new(413), Delivery::Whole))
    } else {
        outcome(fault, server, hop, &state, &request)
    };
    let status = outcome.as_ref().map_or(0, |(answer, _)| answer.status);
    state.journal.add(record(server, hop, &connection, &request, target, status));

    tokio::time::sleep(state.options.latency).await;
    match outcome {
        Ok((mut answer, delivery)) => {
            answer.set_header("Date", &crate::clock::http_date(state.clock.now()));
            match delivery {
                Delivery::Script(kind) => run(Script::new(kind, answer), &connection).await,
                delivery => Ok(response(answer, delivery, &connection)),
            }
        }
        Err(NoAnswer::Hang) => pending().await,
        Err(NoAnswer::Close) => Err(io::Error::other("closed by a fault")),
        Err(NoAnswer::Reset) => {
            connection.reset.notify_one();
            pending().await
        }
    }
}

/// Hands the connection over to a script, which ends it.
async fn run(script: Script, connection: &Connection) -> io::Result<Response<Payload>> {
    connection.script.give(script);
    pending().await
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
