//! What the text of a setting has to be. Each error says what would be right.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::domain::Domain;
use crate::value::{self, Form};
use oci::name::Prefix;
use oci::route::{Blobs, OnFailure, Source};

/// More than any machine has cores is a mistyped number.
const MAX_THREADS: usize = 512;

pub fn parse_threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ 1..=MAX_THREADS) => Ok(threads),
        _ => Err(format!("{text:?} is no number of threads: give one from 1 to {MAX_THREADS}")),
    }
}

/// Every request is answered within 28 s, and a registry that fetches an image needs some of them.
pub fn parse_token_wait(text: &str) -> Result<Duration, String> {
    parse_seconds(text, 1..=20, "time to wait for a token")
}

/// No balancer keeps an idle connection for more than an hour by default.
pub fn parse_client_keepalive(text: &str) -> Result<Duration, String> {
    parse_seconds(text, 1..=3600, "time to keep an idle connection")
}

/// Whole seconds, as `10s`; `noun` is what the setting is. The error says what would be right.
fn parse_seconds(text: &str, range: RangeInclusive<u64>, noun: &str) -> Result<Duration, String> {
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
    let meant = seconds.filter(within).map(|seconds| format!("{seconds}s; it may be ")).unwrap_or_default();
    Err(format!("{text:?} is no {noun}: give {meant}{}s to {}s", range.start(), range.end()))
}

pub fn parse_prefix(text: &str) -> Result<Prefix, String> {
    Prefix::parse(text).ok_or_else(|| {
        format!("{text:?} is no repository path: give the cache rule's target without its /*, lower case, no slash at its ends, such as hub")
    })
}

pub fn parse_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no IP address: give the registry's own, such as 10.0.0.5 or fd00::5"))
}

/// A registry alone, as `default` names it.
pub fn parse_registry(text: &str) -> Result<String, String> {
    match Source::parse(text) {
        Ok(source) if source.path().is_empty() => Ok(source.registry().to_owned()),
        _ => Err(format!("{text:?} is no registry: give the host of a route's source, such as docker.io")),
    }
}

pub fn parse_host(text: &str) -> Result<String, String> {
    match Domain::parse(text) {
        Ok(_) => Ok(text.to_ascii_lowercase()),
        Err(_) => Err(format!("{text:?} is no host: give what clients address, such as ghcr.mirror.internal")),
    }
}

pub fn parse_blob_host(text: &str) -> Result<String, String> {
    match Domain::parse(text.strip_prefix('.').unwrap_or(text)) {
        Ok(_) => Ok(text.to_ascii_lowercase()),
        Err(_) => Err(format!("{text:?} is no host of blobs: give a host, or a suffix such as .blob.internal")),
    }
}

pub fn parse_on_failure(text: &str) -> Result<OnFailure, String> {
    match text {
        "fallback" => Ok(OnFailure::Fallback),
        "closed" => Ok(OnFailure::Closed),
        _ => Err(format!("{text:?} is nothing to do on a failure: give fallback or closed")),
    }
}

pub fn parse_blobs(text: &str) -> Result<Blobs, String> {
    match text {
        "redirect" => Ok(Blobs::Redirect),
        "proxy" => Ok(Blobs::Proxy),
        _ => Err(format!("{text:?} is no way to serve blobs: give redirect or proxy")),
    }
}
/// Entra ID's address, as `https://login.microsoftonline.com/`, without the slash. The error says what would be right.
pub fn parse_authority(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").map(|rest| rest.trim_end_matches('/'));
    match host.and_then(|host| Domain::parse(host).ok()) {
        Some(domain) => Ok(format!("https://{}", domain.authority())),
        None => {
            Err(format!("{text:?} is no authority: give Entra ID's host, such as https://login.microsoftonline.com"))
        }
    }
}

/// A path, which is not empty; whether something is there is found out when it is read.
pub fn parse_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("is empty: name a file".to_owned()) } else { Ok(PathBuf::from(text)) }
}

/// An id of a tenant, an application or an identity.
pub fn parse_id(text: &str) -> Result<String, String> {
    not_empty(text, Form::Id)
}

/// An Azure resource id.
pub fn parse_resource(text: &str) -> Result<String, String> {
    not_empty(text, Form::Resource)
}

/// A file of a sign-in.
pub fn parse_file(text: &str) -> Result<PathBuf, String> {
    not_empty(text, Form::Line).map(PathBuf::from)
}

fn not_empty(text: &str, form: Form) -> Result<String, String> {
    match value::clean(text, form).map_err(|wrong| wrong.to_string())? {
        "" => Err("is empty".to_owned()),
        clean => Ok(clean.to_owned()),
    }
}
