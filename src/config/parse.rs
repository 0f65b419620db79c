//! What the text of a setting has to be. An error says what is wrong and what to use instead, in one of two forms:
//! `unknown value "x": use a or b` where there is a list of values, `"x" is not a source: use ...` everywhere else.

use std::fmt::Display;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::credential;
use super::domain::Domain;
use crate::access::Share;
use crate::logger::Format;
use crate::value::{self, Form};
use oci::name::Prefix;
use oci::route::{Blobs, OnFailure, Source};

/// A minute, an hour and a day in seconds.
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// Whoever wants the same image for longer than a day names it by its digest.
pub(crate) const MAX_TAGS: u64 = DAY;
/// A right to pull that was revoked ends after a day at the latest.
pub(crate) const MAX_MANIFESTS: u64 = DAY;
/// What was missing is often pushed or imported a moment later.
pub(crate) const MAX_MISSING: u64 = 10 * MINUTE;
/// The signature in a redirect is good for 20 minutes, and a client needs some of them.
pub(crate) const MAX_REDIRECTS: u64 = 15 * MINUTE;
/// Who lists tags looks for new ones.
pub(crate) const MAX_LISTS: u64 = HOUR;
/// An outage of more than a day is an occasion to look at what is being pulled.
pub(crate) const MAX_STALE: u64 = DAY;
/// Less than some two hundred manifests is a mistyped unit.
const MIN_MEMORY: u64 = 1 << 20;
/// More than any registry's manifests need is a mistyped unit.
const MAX_MEMORY: u64 = 64 << 30;
/// Less than the headers of some clients with a token have is a mistyped unit.
const MIN_HEADER: u64 = 4 << 10;
/// Half of what Pingora takes.
const MAX_HEADER: u64 = 512 << 10;
/// One read a second: a pull takes about twelve.
const MIN_READS: NonZeroU32 = NonZeroU32::new(60).expect("not zero");
/// Ten times what Azure allows an identity in a Premium registry; beyond that it is no limit.
const MAX_READS: NonZeroU32 = NonZeroU32::new(100_000).expect("not zero");
/// Fewer connections than one host that pulls has open are a mistyped number.
const MIN_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");
/// More than a process may have file descriptors on any host that is not tuned for it.
const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(1_000_000).expect("not zero");
/// Beyond these it is no limit of one client's.
const MAX_CLIENT_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");
/// More than there are places for requests in all, so it is as good as `off`.
const MAX_CLIENT_CONCURRENT_REQUESTS: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");
const MAX_CLIENT_REQUESTS: NonZeroU32 = NonZeroU32::new(100_000).expect("not zero");
const MAX_BURST: NonZeroU32 = NonZeroU32::new(1_000_000).expect("not zero");
/// A client on a link of 1 Mbit/s takes that.
const MAX_READER_RATE: NonZeroU32 = NonZeroU32::new(100_000).expect("not zero");
/// The busiest mirror has some lines a minute left.
const MAX_SAMPLE: NonZeroU32 = NonZeroU32::new(1_000_000).expect("not zero");
/// More threads than any machine has cores are a mistyped number.
const MAX_THREADS: usize = 512;
/// What may stand in place of a number that is a limit.
const OFF: &str = "off, or ";
/// A value with no text in it, such as `''`.
const EMPTY: &str = "is empty: set a value, or remove the key";

pub(crate) fn parse_threads(text: &str) -> Result<usize, String> {
    parse_number(text, "threads", "", 1..=MAX_THREADS)
}

/// `off`. A tool that reads YAML 1.1 takes it for `false`, and writes that.
pub(crate) fn is_off(text: &str) -> bool {
    text == "off" || text.eq_ignore_ascii_case("false")
}

/// At most 20 s: a request is answered within 28 s, and the registry needs the rest to fetch an image itself.
pub(crate) fn parse_token_wait(text: &str) -> Result<Duration, String> {
    parse_time(text, 1..=20)
}

/// At most an hour: no load balancer keeps an idle connection for longer by default.
pub(crate) fn parse_client_keepalive(text: &str) -> Result<Duration, String> {
    parse_time(text, 1..=HOUR)
}

/// At most two minutes: TCP gives up a connection on which a packet is lost again and again later than that, and no client
/// takes longer.
pub(crate) fn parse_header_time(text: &str) -> Result<Duration, String> {
    parse_time(text, 1..=2 * MINUTE)
}

/// At most five minutes: no balancer takes longer to look at its instances.
pub(crate) fn parse_notice(text: &str) -> Result<Duration, String> {
    parse_time(text, 0..=5 * MINUTE)
}

/// At most an hour: no layer takes longer.
pub(crate) fn parse_drain(text: &str) -> Result<Duration, String> {
    parse_time(text, 1..=HOUR)
}

/// How long a fault is no reason to tell anybody.
pub(crate) fn parse_lasting(text: &str) -> Result<Duration, String> {
    parse_time(text, 1..=DAY)
}

/// A program or an argument. No argument holds the end of a text.
pub(crate) fn parse_word(text: &str) -> Result<String, String> {
    match text {
        "" => Err(EMPTY.to_owned()),
        text if text.contains('\0') => Err("no argument of a program holds a NUL: leave it out".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// How long an answer is kept: from nothing to so many seconds. `ms` are for trials whose time is compressed.
pub(crate) fn parse_lifetime<const MAX: u64>(text: &str) -> Result<Duration, String> {
    match number_and_unit(text) {
        (Some(number), "ms") if number <= MAX * 1000 => Ok(Duration::from_millis(number)),
        _ => parse_time(text, 0..=MAX),
    }
}

/// A whole number of seconds, minutes or hours, as `10s`, `5m` and `1h`. The error shows the right form of a time that has
/// another.
fn parse_time(text: &str, range: RangeInclusive<u64>) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text);
    let seconds = |scale: u64| number.and_then(|number| number.checked_mul(scale)).filter(|time| range.contains(time));
    let right = match unit {
        "s" => seconds(1).ok_or(None),
        "m" => seconds(MINUTE).ok_or(None),
        "h" => seconds(HOUR).ok_or(None),
        _ => Err(match unit.trim().to_ascii_lowercase().as_str() {
            "" | "s" | "sec" | "secs" | "second" | "seconds" => seconds(1),
            "m" | "min" | "mins" | "minute" | "minutes" => seconds(MINUTE),
            "h" | "hour" | "hours" => seconds(HOUR),
            "d" | "day" | "days" => seconds(DAY),
            _ => None,
        }),
    };
    right.map(Duration::from_secs).map_err(|meant| {
        let (first, last) = (time(*range.start()), time(*range.end()));
        let right = meant.map_or_else(|| format!("a whole number of s, m or h, such as {last}"), time);
        format!("{text:?} is not a time from {first} to {last}: use {right}")
    })
}

/// In the largest unit that leaves a whole number.
fn time(seconds: u64) -> String {
    match seconds {
        0 => "0s".to_owned(),
        _ if seconds.is_multiple_of(HOUR) => format!("{}h", seconds / HOUR),
        _ if seconds.is_multiple_of(MINUTE) => format!("{}m", seconds / MINUTE),
        _ => format!("{seconds}s"),
    }
}

/// The digits in front, and what is behind them.
fn number_and_unit(text: &str) -> (Option<u64>, &str) {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    (number.parse().ok(), unit)
}

/// The memory of the cache.
pub(crate) fn parse_memory(text: &str) -> Result<usize, String> {
    parse_size(text, MIN_MEMORY..=MAX_MEMORY, (64, "MiB"))
}

/// The largest header. What is allowed comes before Pingora's own bound, which is 1 MiB.
pub(crate) fn parse_header_size(text: &str) -> Result<usize, String> {
    parse_size(text, MIN_HEADER..=MAX_HEADER, (64, "KiB"))
}

/// A size in bytes: `64MiB`, with the units of IEC 80000-13 (KiB, MiB, GiB) or of the SI (kB, MB, GB). A number without a unit
/// has most likely that of the usual size.
fn parse_size(text: &str, range: RangeInclusive<u64>, usual: (u64, &'static str)) -> Result<usize, String> {
    const UNITS: [(&str, u64); 6] =
        [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000)];
    let (number, unit) = number_and_unit(text);
    let size = |scale: u64| {
        let bytes = number.and_then(|number| number.checked_mul(scale));
        bytes.filter(|bytes| range.contains(bytes)).and_then(|bytes| usize::try_from(bytes).ok())
    };
    if let Some(bytes) = UNITS.iter().find(|(known, _)| *known == unit).and_then(|(_, scale)| size(*scale)) {
        return Ok(bytes);
    }
    // As other programs write it: `64`, `64M`, `64Mi`, `64 mib`.
    let meant = match unit.trim().to_ascii_lowercase().as_str() {
        "" => Some(usual.1),
        "k" | "ki" | "kib" => Some("KiB"),
        "m" | "mi" | "mib" => Some("MiB"),
        "g" | "gi" | "gib" => Some("GiB"),
        "kb" => Some("kB"),
        "mb" => Some("MB"),
        "gb" => Some("GB"),
        _ => None,
    };
    let known = UNITS.iter().find(|(known, _)| Some(*known) == meant).filter(|(_, scale)| size(*scale).is_some());
    let right = match (known, number) {
        (Some((unit, _)), Some(number)) => format!("{number}{unit}"),
        _ => format!("a whole number of KiB, MiB or GiB, such as {}{}", usual.0, usual.1),
    };
    let whole = |bytes: u64| match bytes.trailing_zeros() {
        30.. => format!("{}GiB", bytes >> 30),
        20..30 => format!("{}MiB", bytes >> 20),
        _ => format!("{}KiB", bytes >> 10),
    };
    Err(format!("{text:?} is not a size from {} to {}: use {right}", whole(*range.start()), whole(*range.end())))
}

/// A number of reads, or `off`, which is none.
pub(crate) fn parse_reads(text: &str) -> Result<Option<NonZeroU32>, String> {
    parse_limit(text, "reads a minute", OFF, MIN_READS..=MAX_READS)
}

/// A whole number in this range. `words` are what may stand in its place, for the error.
fn parse_number<N: FromStr + PartialOrd + Display>(
    text: &str,
    what: &str,
    words: &str,
    range: RangeInclusive<N>,
) -> Result<N, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    let (first, last) = (range.start(), range.end());
    number.ok_or_else(|| format!("{text:?} is not a number of {what}: use {words}a number from {first} to {last}"))
}

/// The same, or `off`, which is no limit.
fn parse_limit<N: FromStr + PartialOrd + Display>(
    text: &str,
    what: &str,
    words: &str,
    range: RangeInclusive<N>,
) -> Result<Option<N>, String> {
    if is_off(text) { Ok(None) } else { parse_number(text, what, words, range).map(Some) }
}

/// Connections of all clients.
pub(crate) fn parse_connections(text: &str) -> Result<NonZeroUsize, String> {
    parse_number(text, "connections", "", MIN_CONNECTIONS..=MAX_CONNECTIONS)
}

/// Connections of one client.
pub(crate) fn parse_client_connections(text: &str) -> Result<Option<NonZeroUsize>, String> {
    parse_limit(text, "connections", OFF, NonZeroUsize::MIN..=MAX_CLIENT_CONNECTIONS)
}

/// Requests of one client that are under way.
pub(crate) fn parse_share(text: &str) -> Result<Share, String> {
    if text == "fair" {
        return Ok(Share::Fair);
    }
    let most = parse_limit(text, "requests", "fair, off, or ", NonZeroUsize::MIN..=MAX_CLIENT_CONCURRENT_REQUESTS);
    most.map(|most| most.map_or(Share::Any, Share::AtMost))
}

/// Requests a second of one client.
pub(crate) fn parse_client_requests(text: &str) -> Result<Option<NonZeroU32>, String> {
    parse_limit(text, "requests a second", OFF, NonZeroU32::MIN..=MAX_CLIENT_REQUESTS)
}

/// Bytes that a client takes of its answers.
pub(crate) fn parse_reader_rate(text: &str) -> Result<Option<NonZeroU32>, String> {
    parse_limit(text, "bytes a second", OFF, NonZeroU32::MIN..=MAX_READER_RATE)
}

/// Requests of one client at once.
pub(crate) fn parse_burst(text: &str) -> Result<NonZeroU32, String> {
    parse_number(text, "requests at once", "", NonZeroU32::MIN..=MAX_BURST)
}

/// Requests that one line stands for.
pub(crate) fn parse_sample(text: &str) -> Result<NonZeroU32, String> {
    parse_number(text, "requests", "", NonZeroU32::MIN..=MAX_SAMPLE)
}

pub(crate) fn parse_log_format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(format!("unknown value {text:?}: use text or json")),
    }
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
    let known = Blobs::ALL.into_iter().find(|blobs| blobs.name() == text);
    known.ok_or_else(|| format!("unknown value {text:?}: use redirect, proxy_config or proxy"))
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

/// The longest path of a Unix socket: `sockaddr_un` has 108 bytes, of which the last one is the end (unix(7)).
const MAX_UNIX_PATH: usize = 107;

/// The file of a Unix socket. Without a folder it would depend on where the program was started.
pub(crate) fn parse_unix(text: &str) -> Result<PathBuf, String> {
    let path = parse_file(text)?;
    if !path.is_absolute() {
        return Err(format!(
            "{text:?} is not a socket's path: use one from the root, such as /run/acr-cache-proxy/clients.sock"
        ));
    }
    // Of a folder that is there, the start would say that it is not, and of an earlier process's socket that it is served.
    if ["/", "/.", "/.."].iter().any(|end| text.ends_with(end)) {
        return Err(format!("{text:?} is a folder's path: name the socket in it, such as clients.sock"));
    }
    if path.as_os_str().len() > MAX_UNIX_PATH {
        return Err(format!("has {} bytes: a socket's path has {MAX_UNIX_PATH} at most", path.as_os_str().len()));
    }
    Ok(path)
}

/// Permission bits as chmod(1) takes them: three octal digits, with or without a 0 in front.
pub(crate) fn parse_mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").or(text.strip_prefix('0')).unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if digits.len() == 3 && digits.bytes().all(|digit| digit.is_ascii_digit()) => Ok(mode),
        _ => Err(format!("{text:?} is not a file mode: use three octal digits, such as 0660")),
    }
}

pub(crate) fn parse_client_auth(text: &str) -> Result<bool, String> {
    match text {
        "required" => Ok(true),
        "optional" => Ok(false),
        _ => Err(format!("unknown value {text:?}: use required or optional")),
    }
}

/// The client id of an application or of an identity, or the object id of one. Another text is most often its name.
pub(crate) fn parse_guid(text: &str) -> Result<String, String> {
    const LENGTHS: [usize; 5] = [8, 4, 4, 4, 12];
    let id = not_empty(text, Form::Id)?;
    let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    if id.split('-').map(str::len).eq(LENGTHS) && id.split('-').all(is_hex) {
        Ok(id)
    } else {
        // It is left out, because it may be a secret in the wrong place.
        Err("it is not a GUID: use the id, such as 00000000-0000-0000-0000-000000000000, and not the name".to_owned())
    }
}

/// An id of a tenant, which may be its domain.
pub(crate) fn parse_id(text: &str) -> Result<String, String> {
    not_empty(text, Form::Id)
}

/// An Azure resource id.
pub(crate) fn parse_resource(text: &str) -> Result<String, String> {
    not_empty(text, Form::Resource)
}

/// A file. Whether it is there shows when it is read.
pub(crate) fn parse_file(text: &str) -> Result<PathBuf, String> {
    credential::parse(&not_empty(text, Form::Line)?)
}

fn not_empty(text: &str, form: Form) -> Result<String, String> {
    match value::clean(text, form).map_err(|wrong| wrong.to_string())? {
        "" => Err(EMPTY.to_owned()),
        clean => Ok(clean.to_owned()),
    }
}
