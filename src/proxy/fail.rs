//! The one table of failures: whose it is, what the client is told.
//!
//! A phase that knows why a request fails gives a [`Trouble`] as its error ([`Trouble::into_error`]); of Pingora's own
//! errors [`Trouble::of`] makes one. Nothing else decides what a client is told of a failure.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use pingora_core::{Error, ErrorSource, ErrorType};
use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::refused::Refused;
use crate::access::Denial;
use crate::answer::is_page_of_another;
use crate::failure::Hop;
use crate::metrics::labels::Cause;
use crate::net::addresses::Way;
use crate::net::certificate::Wrong;
use crate::net::tunnel::NoTunnel;
use crate::token::Unavailable;
use oci::error::Code;
use oci::route::OnFailure;

/// Why an admitted request gets no answer of the registry's.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// More requests are under way than the limit allows.
    Busy,
    /// The client may not pull, or has done so too often.
    Denied(Denial),
    /// The request's `Connection` header lists a header that it may not.
    Malformed,
    /// No registry token: Entra's or the registry's fault.
    NoToken(Unavailable),
    /// The registry's name has never been resolved.
    Unresolved,
    /// The egress proxy gives no tunnel to the registry, or nothing comes through it.
    Egress(Arc<NoTunnel>),
    /// The registry answers 401 to a renewed token, about this.
    Unauthorized(Refused),
    /// It answers 5xx to all that is asked of it.
    Failing(StatusCode),
    /// It is known to be down, by this cause, and is not asked.
    Down(Arc<Self>),
    /// It has answered with 429 or 503 and wants a pause until then, and is not asked.
    Limited(StatusCode, Instant),
    /// It is not this request's turn within the time that it may wait, and will be so much later.
    Held(HeldBy, Duration),
    /// No connection to any address, one that broke before the response, or a response that is not HTTP.
    Unreachable(String),
    /// Connected, and no response in time.
    Silent,
    /// The registry's answer is not whole, also when it is asked again, or is not for clients: how that shows.
    Broken(&'static str),
    /// The same of a page for people, which nothing says that the registry has given.
    Page(&'static str),
    /// The registry has the blob, but it cannot be fetched from storage: the whole sentence.
    Storage(String),
    /// The same, by a status that clients act on.
    StorageSays {
        /// Its name.
        host: String,
        /// 429 or 503; 400 or 501 to several ranges.
        status: StatusCode,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The storage of this name does not respond in time.
    StorageSilent(String),
    /// A fault of this proxy's own.
    Internal(String),
}

/// What a request waits for that is to go to the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeldBy {
    /// A place among the flights to the registry.
    Queue,
    /// `limits.registry_reads_per_minute`.
    Budget,
}

impl Trouble {
    /// As an error of Pingora's, which ends the request in `fail_to_proxy`. It is not tried again.
    pub(crate) fn into_error(self) -> Box<Error> {
        let kind = ErrorType::HTTPStatus(self.answer().0.as_u16());
        let mut error = Error::because(kind, "the request fails", self).into_up();
        error.set_retry(false);
        error
    }

    /// Status, code, and `Retry-After` in seconds. A 5xx makes dockerd, containerd and podman turn to their next endpoint.
    /// The registry's 401 becomes 403: a 401 needs a challenge (RFC 9110 section 15.5.2), which the client could not solve.
    pub(crate) fn answer(&self) -> (StatusCode, Code, Option<u64>) {
        match self {
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, Some(1)),
            Self::Denied(denial) => {
                let (status, code, left) = denial.answer();
                (status, code, left.map(whole_seconds))
            }
            Self::Malformed => (StatusCode::BAD_REQUEST, Code::Unsupported, None),
            Self::NoToken(unavailable) => {
                (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, Some(unavailable.retry_after.as_secs().max(1)))
            }
            Self::Unresolved => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, Some(2)),
            Self::Failing(_) => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, Some(1)),
            Self::Down(cause) => (cause.answer().0, Code::Unavailable, Some(1)),
            Self::Limited(status, until) => {
                let code = match *status {
                    StatusCode::TOO_MANY_REQUESTS => Code::TooManyRequests,
                    _ => Code::Unavailable,
                };
                (*status, code, Some(whole_seconds(until.saturating_duration_since(Instant::now()))))
            }
            Self::Held(_, left) => (StatusCode::SERVICE_UNAVAILABLE, Code::TooManyRequests, Some(whole_seconds(*left))),
            Self::Unauthorized(_) => (StatusCode::FORBIDDEN, Code::Denied, None),
            Self::StorageSays { status, retry_after, .. } => {
                let code = match *status {
                    StatusCode::TOO_MANY_REQUESTS => Code::TooManyRequests,
                    StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
                    _ => Code::Unsupported,
                };
                (*status, code, retry_after.map(|pause| pause.as_secs()))
            }
            Self::Unreachable(_) | Self::Egress(_) | Self::Storage(_) | Self::Broken(_) | Self::Page(_) => {
                (StatusCode::BAD_GATEWAY, Code::Unavailable, None)
            }
            Self::Silent | Self::StorageSilent(_) => (StatusCode::GATEWAY_TIMEOUT, Code::Unavailable, None),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, None),
        }
    }

    /// Of an answer with this header, which cannot be used: how that shows.
    pub(crate) fn of_answer(headers: &HeaderMap, how: &'static str) -> Self {
        if is_page_of_another(headers) { Self::Page(how) } else { Self::Broken(how) }
    }

    /// The registry has said that the identity has no right to the repository, or none to a token of it.
    pub(crate) fn is_right_refused(&self) -> bool {
        match self {
            Self::NoToken(unavailable) => unavailable.is_repositorys,
            Self::Unauthorized(refused) => *refused == Refused::Right,
            _ => false,
        }
    }

    /// It comes from the registry, from the sign-in or from the way there, so an answer that is kept may be used instead.
    pub(crate) fn is_upstreams(&self) -> bool {
        match self {
            Self::NoToken(_) | Self::Unauthorized(_) => !self.is_right_refused(),
            Self::Unresolved
            | Self::Egress(_)
            | Self::Failing(_)
            | Self::Down(_)
            | Self::Limited(..)
            | Self::Held(..)
            | Self::Unreachable(_)
            | Self::Silent
            | Self::Broken(_)
            | Self::Page(_)
            | Self::Storage(_)
            | Self::StorageSays { .. }
            | Self::StorageSilent(_)
            | Self::Internal(_) => true,
            Self::Busy | Self::Denied(_) | Self::Malformed => false,
        }
    }

    /// Its name in `Cache-Status`.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::NoToken(_) => "no-token",
            Self::Unresolved => "unresolved",
            Self::Egress(_) => "egress",
            Self::Unauthorized(_) => "unauthorized",
            Self::Down(_) | Self::Failing(_) => "down",
            Self::Limited(..) => "limited",
            Self::Held(HeldBy::Queue, _) => "queue",
            Self::Held(HeldBy::Budget, _) => "budget",
            Self::Unreachable(_) => "unreachable",
            Self::Silent | Self::StorageSilent(_) => "silent",
            Self::Broken(_) => "broken",
            Self::Page(_) => "page",
            Self::Storage(_) | Self::StorageSays { .. } => "storage",
            Self::Busy | Self::Denied(_) | Self::Malformed | Self::Internal(_) => "fault",
        }
    }

    /// Its name in the metrics of a route; `None` of what is refused before a route is chosen, or is a mistake of the client's.
    pub(crate) fn cause(&self) -> Option<Cause> {
        Some(match self {
            Self::NoToken(_) => Cause::NoToken,
            Self::Unresolved => Cause::Unresolved,
            Self::Egress(_) => Cause::Egress,
            Self::Unauthorized(_) => Cause::Unauthorized,
            Self::Down(_) | Self::Failing(_) => Cause::Down,
            Self::Limited(..) => Cause::Limited,
            Self::Held(HeldBy::Queue, _) => Cause::Queue,
            Self::Held(HeldBy::Budget, _) => Cause::Budget,
            Self::Unreachable(_) => Cause::Unreachable,
            Self::Silent => Cause::Silent,
            Self::Broken(_) => Cause::Broken,
            Self::Page(_) => Cause::Page,
            Self::Storage(_) | Self::StorageSays { .. } | Self::StorageSilent(_) => Cause::Storage,
            Self::Internal(_) => Cause::Fault,
            Self::Busy | Self::Denied(_) | Self::Malformed => return None,
        })
    }

    /// It is the client's doing, and nobody else has to act on it.
    pub(crate) fn is_clients(&self) -> bool {
        matches!(self, Self::Denied(_) | Self::Malformed)
    }

    /// It concerns all that is asked of the registry, as far as can be told.
    pub(crate) fn is_registrys(&self) -> bool {
        match self {
            Self::Unresolved
            | Self::Egress(_)
            | Self::Failing(_)
            | Self::Down(_)
            | Self::Limited(..)
            | Self::Held(..)
            | Self::Unreachable(_) => true,
            Self::NoToken(Unavailable { failure, .. }) => {
                failure.as_ref().is_some_and(|failure| failure.hop != Hop::Token)
            }
            _ => false,
        }
    }

    /// There is no address to connect to: the registry's, or that of the proxy before it.
    pub(crate) fn unresolved(way: &Way) -> Self {
        way.unresolved().map_or(Self::Unresolved, |no_tunnel| Self::Egress(Arc::new(no_tunnel)))
    }

    /// The registry's id of the token call that failed.
    pub(crate) fn correlation(&self) -> Option<&HeaderValue> {
        match self {
            Self::NoToken(unavailable) => unavailable.failure.as_ref()?.correlation.as_ref(),
            _ => None,
        }
    }

    /// Why a call of this proxy's own has failed, which no client can be to blame for. `storage` as in [`Self::of`].
    pub(crate) fn of_call(error: &Error, storage: Option<&str>) -> Self {
        Self::of(error, storage).unwrap_or_else(|| Self::Internal(error.etype().as_str().to_owned()))
    }

    /// Why a request fails that ends with this error; `None` where the client is to blame, or has left. `storage` is the
    /// host that the registry has redirected to, if the request is on its way there.
    pub(crate) fn of(error: &Error, storage: Option<&str>) -> Option<Self> {
        if let Some(trouble) = error.root_cause().downcast_ref::<Self>() {
            return Some(trouble.clone());
        }
        if let Some(no_tunnel) = NoTunnel::of(error) {
            return Some(match storage {
                None => Self::Egress(Arc::new(no_tunnel.clone())),
                Some(host) => Self::Storage(format!("blob storage {host} is not reachable: {no_tunnel}")),
            });
        }
        match (error.esource(), error.etype(), storage) {
            // What is left for Pingora to refuse in a request that was parsed is what [`super::hop_by_hop`] refuses before.
            (ErrorSource::Downstream, ErrorType::InvalidHTTPHeader, _) => Some(Self::Malformed),
            (ErrorSource::Downstream, _, _) => None,
            (ErrorSource::Internal, _, _) | (_, ErrorType::InternalError, _) => Some(Self::Internal(reason(error))),
            (_, ErrorType::ReadTimedout | ErrorType::WriteTimedout, None) => Some(Self::Silent),
            (_, ErrorType::ReadTimedout | ErrorType::WriteTimedout, Some(host)) => {
                Some(Self::StorageSilent(host.to_owned()))
            }
            (_, _, None) => Some(Self::Unreachable(reason(error))),
            (_, _, Some(host)) => {
                Some(Self::Storage(format!("blob storage {host} is not reachable: {}", reason(error))))
            }
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("too many requests are under way"),
            Self::Denied(denial) => denial.fmt(f),
            Self::Malformed => f.write_str("the Connection header lists what it may not: more than 9 options, Host, X-Forwarded-*, or what is not a header's name"),
            Self::NoToken(Unavailable { failure: Some(failure), .. }) => write!(f, "no registry token: {failure}"),
            Self::NoToken(_) => f.write_str("no registry token yet: the sign-in is still under way"),
            Self::Unresolved => f.write_str("the registry's name is not resolved: check upstream.domain and this host's DNS"),
            Self::Unauthorized(refused) => write!(f, "the registry refuses a fresh token: {refused}"),
            Self::Egress(no_tunnel) => write!(f, "the registry is not reachable: {no_tunnel}"),
            Self::Failing(status) => write!(f, "the registry answers {}", status.as_u16()),
            Self::Down(cause) => write!(f, "the registry is known to be down, and is probed until it is back: {cause}"),
            Self::Limited(status, until) => {
                let left = whole_seconds(until.saturating_duration_since(Instant::now()));
                write!(f, "the registry limits requests ({}), and is not asked for another {left} s", status.as_u16())
            }
            Self::Held(HeldBy::Queue, _) => f.write_str("too many requests to the registry are under way"),
            Self::Held(HeldBy::Budget, _) => f.write_str("limits.registry_reads_per_minute is used up"),
            Self::Unreachable(cause) => write!(f, "the registry is not reachable: {cause}"),
            Self::Storage(words) => f.write_str(words),
            Self::StorageSays { host, status, .. } => {
                write!(f, "blob storage {host}: {} to the registry's redirect", status.as_u16())
            }
            Self::Silent => f.write_str("the registry does not answer in time"),
            Self::Broken(how) => write!(f, "the registry's answer cannot be used: {how}"),
            Self::Page(how) => write!(
                f,
                "the registry's answer cannot be used: {how}; it is a page for people: look for a sign-in or a filter between this host and the registry"
            ),
            Self::StorageSilent(host) => write!(f, "blob storage {host} does not answer in time"),
            Self::Internal(what) => write!(f, "this proxy failed: {what}"),
        }
    }
}

impl std::error::Error for Trouble {}

/// The status by which the client gets a response of the registry's. It is the registry's own, with one exception:
/// after a 429 for a manifest containerd asks six times at once, and podman waits half a minute. After a 503 both turn to their
/// next endpoint, as they should if there is one. A blob keeps its 429: by then podman has no other endpoint, and waits.
pub(crate) fn passed_on(status: StatusCode, endpoint: Endpoint, on_failure: OnFailure) -> StatusCode {
    match status {
        StatusCode::TOO_MANY_REQUESTS if endpoint.starts_pull() && on_failure == OnFailure::Fallback => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        status => status,
    }
}

/// As `Retry-After` has it: whoever comes back then is not too early.
fn whole_seconds(left: Duration) -> u64 {
    u64::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}

/// Pingora's error in a few words; never its whole text, which may quote what was on the wire.
pub(super) fn reason(error: &Error) -> String {
    let is_handshake = matches!(error.etype(), ErrorType::TLSHandshakeFailure | ErrorType::HandshakeError);
    if is_handshake && let Some(wrong) = Wrong::of_words(&error.to_string()) {
        return wrong.to_string();
    }
    let words = match error.etype() {
        ErrorType::ConnectRefused => "connection refused",
        ErrorType::ConnectNoRoute => "no route",
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => "no connection in time",
        ErrorType::TLSHandshakeFailure | ErrorType::HandshakeError => "TLS handshake failed",
        ErrorType::InvalidCert => "its certificate is not trusted",
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => "the connection broke",
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error => "its answer is not valid HTTP",
        other => other.as_str(),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests;
