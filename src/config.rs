//! The settings, valid by construction: flags win over the file, every default stands here once.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use http::HeaderValue;

use crate::oci::name::Prefix;
use crate::route::{Blobs, DOCKER_HUB, OnFailure, Route, Routes, Source};

mod file;
pub mod identity;

use identity::Identity;

use file::{File, Place, RouteTable, Text};

/// Loopback, because clients are not authenticated.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// One line a request, one for each change of state.
const DEFAULT_LOG: &str = "info";
/// The port of `https`.
const DEFAULT_PORT: u16 = 443;
/// RFC 1035 section 2.3.4.
const MAX_HOST: usize = 253;
const MAX_LABEL: usize = 63;

/// What a running proxy needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    listen: SocketAddr,
    upstreams: Vec<Upstream>,
    routes: Routes,
    admin: Option<SocketAddr>,
    ca_file: Option<PathBuf>,
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
    /// `--log`
    pub log: Option<String>,
    /// The variable `RUST_LOG`: below the flag, above the file.
    pub rust_log: Option<String>,
}

/// All that is wrong with the settings, a sentence each, with its flag or its place in the file.
#[derive(Debug)]
pub struct Mistakes(Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.0 {
            writeln!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

impl Config {
    /// Reads the file that the flags name, if any, and puts both together. All mistakes are reported at once.
    pub fn load(flags: &Flags) -> Result<Self, Mistakes> {
        let mut mistakes = Vec::new();
        let file = match &flags.config {
            Some(path) => File::read(path, &mut mistakes),
            None => File::default(),
        };
        let flag = |name: &str, text: &Option<String>| text.clone().map(|text| (Place::new(format!("--{name}")), text));
        let rust_log = flags.rust_log.clone().map(|text| (Place::new("RUST_LOG"), text));

        let mut settings = Settings { mistakes };
        let listen = settings.first(&[flag("listen-address", &flags.listen), file.listen], parse_listen);
        let log = settings.first(&[flag("log", &flags.log), rust_log, file.log], parse_log);
        let admin = settings.first(&[flag("admin-address", &flags.admin), file.admin], parse_admin);
        let identity = Identity::parse(file.identity, &mut settings.mistakes);
        let default = settings.first(&[file.default], parse_registry);
        let ca_file = flags.ca_file.clone().or(file.ca_file);

        let (domain, prefix) = (flag("upstream-domain", &flags.domain), flag("upstream-prefix", &flags.prefix));
        let mut table = Table::default();
        if file.routes.is_empty() {
            let upstream = file.upstream.unwrap_or_default();
            table.add(&mut settings, upstream, [domain, prefix], &identity);
        } else {
            if let Some((place, _)) = domain.or(prefix).or(file.upstream.and_then(|upstream| upstream.domain)) {
                settings.mistakes.push(format!("{place}: there are routes as well: make it one of them"));
            }
            for route in file.routes {
                table.add(&mut settings, route, [None, None], &identity);
            }
        }
        let default = table.default_registry(&mut settings.mistakes, default);
        let Settings { mistakes } = settings;
        if !mistakes.is_empty() {
            return Err(Mistakes(mistakes));
        }
        Ok(Self {
            listen: listen.unwrap_or(DEFAULT_LISTEN),
            upstreams: table.upstreams,
            routes: Routes::new(table.routes, default),
            admin,
            ca_file,
            log: log.unwrap_or_else(|| DEFAULT_LOG.to_owned()),
        })
    }

    /// Where clients are waited for.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The cache registries, each once, however many routes lead there.
    pub fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    /// Which name leads where.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Where health and readiness are told; `None` is nowhere.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// A private CA, trusted besides the system's.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
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

/// The routes while they are put together.
#[derive(Default)]
struct Table {
    upstreams: Vec<Upstream>,
    routes: Vec<Route>,
}

impl Table {
    /// One entry of `routes`, or the `upstream` of a file that has one route only; `flags` are its domain and prefix.
    fn add(&mut self, settings: &mut Settings, entry: RouteTable, flags: [Option<Text>; 2], identity: &Identity) {
        let [domain_flag, prefix_flag] = flags;
        let at = entry.place.clone();
        let is_named = domain_flag.is_some() || entry.domain.is_some();
        let domain = settings.first(&[domain_flag, entry.domain], Domain::parse);
        let prefix = settings.first(&[prefix_flag, entry.prefix], parse_prefix).unwrap_or_default();
        let source_at = entry.source.as_ref().map(|(place, _)| place.clone());
        let needs_source = entry.listed && entry.source.is_none();
        let source = settings.first(&[entry.source], Source::parse);
        let addresses = settings.all(entry.addresses, parse_address);
        let blob_hosts = settings.all(entry.blob_hosts, parse_blob_host);
        let hosts = settings.all(entry.hosts, parse_host);
        let on_failure = settings.first(&[entry.on_failure], parse_on_failure).unwrap_or_default();
        let blobs = settings.first(&[entry.blobs], parse_blobs).unwrap_or_default();
        let identity = match entry.identity {
            Some(entries) => Identity::parse(entries, &mut settings.mistakes),
            None => identity.clone(),
        };
        if needs_source && let Some(at) = &at {
            settings.mistakes.push(format!("{at}: has no source: name the registry that it is for, such as docker.io"));
        }
        let Some(domain) = domain else {
            match at.filter(|_| entry.listed) {
                _ if is_named => {}
                Some(at) => settings.mistakes.push(format!(
                    "{at}: has no domain: name the cache registry's login server, such as example.azurecr.io"
                )),
                None if settings.mistakes.is_empty() => settings.mistakes.push(
                    "the registry is not named: set --upstream-domain, or upstream.domain in the file of --config, to its login server, such as example.azurecr.io".to_owned(),
                ),
                None => {}
            }
            return;
        };
        let source = source.unwrap_or_else(Source::docker_hub);
        if let Some(place) = source_at.filter(|_| self.routes.iter().any(|route| route.source == source)) {
            settings.mistakes.push(format!("{place}: {source} has a route already"));
        }
        let upstream = Upstream { domain, addresses, blob_hosts, identity };
        let known = self.upstreams.iter().position(|known| *known == upstream);
        let upstream = known.unwrap_or_else(|| {
            self.upstreams.push(upstream);
            self.upstreams.len() - 1
        });
        self.routes.push(Route { source, prefix, upstream, hosts, on_failure, blobs });
    }

    /// The registry that is meant where none is named: the one that is set, else Docker Hub if it has a route.
    fn default_registry(&self, mistakes: &mut Vec<String>, set: Option<String>) -> Option<String> {
        let has_route = |registry: &str| self.routes.iter().any(|route| route.source.registry() == registry);
        match set {
            Some(registry) => {
                if mistakes.is_empty() && !has_route(&registry) {
                    mistakes.push(format!("default: {registry} has no route: name the source of one"));
                }
                Some(registry)
            }
            None => has_route(DOCKER_HUB).then(|| DOCKER_HUB.to_owned()),
        }
    }
}

/// Collects mistakes while settings are parsed.
struct Settings {
    mistakes: Vec<String>,
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
                Err(wrong) => self.mistakes.push(format!("{place}: {wrong}")),
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

/// An address to listen on, in Go's forms: `:8080` is every address, `localhost` is 127.0.0.1.
pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let wrong = || {
        format!(
            "{text:?} is no address to listen on: give an IP address and a port, such as 127.0.0.1:8080, [::1]:8080, or :8080 for every address"
        )
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let ip: IpAddr = match host {
        "" => Ipv6Addr::UNSPECIFIED.into(),
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(literal) => literal.parse::<Ipv6Addr>().map_err(|_| wrong())?.into(),
            None => host.parse::<Ipv4Addr>().map_err(|_| wrong())?.into(),
        },
    };
    Ok(SocketAddr::new(ip, port))
}

fn parse_prefix(text: &str) -> Result<Prefix, String> {
    Prefix::parse(text).ok_or_else(|| {
        format!("{text:?} is no repository path: give the cache rule's target without its /*, lower case, no slash at its ends, such as hub")
    })
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no IP address: give the registry's own, such as 10.0.0.5 or fd00::5"))
}

fn parse_registry(text: &str) -> Result<String, String> {
    match Source::parse(text) {
        Ok(source) if source.path().is_empty() => Ok(source.registry().to_owned()),
        _ => Err(format!("{text:?} is no registry: give the host of a route's source, such as docker.io")),
    }
}

fn parse_host(text: &str) -> Result<String, String> {
    match Domain::parse(text) {
        Ok(_) => Ok(text.to_ascii_lowercase()),
        Err(_) => Err(format!("{text:?} is no host: give what clients address, such as ghcr.mirror.internal")),
    }
}

fn parse_blob_host(text: &str) -> Result<String, String> {
    match Domain::parse(text.strip_prefix('.').unwrap_or(text)) {
        Ok(_) => Ok(text.to_ascii_lowercase()),
        Err(_) => Err(format!("{text:?} is no host of blobs: give a host, or a suffix such as .blob.internal")),
    }
}

fn parse_on_failure(text: &str) -> Result<OnFailure, String> {
    match text {
        "fallback" => Ok(OnFailure::Fallback),
        "closed" => Ok(OnFailure::Closed),
        _ => Err(format!("{text:?} is nothing to do on a failure: give fallback or closed")),
    }
}

fn parse_blobs(text: &str) -> Result<Blobs, String> {
    match text {
        "redirect" => Ok(Blobs::Redirect),
        "proxy" => Ok(Blobs::Proxy),
        _ => Err(format!("{text:?} is no way to serve blobs: give redirect or proxy")),
    }
}

/// As [`parse_listen`], but a port alone is on loopback: who is to see the state from outside says so.
fn parse_admin(text: &str) -> Result<SocketAddr, String> {
    let mut address = parse_listen(text)?;
    if text.starts_with(':') {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    Ok(address)
}

/// A list of `level` and `target=level`. `env_logger` itself takes any other word for a target, in silence.
fn parse_log(text: &str) -> Result<String, String> {
    let valid = text.split(',').all(|directive| {
        let level = directive.rsplit('=').next().unwrap_or_default().trim();
        directive.matches('=').count() <= 1
            && ["off", "error", "warn", "info", "debug", "trace"].iter().any(|known| known.eq_ignore_ascii_case(level))
    });
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} is no log filter: give a level (error, warn, info, debug, trace, off), or a list such as warn,access=info"
        ))
    }
}

#[cfg(test)]
mod tests;
