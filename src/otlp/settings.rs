//! The variables of OpenTelemetry's specification ("OpenTelemetry Environment Variable Specification", "OpenTelemetry Protocol
//! Exporter") as values that cannot be wrong.
//!
//! They are read once, when the process starts. A mistake in them costs the spans and not the pulls: it is a warning.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::percent_decode_str;
use reqwest::Url;
use zeroize::Zeroizing;

use super::sampler::Sampler;
use super::wanted;

/// What is added to the address that is meant for all kinds of telemetry.
const PATH: &str = "/v1/traces";
/// The one form of OTLP that is spoken here.
const PROTOCOL: &str = "http/protobuf";
/// What a batch may take, all attempts together, and how long its first span waits for others; the specification's defaults.
const TIMEOUT: Duration = Duration::from_secs(10);
const DELAY: Duration = Duration::from_secs(5);
/// Either may be set to this.
const MAX_TIME: Duration = Duration::from_secs(60);
/// Spans that wait, the specification's default. One has 1 KiB mostly, and 8 KiB at most.
const QUEUE: usize = 2048;
/// It may be set to this, which a whole second of the most requests fills.
const MAX_QUEUE: usize = 16_384;
/// Spans that are sent at once, the specification's default.
const BATCH: usize = 512;
/// Attributes of the resource and headers: people have a few.
const MAX_ENTRIES: usize = 64;

/// What of the specification is not done, and what is done instead.
const UNSUPPORTED: [(&str, &str); 3] = [
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "the system's CA certificates and ca_file are trusted, as for registries"),
    ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "no client certificate is shown"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "spans are sent as they are"),
];

/// What is exported, and where to. Its `Debug` masks the headers' values.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where spans are posted.
    pub url: Url,
    /// With these headers, which may have credentials.
    pub headers: HeaderMap,
    /// What the program is called, and what else is to be known of it.
    pub resource: Vec<(String, String)>,
    /// Which requests have a span.
    pub sampler: Sampler,
    /// The time that a batch has, all attempts together.
    pub timeout: Duration,
    /// How long a span waits for others, to be sent with them.
    pub delay: Duration,
    /// Spans that wait at most.
    pub queue: usize,
    /// Spans of a batch at most.
    pub batch: usize,
}

impl Settings {
    /// By these variables; `None` if no collector is named or spans are switched off. `warnings` gets a sentence for each mistake;
    /// if one is about where spans go, there are none.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>, warnings: &mut Vec<String>) -> Option<Self> {
        let (name, endpoint) = wanted(&variable)?;
        let read = Reader { variable };
        let mut tell = |Mistake(sentence)| warnings.push(format!("{sentence}: no spans are exported"));
        let url = url(name, &endpoint).map_err(&mut tell);
        let headers = read.headers().map_err(&mut tell);
        let protocol = read.protocol().map_err(&mut tell);
        let (Ok(url), Ok(headers), Ok(())) = (url, headers, protocol) else { return None };
        for (name, instead) in UNSUPPORTED {
            let value = [&traces(name), name].into_iter().find_map(|name| Some((name.to_owned(), read.value(name)?)));
            if let Some((name, _)) = value.filter(|(_, value)| value != "none") {
                warnings.push(format!("{name} is not read: {instead}"));
            }
        }
        let timeout = or(TIMEOUT, read.time("OTEL_EXPORTER_OTLP_TIMEOUT"), warnings);
        let delay = or(DELAY, read.time("OTEL_BSP_SCHEDULE_DELAY"), warnings);
        let queue = or(QUEUE, read.count("OTEL_BSP_MAX_QUEUE_SIZE", MAX_QUEUE), warnings);
        let batch = or(BATCH.min(queue), read.count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", queue), warnings);
        let sampler = or(Sampler::default(), read.sampler(), warnings);
        let resource = or(Vec::new(), read.resource(), warnings);
        Some(Self { url, headers, resource: named(resource, &read), sampler, timeout, delay, queue, batch })
    }
}

/// What was given, or else the default: with a warning if it was wrong.
fn or<T>(default: T, given: Result<Option<T>, Mistake>, warnings: &mut Vec<String>) -> T {
    match given {
        Ok(given) => given.unwrap_or(default),
        Err(Mistake(sentence)) => {
            warnings.push(format!("{sentence}: the default is used"));
            default
        }
    }
}

/// A sentence that begins with the variable, without its value where that may be a secret.
struct Mistake(String);

struct Reader<F> {
    variable: F,
}

impl<F: Fn(&str) -> Option<String>> Reader<F> {
    /// An empty value counts as none.
    fn value(&self, name: &str) -> Option<String> {
        Some((self.variable)(name)?.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// The variable for traces before the one for all kinds of telemetry.
    fn either(&self, name: &'static str) -> Option<(String, Zeroizing<String>)> {
        [traces(name), name.to_owned()].into_iter().find_map(|name| {
            let value = Zeroizing::new(self.value(&name)?);
            Some((name, value))
        })
    }

    fn protocol(&self) -> Result<(), Mistake> {
        match self.either("OTEL_EXPORTER_OTLP_PROTOCOL") {
            Some((name, value)) if *value != PROTOCOL => {
                Err(Mistake(format!("{name}: only {PROTOCOL} is spoken, for which collectors listen on port 4318")))
            }
            _ => Ok(()),
        }
    }

    fn headers(&self) -> Result<HeaderMap, Mistake> {
        let mut headers = HeaderMap::new();
        if let Some((name, list)) = self.either("OTEL_EXPORTER_OTLP_HEADERS") {
            let wrong = |at: usize| Mistake(format!("{name}: entry {at} is no header: write NAME=VALUE,NAME=VALUE"));
            for (entry, at) in entries(&list).zip(1..) {
                let (key, value) = entry.ok_or_else(|| wrong(at))?;
                let key = HeaderName::from_bytes(key.as_bytes()).map_err(|_| wrong(at))?;
                let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(value)).map_err(|_| wrong(at))?;
                value.set_sensitive(true);
                headers.append(key, value);
            }
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        Ok(headers)
    }

    fn resource(&self) -> Result<Option<Vec<(String, String)>>, Mistake> {
        const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let Some(list) = self.value(NAME) else { return Ok(None) };
        let attribute = |entry: Option<(&str, Zeroizing<Vec<u8>>)>| {
            let (key, value) = entry?;
            Some((key.to_owned(), std::str::from_utf8(&value).ok()?.to_owned()))
        };
        let attributes: Option<Vec<_>> = entries(&list).map(attribute).collect();
        attributes.map(Some).ok_or_else(|| Mistake(format!("{NAME}: it is no list of KEY=VALUE,KEY=VALUE")))
    }

    fn sampler(&self) -> Result<Option<Sampler>, Mistake> {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        let Some(name) = self.value(NAME) else { return Ok(None) };
        let argument = self.value("OTEL_TRACES_SAMPLER_ARG");
        Sampler::parse(&name, argument.as_deref()).map(Some).map_err(|why| Mistake(format!("{NAME}: {why}")))
    }

    /// In milliseconds.
    fn time(&self, name: &'static str) -> Result<Option<Duration>, Mistake> {
        let Some((name, text)) = self.either(name) else { return Ok(None) };
        let times = Duration::from_millis(1)..=MAX_TIME;
        let time = text.parse().ok().map(Duration::from_millis).filter(|time| times.contains(time));
        let wrong = || Mistake(format!("{name}: it is no number of milliseconds from 1 to {}", MAX_TIME.as_millis()));
        time.map(Some).ok_or_else(wrong)
    }

    /// Up to `most`.
    fn count(&self, name: &'static str, most: usize) -> Result<Option<usize>, Mistake> {
        let Some(text) = self.value(name) else { return Ok(None) };
        let count = text.parse().ok().filter(|count| (1..=most).contains(count));
        count.map(Some).ok_or_else(|| Mistake(format!("{name}: it is no number from 1 to {most}")))
    }
}

/// The name of the variable that is for traces only.
fn traces(name: &str) -> String {
    name.replacen("OTLP_", "OTLP_TRACES_", 1)
}

/// The entries of `key=value,key=value`, the values percent-encoded; `None` for one that is neither that nor empty.
fn entries(list: &str) -> impl Iterator<Item = Option<(&str, Zeroizing<Vec<u8>>)>> {
    let all = list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).take(MAX_ENTRIES);
    all.map(|entry| {
        let (key, value) = entry.split_once('=')?;
        let key = key.trim();
        (!key.is_empty()).then(|| (key, Zeroizing::new(percent_decode_str(value.trim()).collect())))
    })
}

/// Where spans go. Credentials in it would be in each line of the log about it.
fn url(name: &'static str, text: &str) -> Result<Url, Mistake> {
    let wrong = |what: &str| Mistake(format!("{name}: {what}"));
    let mut url = Url::parse(text).map_err(|_| wrong("it is no address: write http://HOST:4318 or https://HOST"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it is no address of http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it has credentials: give them in OTEL_EXPORTER_OTLP_HEADERS, as authorization=Basic%20..."));
    }
    if name == super::ENDPOINTS[1] {
        let path = url.path().trim_end_matches('/').to_owned() + PATH;
        url.set_path(&path);
    }
    url.set_fragment(None);
    Ok(url)
}

/// The attributes of the resource, with the name and the version of the program and an id of the process.
fn named<F: Fn(&str) -> Option<String>>(mut given: Vec<(String, String)>, read: &Reader<F>) -> Vec<(String, String)> {
    let name = read.value("OTEL_SERVICE_NAME");
    if name.is_some() {
        given.retain(|(key, _)| key != "service.name");
    }
    let name = name.unwrap_or_else(|| env!("CARGO_PKG_NAME").to_owned());
    let own = [
        ("service.name", name),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", instance()),
    ];
    for (key, value) in own {
        if !given.iter().any(|(known, _)| known == key) {
            given.push((key.to_owned(), value));
        }
    }
    given
}

/// A random UUID (RFC 9562 section 5.4), as the semantic conventions recommend.
fn instance() -> String {
    let random = rand::random::<u128>() & !(0xf << 76) & !(0x3 << 62) | 4 << 76 | 2 << 62;
    let digits = format!("{random:032x}");
    [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| digits.get(part).unwrap_or_default()).join("-")
}

#[cfg(test)]
mod tests;
