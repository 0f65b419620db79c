//! What the text of a setting has to be. An error says what is wrong and what to use instead, in one of two forms:
//! `unknown value "x": use a or b` where there is a list of values, `"x" is not a source: use ...` everywhere else.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::domain::Domain;
use crate::value::{self, Form};
use oci::name::Prefix;
use oci::route::{Blobs, OnFailure, Source};

/// More threads than any machine has cores are a mistyped number.
const MAX_THREADS: usize = 512;
/// A value with no text in it, such as `''`.
const EMPTY: &str = "is empty: set a value, or remove the key";

pub(crate) fn parse_threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ 1..=MAX_THREADS) => Ok(threads),
        _ => Err(format!("{text:?} is not a number of threads: use a number from 1 to {MAX_THREADS}")),
    }
}

/// At most 20 s: a request is answered within 28 s, and the registry needs the rest to fetch an image itself.
pub(crate) fn parse_token_wait(text: &str) -> Result<Duration, String> {
    parse_seconds(text, 1..=20)
}

/// At most an hour: no load balancer keeps an idle connection for longer by default.
pub(crate) fn parse_client_keepalive(text: &str) -> Result<Duration, String> {
    parse_seconds(text, 1..=3600)
}

/// Whole seconds, as `10s`. The error shows the right form of a time that has another.
fn parse_seconds(text: &str, range: RangeInclusive<u64>) -> Result<Duration, String> {
    let within = |seconds: &u64| range.contains(seconds);
    if let Some(seconds) = text.strip_suffix('s').and_then(|seconds| seconds.parse().ok()).filter(within) {
        return Ok(Duration::from_secs(seconds));
    }
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = number.parse::<u64>().ok().and_then(|number| match unit.trim() {
        "" | "s" | "S" | "sec" | "secs" | "second" | "seconds" => Some(number),
        "m" | "min" | "minute" | "minutes" => number.checked_mul(60),
        _ => None,
    });
    let (first, last) = (range.start(), range.end());
    let right = match seconds.filter(within) {
        Some(seconds) => format!("{seconds}s"),
        None => format!("whole seconds, such as {last}s"),
    };
    Err(format!("{text:?} is not a time from {first}s to {last}s: use {right}"))
}

pub(crate) fn parse_prefix(text: &str) -> Result<Prefix, String> {
    Prefix::parse(text).ok_or_else(|| {
        format!("{text:?} is not a repository path: use the cache rule's target without its /*, in lower case and without a slash at either end, such as hub")
    })
}

pub(crate) fn parse_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is not an IP address: use one of the registry's addresses, such as 10.0.0.5 or fd00::5")
    })
}

/// A registry alone, as `default` names it.
pub(crate) fn parse_registry(text: &str) -> Result<String, String> {
    match Source::parse(text) {
        Ok(source) if source.path().is_empty() => Ok(source.registry().to_owned()),
        _ => Err(format!("{text:?} is not a registry: use the registry of a route's source, such as docker.io")),
    }
}

pub(crate) fn parse_host(text: &str) -> Result<String, String> {
    match Domain::parse(text) {
        Ok(_) => Ok(text.to_ascii_lowercase()),
        Err(_) => Err(format!(
            "{text:?} is not a host: use a name by which clients reach the proxy, such as ghcr.mirror.internal"
        )),
    }
}

pub(crate) fn parse_blob_host(text: &str) -> Result<String, String> {
    match Domain::parse(text.strip_prefix('.').unwrap_or(text)) {
        Ok(_) => Ok(text.to_ascii_lowercase()),
        Err(_) => Err(format!(
            "{text:?} is not a host of blobs: use a host, or a suffix with a dot in front, such as .blobs.internal"
        )),
    }
}

pub(crate) fn parse_on_failure(text: &str) -> Result<OnFailure, String> {
    match text {
        "fallback" => Ok(OnFailure::Fallback),
        "closed" => Ok(OnFailure::Closed),
        _ => Err(format!("unknown value {text:?}: use fallback or closed")),
    }
}

pub(crate) fn parse_blobs(text: &str) -> Result<Blobs, String> {
    match text {
        "redirect" => Ok(Blobs::Redirect),
        "proxy_config" => Ok(Blobs::ProxyConfig),
        "proxy" => Ok(Blobs::Proxy),
        _ => Err(format!("unknown value {text:?}: use redirect, proxy_config or proxy")),
    }
}

/// Entra ID's address, as `https://login.microsoftonline.com/`; the slash is removed.
pub(crate) fn parse_authority(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").map(|rest| rest.trim_end_matches('/'));
    match host.and_then(|host| Domain::parse(host).ok()) {
        Some(domain) => Ok(format!("https://{}", domain.authority())),
        None => Err(format!(
            "{text:?} is not an address of Entra ID: use https:// and its host, such as https://login.microsoftonline.com"
        )),
    }
}

/// A path. Whether a file is there shows when it is read.
pub(crate) fn parse_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err(EMPTY.to_owned()) } else { Ok(PathBuf::from(text)) }
}

/// An id of a tenant, an application or an identity.
pub(crate) fn parse_id(text: &str) -> Result<String, String> {
    not_empty(text, Form::Id)
}

/// An Azure resource id.
pub(crate) fn parse_resource(text: &str) -> Result<String, String> {
    not_empty(text, Form::Resource)
}

/// A file of a sign-in.
pub(crate) fn parse_file(text: &str) -> Result<PathBuf, String> {
    not_empty(text, Form::Line).map(PathBuf::from)
}

fn not_empty(text: &str, form: Form) -> Result<String, String> {
    match value::clean(text, form).map_err(|wrong| wrong.to_string())? {
        "" => Err(EMPTY.to_owned()),
        clean => Ok(clean.to_owned()),
    }
}
