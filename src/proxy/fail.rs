//! The one table of failures: whose it is, what the client is told.

use http::StatusCode;
use pingora_core::{Error, ErrorSource, ErrorType};
use pingora_proxy::{FailToProxy, Session};

use super::context::Context;
use super::reply::{self, Reply};
use crate::oci::error::{Code, Refusal};
use crate::route::OnFailure;
use crate::token::Unavailable;

/// Why a request that was accepted has no answer of the registry's.
#[derive(Debug)]
pub enum Trouble {
    /// No registry token: Entra's or the registry's fault.
    NoToken(Unavailable),
    /// The registry's name has never been resolved.
    Unresolved,
    /// The registry says 401 to a fresh token.
    Unauthorized,
    /// No connection to any address, or it broke before the answer.
    Unreachable(String),
    /// Connected, and no answer in time.
    Silent,
    /// The registry has the blob, and its storage does not give it; in whole words.
    Storage(String),
}

impl Trouble {
    /// What the client gets. The 5xx make dockerd, containerd and podman turn to their next endpoint; a 401 that is
    /// not the client's becomes 403, for a 401 without a challenge is no HTTP.
    pub fn reply(&self, session: &Session, context: &Context) -> Reply {
        let (status, code, seconds) = match self {
            Self::NoToken(unavailable) => {
                (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, Some(unavailable.retry_after.as_secs().max(1)))
            }
            Self::Unresolved => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, Some(2)),
            Self::Unauthorized => (StatusCode::FORBIDDEN, Code::Denied, None),
            Self::Unreachable(_) | Self::Storage(_) => (StatusCode::BAD_GATEWAY, Code::Unavailable, None),
            Self::Silent => (StatusCode::GATEWAY_TIMEOUT, Code::Unavailable, None),
        };
        let name = context.client_name(session.req_header().uri.path());
        let reply = Reply::refusal(&Refusal::new(status, code, self.to_string()).with_detail(name));
        let reply = reply.correlation(context.correlation.clone());
        match seconds {
            Some(seconds) => reply.retry_after(seconds),
            None => reply,
        }
    }

    fn of(error: &Error) -> Option<Self> {
        match (error.esource(), error.etype()) {
            (ErrorSource::Downstream, _) => None,
            (
                _,
                ErrorType::ReadTimedout
                | ErrorType::WriteTimedout
                | ErrorType::ConnectTimedout
                | ErrorType::TLSHandshakeTimedout,
            ) => Some(Self::Silent),
            _ => Some(Self::Unreachable(reason(error))),
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoToken(Unavailable { failure: Some(failure), .. }) => write!(f, "no registry token: {failure}"),
            Self::NoToken(_) => f.write_str("no registry token yet: the sign-in is still under way"),
            Self::Unresolved => f.write_str("the registry's name is not resolved: check upstream.domain and this host's DNS"),
            Self::Unauthorized => f.write_str(
                "the registry refuses a fresh token: the identity lacks AcrPull on this repository, the cache rule's credential set is unhealthy, or a firewall rule denies this host",
            ),
            Self::Unreachable(cause) => write!(f, "the registry is not reachable: {cause}"),
            Self::Storage(words) => write!(f, "the blob does not come: {words}"),
            Self::Silent => f.write_str("the registry does not answer in time"),
        }
    }
}

/// The status that a client is told of an answer of the registry's. It is the registry's own, with one exception:
/// containerd asks six times at once after a 429, and podman waits half a minute. After a 503 both turn to their next
/// endpoint, as they should where there is one. A blob keeps its 429, for podman has no other endpoint by then, and waits.
pub fn passed_on(status: StatusCode, endpoint: &str, on_failure: OnFailure) -> StatusCode {
    match status {
        StatusCode::TOO_MANY_REQUESTS if endpoint == "manifest" && on_failure == OnFailure::Fallback => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        status => status,
    }
}

/// Pingora's error in a few words; never its whole text, which may quote what was on the wire.
fn reason(error: &Error) -> String {
    let words = match error.etype() {
        ErrorType::ConnectRefused => "connection refused",
        ErrorType::ConnectNoRoute => "no route",
        ErrorType::TLSHandshakeFailure | ErrorType::HandshakeError => "TLS handshake failed",
        ErrorType::InvalidCert => "its certificate is not trusted: a private CA goes into ca_file",
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => "the connection broke",
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error => "its answer is no HTTP",
        other => other.as_str(),
    };
    words.to_owned()
}

/// `fail_to_proxy`: the answer, if the client can still have one. The client's own faults need none.
pub async fn answer(session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
    if context.trouble.is_none() {
        context.trouble = Trouble::of(error);
    }
    let began = session.response_written().is_some();
    let mut error_code = 0;
    if !began && let Some(trouble) = &context.trouble {
        let reply = trouble.reply(session, context);
        error_code = reply.status().as_u16();
        // Pingora ends the connection after a failure, and the client must not send its next request on it.
        session.set_keepalive(None);
        if reply::write(session, &reply).await.is_err() {
            error_code = 0;
        }
    }
    FailToProxy { error_code, can_reuse_downstream: false }
}
