//! The settings, valid by construction: flags win over the file, every default stands here once.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::logger;
use oci::route::Blobs;

mod file;
pub mod identity;
mod listener;
mod routes;
mod tree;

use file::{File, Text};
use identity::Identity;
use listener::parse_admin;
use routes::Table;
use tree::Position;

pub use file::Place;
pub use listener::parse_listen;

pub use routes::{Destination, Routes};

#[cfg(feature = "bench")]
pub(crate) use routes::parse_blobs;

/// Loopback, because clients are not authenticated.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// How long a request waits for a token that is on its way. dockerd gives up on a registry's first answer after 15 s; a
/// wait beyond that serves nobody.
pub const DEFAULT_TOKEN_WAIT: Duration = Duration::from_secs(10);
/// Longer than the minute after which common balancers end an idle connection: who ends it first should be the one that
/// sends the next request.
pub const DEFAULT_CLIENT_KEEPALIVE: Duration = Duration::from_secs(75);
/// One line a request, one for each change of state.
const DEFAULT_LOG: &str = "info";
/// One thread carries some 20,000 requests a second, a registry allows 20,000 a minute, and a thread that shares nothing
/// spends a tenth less on each.
const DEFAULT_THREADS: usize = 1;
/// Layers that come through here are decrypted and copied, and a second thread carries manifests meanwhile. More of them
/// are more memory: 64 pulls of 1 GiB stay below 100 MiB with two.
const DEFAULT_THREADS_FOR_BLOBS: usize = 2;
/// More than any machine has cores is a mistyped number.
const MAX_THREADS: usize = 512;
/// The port of `https`.
const DEFAULT_PORT: u16 = 443;
/// RFC 1035 section 2.3.4.
const MAX_HOST: usize = 253;
const MAX_LABEL: usize = 63;

/// What a running proxy needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    listen: SocketAddr,
    upstreams: Vec<Arc<Upstream>>,
    routes: Routes,
    admin: Option<SocketAddr>,
    ca_file: Option<(Place, PathBuf)>,
    token_wait: Duration,
    client_keepalive: Duration,
    threads: usize,
    log: String,
}

/// One cache registry, with who signs in to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    domain: Domain,
    addresses: Vec<IpAddr>,
    blob_hosts: Vec<String>,
    identity: Identity,
}

/// The same settings as flags, as text; `None` where a flag is not given.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--listen-address`
    pub listen: Option<String>,
    /// `--admin-address`
    pub admin: Option<String>,
    /// `--upstream-domain`
    pub domain: Option<String>,
    /// `--upstream-prefix`
    pub prefix: Option<String>,
    /// `--ca-file`
    pub ca_file: Option<PathBuf>,
    /// `--threads`
    pub threads: Option<String>,
    /// `--log`
    pub log: Option<String>,
    /// The variable `RUST_LOG`: below the flag, above the file.
    pub rust_log: Option<String>,
}

/// All that is wrong with the settings, a sentence each, with its flag or its place in the file. They are shown in the
/// order of the file, flags first.
#[derive(Debug, Default)]
pub struct Mistakes(Vec<(Position, String)>);

impl Mistakes {
    /// What is wrong with the setting of that place.
    pub fn add(&mut self, place: &Place, wrong: impl fmt::Display) {
        self.0.push((place.position(), format!("{place}: {wrong}")));
    }

    /// What is wrong with no setting in particular.
    fn add_general(&mut self, sentence: &str) {
        self.0.push((Position::default(), sentence.to_owned()));
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn count(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<_> = self.0.iter().collect();
        sorted.sort_by_key(|(position, _)| *position);
        for (_, sentence) in sorted {
            writeln!(f, "{sentence}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

impl Config {
    /// Reads the file that the flags name, if any, and puts both together. All mistakes are reported at once.
    pub fn load(flags: &Flags) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::default();
        let file = match &flags.config {
            Some(path) => File::read(path, &mut mistakes),
            None => File::default(),
        };
        let flag = |name: &str, text: &Option<String>| text.clone().map(|text| (Place::new(format!("--{name}")), text));
        let rust_log = flags.rust_log.clone().map(|text| (Place::new("RUST_LOG"), text));

        let mut settings = Settings { mistakes };
        let log_flag = settings.first(&[flag("log", &flags.log)], logger::parse_filter);
        let log_variable = settings.first(&[rust_log], logger::parse_shared_filter);
        let log = log_flag.or(log_variable).or(settings.first(&[file.log], logger::parse_filter));
        let (listen_flag, admin_flag) = (flag("listen-address", &flags.listen), flag("admin-address", &flags.admin));
        let admin_place = admin_flag.as_ref().or(file.admin.as_ref()).map(|(place, _)| place.clone());
        let before = settings.mistakes.count();
        let listen = settings.first(&[listen_flag, file.listen], parse_listen).unwrap_or(DEFAULT_LISTEN);
        let admin = settings.first(&[admin_flag, file.admin], parse_admin);
        let colliding = admin.filter(|admin| listener::collide(listen, *admin));
        if let (Some(place), Some(admin), true) = (admin_place, colliding, settings.mistakes.count() == before) {
            let sentence = format_args!("{admin} is taken by the listener for clients, {listen}: give another port");
            settings.mistakes.add(&place, sentence);
        }
        let threads = settings.first(&[flag("threads", &flags.threads), file.threads], parse_threads);
        let identity = Identity::parse(file.identity, &mut settings.mistakes);
        let default_place = file.default.as_ref().map(|(place, _)| place.clone());
        let default = default_place.zip(settings.first(&[file.default], routes::parse_registry));
        let ca_flag = flags.ca_file.clone().map(|path| (Place::new("--ca-file"), path));
        let ca_file = ca_flag.or(file.ca_file.map(|(place, text)| (place, text.into())));
        let token_wait = settings.first(&[file.token_wait], parse_token_wait);
        let client_keepalive = settings.first(&[file.client_keepalive], parse_client_keepalive);

        let (domain, prefix) = (flag("upstream-domain", &flags.domain), flag("upstream-prefix", &flags.prefix));
        let mut table = Table::default();
        if file.routes.is_empty() {
            let upstream = file.upstream.unwrap_or_default();
            table.add(&mut settings, upstream, [domain, prefix], &identity);
        } else {
            let flag = domain.or(prefix).map(|(place, _)| place);
            let upstream =
                file.upstream.and_then(|upstream| upstream.domain.map(|(place, _)| place).or(upstream.place));
            if let Some(place) = flag.or(upstream) {
                settings.mistakes.add(&place, "there are routes as well: make it one of them");
            }
            for route in file.routes {
                table.add(&mut settings, route, [None, None], &identity);
            }
        }
        let default = table.default_registry(&mut settings.mistakes, default);
        let Settings { mistakes } = settings;
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let routes = Routes::new(table.routes, default);
        Ok(Self {
            threads: threads.unwrap_or_else(|| default_threads(&routes)),
            listen,
            upstreams: table.upstreams,
            routes,
            admin,
            ca_file,
            token_wait: token_wait.unwrap_or(DEFAULT_TOKEN_WAIT),
            client_keepalive: client_keepalive.unwrap_or(DEFAULT_CLIENT_KEEPALIVE),
            log: log.unwrap_or_else(|| DEFAULT_LOG.to_owned()),
        })
    }

    /// Where clients are waited for.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The cache registries, each once, however many routes lead there.
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// Which name leads where.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Whether blobs of any route come through the proxy.
    pub fn proxies_blobs(&self) -> bool {
        proxies_blobs(&self.routes)
    }

    /// Where health and readiness are told; `None` is nowhere.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// A private CA, trusted besides the system's.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_ref().map(|(_, path)| path.as_path())
    }

    /// What names that file, for a message about it: `--ca-file`, or a line of the configuration.
    pub fn ca_file_place(&self) -> Option<&Place> {
        self.ca_file.as_ref().map(|(place, _)| place)
    }

    /// How long a request waits for a token that is on its way.
    pub fn token_wait(&self) -> Duration {
        self.token_wait
    }

    /// How long a client's connection is kept without a request.
    pub fn client_keepalive(&self) -> Duration {
        self.client_keepalive
    }

    /// How many threads carry requests; 1 or more.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The log's filter.
    pub fn log(&self) -> &str {
        &self.log
    }
}

impl Upstream {
    /// Its login server.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Addresses to use instead of DNS; empty if DNS is to be asked.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Further hosts, or suffixes of hosts with a dot in front, that hold this registry's blobs.
    pub fn blob_hosts(&self) -> &[String] {
        &self.blob_hosts
    }

    /// Who signs in.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

/// Collects mistakes while settings are parsed.
struct Settings {
    mistakes: Mistakes,
}

impl Settings {
    /// The first that is there, parsed. The ones behind it are parsed, too: a mistake in the file is one even
    /// where a flag hides it.
    fn first<T>(&mut self, given: &[Option<(Place, String)>], parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let mut found = None;
        for (place, text) in given.iter().flatten() {
            match parse(text) {
                Ok(value) => {
                    found.get_or_insert(value);
                }
                Err(wrong) => self.mistakes.add(place, wrong),
            }
        }
        found
    }

    /// All of a list that parse.
    fn all<T>(&mut self, given: Vec<Text>, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        given.into_iter().filter_map(|text| self.first(&[Some(text)], &parse)).collect()
    }
}

/// A registry's login server: a host name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    host: String,
    port: u16,
    authority: String,
}

impl Domain {
    /// `example.azurecr.io`, `example.azurecr.io:5000`, `10.0.0.5`, `[fd00::5]:5000`. The error says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("{text:?} {what}, such as example.azurecr.io"));
        if text.contains("://") {
            return wrong("has a scheme: give the login server alone, without https://");
        }
        if text.contains(['/', '@', '?', '#']) {
            return wrong("is more than a host: a cache rule's path goes into the prefix; give the login server alone");
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => match port.parse::<u16>() {
                Ok(port) if port != 0 => (host, port),
                _ => {
                    return wrong("has no port between 1 and 65535 after the colon: give the login server");
                }
            },
            _ => (text, DEFAULT_PORT),
        };
        let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let valid = match literal {
            Some(literal) => literal.parse::<Ipv6Addr>().is_ok(),
            None => host.parse::<Ipv4Addr>().is_ok() || is_host_name(host),
        };
        if !valid {
            return wrong("is no host name: give the login server");
        }
        let host = host.to_ascii_lowercase();
        let authority = if port == DEFAULT_PORT { host.clone() } else { format!("{host}:{port}") };
        Ok(Self { host, port, authority })
    }

    /// The host, an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 443 by default.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What goes into `Host`: the port only where it is not 443.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The same as a header's value.
    pub fn to_header(&self) -> HeaderValue {
        // A host is letters, digits, hyphens, dots, colons and brackets: each is good in a header.
        HeaderValue::from_str(&self.authority).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    /// What the certificate has to be for: the host without brackets.
    pub fn server_name(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// Letters, digits and hyphens in labels (RFC 1123 section 2.1). A last label of digits is a mistyped address.
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    text.len() <= MAX_HOST && text.split('.').all(label) && !last_is_number
}

fn parse_threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ 1..=MAX_THREADS) => Ok(threads),
        _ => Err(format!("{text:?} is no number of threads: give one from 1 to {MAX_THREADS}")),
    }
}

fn proxies_blobs(routes: &Routes) -> bool {
    routes.iter().any(|route| route.destination.blobs == Blobs::Proxy)
}

fn default_threads(routes: &Routes) -> usize {
    if !proxies_blobs(routes) {
        return DEFAULT_THREADS;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.min(DEFAULT_THREADS_FOR_BLOBS)
}

/// A request has its answer within 28 s whatever happens, and a registry that fetches an image needs some of them.
fn parse_token_wait(text: &str) -> Result<Duration, String> {
    parse_seconds(text, 1..=20, "time to wait for a token")
}

/// An hour is the longest that any balancer keeps an idle connection by default.
fn parse_client_keepalive(text: &str) -> Result<Duration, String> {
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

#[cfg(test)]
mod tests;
