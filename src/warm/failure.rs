//! Why an image is not warm: the hop, the request, what to do, and the cause.

use std::fmt;

use http::{HeaderMap, Method, StatusCode};
use oci::quote::{quoted, registry_error};
use rustls::AlertDescription;

use crate::answer::with_causes;
use crate::net::certificate::{Wrong, of_tls};

/// What a listener for TLS answers to plain HTTP.
const NEEDS_TLS: &str = "this port speaks TLS";

/// Whom a request is for.
#[derive(Clone, Debug)]
pub(super) enum Hop {
    /// By its address.
    Proxy(String),
    Storage {
        host: String,
        /// The proxy had the signed address from an earlier request.
        is_kept: bool,
    },
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy(url) => write!(f, "proxy {url}"),
            Self::Storage { host, .. } => write!(f, "blob storage {host}"),
        }
    }
}

/// One sentence, without the image's name.
#[derive(Debug)]
pub(super) struct Failure {
    /// The hop and the request.
    at: String,
    /// Why the request is not sent again.
    given_up: Option<String>,
    /// What to do, and the cause.
    sentence: String,
    lasts: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.at)?;
        if let Some(why) = &self.given_up {
            write!(f, "{why}: ")?;
        }
        f.write_str(&self.sentence)
    }
}

impl Failure {
    fn new(hop: &Hop, request: &str, sentence: String) -> Self {
        Self { at: format!("{hop}: {request}"), given_up: None, sentence, lasts: false }
    }

    /// The request is not sent again, for this reason.
    pub(super) fn give_up(&mut self, why: String) {
        self.given_up = Some(why);
    }

    /// The same request fails in the same way until somebody has done something about it.
    pub(super) fn lasts(&self) -> bool {
        self.lasts
    }

    /// The content is not what was asked for.
    pub(super) fn content(hop: &Hop, request: &str, what: impl fmt::Display) -> Self {
        Self::new(hop, request, what.to_string())
    }

    /// A success without the content, which neither the proxy nor storage answers.
    pub(super) fn intercepted(hop: &Hop, request: &str, what: impl fmt::Display) -> Self {
        let advice = match hop {
            Hop::Proxy(_) => {
                "this is not the image's content: look for what has answered in the place of storage or the proxy, such as a firewall, a forward proxy or a sign-in page"
            }
            Hop::Storage { .. } => {
                "this is not the image's content: look for what has answered between this host and storage, such as a firewall, a forward proxy or a sign-in page, or leave storage out with --layers head"
            }
        };
        Self::new(hop, request, format!("{advice}: {what}"))
    }

    /// There is no answer.
    pub(super) fn unreachable(hop: &Hop, request: &str, cause: reqwest::Error) -> Self {
        let cause = cause.without_url();
        let advice = match hop {
            Hop::Proxy(_) if let Some(advice) = of_tls(&cause).and_then(tls_advice) => advice,
            Hop::Storage { .. } if of_tls(&cause).is_some_and(is_of_unknown_ca) => {
                "its certificate is not trusted: name its CA with --ca-file, or leave storage out with --layers head"
            }
            _ if cause.is_timeout() && !cause.is_connect() => "no answer in time",
            Hop::Proxy(_) if cause.is_timeout() => "no connection in time: start it, or name another one with --via",
            Hop::Proxy(_) if cause.is_connect() => "start it, or name another one with --via",
            Hop::Storage { .. } if cause.is_connect() => {
                "no connection: check this host's way to it, and its CA, or leave storage out with --layers head"
            }
            _ => "the connection broke",
        };
        let lasts = Wrong::of_error(&cause).is_some();
        Self { lasts, ..Self::new(hop, request, format!("{advice}: {}", with_causes(&cause))) }
    }

    /// The answer is an error.
    pub(super) fn refused(hop: &Hop, request: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let (code, message) = registry_error(body, &[]);
        let needs_tls = matches!(hop, Hop::Proxy(_)) && message.as_deref().is_some_and(|it| it.contains(NEEDS_TLS));
        let storage =
            headers.get("x-ms-error-code").and_then(|code| code.to_str().ok()).and_then(|code| quoted(code, &[]));
        let mut cause = status.as_u16().to_string();
        if let Some(code) = code.as_ref().or(storage.as_ref()) {
            cause = format!("{cause} {code}");
        }
        if let Some(message) = message {
            cause = format!("{cause}: {message}");
        }
        let advice = if needs_tls { "give --via as https://" } else { advice(hop, status, code.as_deref()) };
        Self::new(hop, request, format!("{advice}: {cause}"))
    }
}

/// Nobody who is trusted has signed the certificate.
fn is_of_unknown_ca(fault: &rustls::Error) -> bool {
    Wrong::of_error(fault) == Some(Wrong::UnknownIssuer)
}

/// What to do about a fault of TLS with the proxy.
fn tls_advice(fault: &rustls::Error) -> Option<&'static str> {
    match fault {
        fault if is_of_unknown_ca(fault) => Some("its certificate is not trusted: name its CA with --ca-file"),
        rustls::Error::InvalidCertificate(wrong) => Some(match Wrong::of(wrong) {
            Wrong::VersionOne => "its certificate is one of X.509 version 1: issue it there with extensions",
            Wrong::OfAuthority => "its certificate is a CA's own: issue another one for it there, with CA:FALSE",
            _ => "its certificate is not trusted: correct it there",
        }),
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            Some("it asks for a certificate: present one with --certificate and --key")
        }
        rustls::Error::AlertReceived(
            AlertDescription::UnknownCA | AlertDescription::BadCertificate | AlertDescription::CertificateExpired,
        ) => Some("it does not take the certificate of --certificate: see its log"),
        rustls::Error::InvalidMessage(_) => Some("what answers speaks no TLS: give --via as http://"),
        _ => None,
    }
}

/// What to do about an error of this status and code.
fn advice(hop: &Hop, status: StatusCode, code: Option<&str>) -> &'static str {
    match (hop, status.as_u16()) {
        (Hop::Storage { .. }, 404) => {
            "storage does not have the blob, which the registry says it has: run it again later, and if that does not help, look in the registry whether the image can be pulled from there"
        }
        // The proxy does not see this answer, and gives out the same address for as long as it keeps it.
        (Hop::Storage { is_kept: true, .. }, 403) => {
            "the signed address is not good any more: have the proxy forget the image without its tag, by POST /cache/purge of its admin listener, and run it again"
        }
        (Hop::Storage { is_kept: false, .. }, 403) => {
            "storage refuses an address that the registry has just signed: check the network rules between this host and storage, or leave storage out with --layers head"
        }
        (Hop::Storage { .. }, _) => "run it again later, or leave storage out with --layers head",
        (_, 404) if code == Some("NAME_UNKNOWN") => "check the image's name and the proxy's routes",
        (_, 404) => "check the image's name and tag",
        (_, 401) => "what is there asks for a sign-in, which this proxy does not: name the proxy with --via",
        (_, 424) => "the source of the cache rule failed: run it again later",
        (_, 429) => "too many requests: run it again in a minute",
        (_, 300..=399) => "a redirect where none is expected: name the proxy with --via",
        _ => "see the proxy's log and its /readyz",
    }
}

/// A request in a sentence, without its query, which may hold a signature.
pub(super) fn request(method: &Method, path: &str) -> String {
    format!("{method} {}", path.split('?').next().unwrap_or_default())
}
