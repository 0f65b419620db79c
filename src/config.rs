//! The settings, valid by construction: a flag wins over its variable, a variable over the file, the file over the default.

use std::error::Error;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::access::Rules;
use crate::logger;
use crate::net::egress::EgressSettings;
use oci::route::Blobs;

mod access;
mod address;
mod cache;
mod change;
pub(crate) mod credential;
mod domain;
mod doubt;
mod drain;
mod egress;
mod file;
mod hint;
pub(crate) mod identity;
mod kind;
mod listener;
mod log;
mod mistake;
mod notify;
mod parse;
mod proxy_protocol;
mod routes;
mod schema;
pub(crate) mod service_user;
mod setting;
mod table;
mod tls;
mod tree;

use access::Limits;
use cache::FileCache;
use identity::Identity;
use mistake::{Place, Text};
use routes::{Own, Table};
use setting::{FILE, FileTable, ROUTE, RouteTable};
use table::{Entry, Holds, Table as _};

pub(crate) use address::{collide, parse_admin, parse_listen, reachable};
pub(crate) use cache::{CacheSettings, Lifetimes};
pub(crate) use change::Effect;
pub(crate) use domain::Domain;
pub(crate) use drain::Drain;
pub(crate) use listener::{Endpoint, Listener};
pub(crate) use mistake::{MAX_TOLD, Mistakes};
pub(crate) use notify::Notify;
pub(crate) use routes::{Destination, Routes, Upstream};
pub(crate) use schema::schema;
pub(crate) use table::{Default as DefaultValue, Row};
pub(crate) use tls::{TlsFiles, TlsKey};
pub(crate) use tree::{parse_yaml, takes_too_long};

#[cfg(feature = "bench")]
pub(crate) use parse::parse_blobs;
pub(crate) use parse::{parse_guid, parse_prefix};

/// What the package puts in place: nobody has named a registry yet.
pub(crate) const SAMPLE: &str = include_str!("../conf/minimal.yaml");

/// A file is that example. A pipe, which has been read by now, is none.
pub(crate) fn is_sample(path: &Path) -> bool {
    let path = path.to_owned();
    let read = crate::file::at_start(move || crate::file::read(&path, SAMPLE.len() as u64));
    matches!(read, Ok(Ok(text)) if *text == SAMPLE.as_bytes())
}

/// The default of `token_wait`; a test compares it with the row. dockerd gives up on a registry's first answer after 15 s, so
/// a longer wait serves nobody.
pub(crate) const DEFAULT_TOKEN_WAIT: Duration = Duration::from_secs(10);
/// One thread carries some 20,000 requests a second, a registry allows 20,000 a minute, and a thread that shares nothing
/// spends a tenth less on each.
const DEFAULT_THREADS: usize = 1;
/// Layers that pass through the proxy are decrypted and copied, and a second thread carries manifests meanwhile. More
/// threads take more memory: 64 pulls of 1 GiB stay below 100 MiB with two.
const DEFAULT_THREADS_FOR_BLOBS: usize = 2;

/// What a running proxy needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    listeners: Vec<Listener>,
    upstreams: Vec<Arc<Upstream>>,
    routes: Routes,
    /// What each route says in place of the file.
    own: Vec<Own>,
    /// Who signs in for every route that does not say so itself.
    identity: Identity,
    admin: Option<SocketAddr>,
    ca_file: Option<PathBuf>,
    token_wait: Duration,
    client_keepalive: Duration,
    threads: usize,
    log: logger::Settings,
    cache: Option<CacheSettings>,
    /// What `cache` of the file says for every route. How long a route keeps is in the routes; this tells whose change it was.
    lifetimes: cache::Given,
    access: Rules,
    connections: Option<NonZeroUsize>,
    registry_reads_per_minute: Option<NonZeroU32>,
    drain: Drain,
    notify: Notify,
    egress: EgressSettings,
}

/// What settings need on the host that serves.
pub(crate) struct ServingHost {
    /// Says why the CA certificates of a file cannot be used.
    pub check_ca_file: fn(&Path) -> Result<(), Box<dyn Error>>,
    /// Says which file of a listener's TLS cannot be used, and why.
    pub check_tls: fn(&TlsFiles) -> Vec<(TlsKey, String)>,
    /// Whether a variable has a value.
    pub has_variable: fn(&str) -> bool,
    /// This process serves, so a credential of its unit has to be here.
    pub serves: bool,
}

impl ServingHost {
    /// Why a file is not here although it has to be: a sentence that names it.
    fn lack(&self, path: &Path) -> Option<String> {
        credential::lack(path).filter(|_| self.serves).map(|lack| format!("{path:?}: {lack}"))
    }
}

/// What the command line gives: the file to read, and texts for settings that have a flag.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    config: Option<PathBuf>,
    /// What is in that file, where it is not to be read: it may not be written yet.
    text: Option<String>,
    texts: Vec<(&'static str, String)>,
    /// The registry of the flags stands in place of the routes.
    replaces_routes: bool,
    rust_log: Option<String>,
    /// A file that was looked for in place of one that is named, and is not there.
    missing: Option<PathBuf>,
}

impl Flags {
    /// With the file of `--config`, if it is given.
    pub(crate) fn with_file(self, path: Option<PathBuf>) -> Self {
        Self { config: path, ..self }
    }

    /// With this text as what is in a file of that path.
    pub(crate) fn with_text(self, path: &Path, text: &str) -> Self {
        Self { config: Some(path.to_owned()), text: Some(text.to_owned()), ..self }
    }

    /// With the path of the host's own file, which is not there.
    pub(crate) fn with_missing_file(self, path: PathBuf) -> Self {
        Self { missing: Some(path), ..self }
    }

    /// With a text for the flag of this row. A row without a flag has nothing to set.
    pub(crate) fn with(mut self, row: &'static Row, text: impl Into<String>) -> Self {
        self.texts.extend(row.flag.map(|flag| (flag, text.into())));
        self
    }

    /// The flags with a text, and it, but for those that change only how a proxy runs: no command that looks after a host does
    /// anything else for them.
    pub(crate) fn of_host(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let of_run = [FILE.log.row.flag, FILE.threads.row.flag];
        let of_host = self.texts.iter().filter(move |(flag, _)| !of_run.contains(&Some(*flag)));
        of_host.map(|(flag, text)| (*flag, text.as_str()))
    }

    /// Whether they name a registry, and so are settings of their own.
    pub(crate) fn name_registry(&self) -> bool {
        self.get(&ROUTE.domain.row).is_some()
    }

    /// With the variable `RUST_LOG`, if it is set.
    pub(crate) fn with_rust_log(self, filter: Option<String>) -> Self {
        Self { rust_log: filter, ..self }
    }

    /// With a cache registry's domain and a cache rule's prefix.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn with_upstream(self, domain: &str, prefix: &str) -> Self {
        self.with(&ROUTE.domain.row, domain).with(&ROUTE.prefix.row, prefix)
    }

    /// The registry that they name is not beside the routes of the file but in place of them, and has what the route to it says.
    #[cfg(feature = "bench")]
    pub(crate) fn in_place_of_routes(self) -> Self {
        Self { replaces_routes: true, ..self }
    }

    fn get(&self, row: &Row) -> Option<Text> {
        let flag = row.flag?;
        let (_, text) = self.texts.iter().find(|(known, _)| *known == flag)?;
        Some((Place::new(format!("--{flag}")), text.clone()))
    }
}

/// The rows that have a flag, in the order of `--help`.
pub(crate) fn flagged() -> Vec<&'static Row> {
    fn all(entries: Vec<Entry>, rows: &mut Vec<&'static Row>) {
        for entry in entries {
            rows.extend(entry.row.flag.map(|_| entry.row));
            // Only `upstream` has flags for what is below it; the others come more than once.
            if let (Holds::Table(below) | Holds::Tables(below) | Holds::ValueOrTables(below), "upstream") =
                (entry.holds, entry.row.key)
            {
                all(below, rows);
            }
        }
    }
    let mut rows = Vec::new();
    all(FileTable::entries(), &mut rows);
    rows
}

/// Every setting with its key as it is written in prose: `cache.tags`. A table that stands in two places is listed once.
pub(crate) fn all() -> Vec<(String, &'static Row)> {
    let mut rows: Vec<(String, &'static Row)> = Vec::new();
    for (key, row) in everywhere() {
        if !rows.iter().any(|(_, known)| std::ptr::eq(*known, row)) {
            rows.push((key, row));
        }
    }
    rows
}

/// The same with each place of a table.
fn everywhere() -> Vec<(String, &'static Row)> {
    fn below(entries: Vec<Entry>, above: &str, rows: &mut Vec<(String, &'static Row)>) {
        for Entry { row, holds } in entries {
            let key = format!("{above}{}", row.key);
            rows.push((key.clone(), row));
            match holds {
                Holds::Value | Holds::List => {}
                Holds::Table(entries)
                | Holds::Tables(entries)
                | Holds::ValueOrTable(entries)
                | Holds::ValueOrTables(entries) => below(entries, &format!("{key}."), rows),
            }
        }
    }
    let mut rows = Vec::new();
    below(FileTable::entries(), "", &mut rows);
    rows
}

/// Where names lead: by the list, by the one route of `upstream`, or by the flags that take the place of both; and the registry of requests
/// that name none.
fn route_table(
    flags: &Flags,
    (upstream, routes, default): (Option<RouteTable>, Vec<RouteTable>, Option<Text>),
    identity: &Identity,
    cache: &FileCache,
    host: Option<&ServingHost>,
    mistakes: &mut Mistakes,
) -> (Table, Option<String>) {
    let (domain, prefix) = (flags.get(&ROUTE.domain.row), flags.get(&ROUTE.prefix.row));
    let (upstream, routes, default) = match (&domain, &prefix) {
        (Some((_, domain)), Some((_, prefix))) if flags.replaces_routes && !routes.is_empty() => {
            (routes::of_registry(routes, domain, prefix), Vec::new(), None)
        }
        _ => (upstream, routes, default),
    };
    let default_place = default.as_ref().map(|(place, _)| place.clone());
    let default = default_place.zip(FILE.default.parse([default], mistakes));
    let mut table = Table::new(flags.missing.clone());
    if routes.is_empty() {
        table.add(mistakes, upstream.unwrap_or_default(), Some([domain, prefix]), identity, cache, host);
    } else {
        let flag = domain.or(prefix).map(|(place, _)| place);
        let upstream = upstream.and_then(|upstream| upstream.domain.map(|(place, _)| place).or(upstream.place));
        if let Some(place) = flag.or(upstream) {
            mistakes.add(&place, "cannot be set beside routes: make it an item of routes");
        }
        for route in routes {
            table.add(mistakes, route, None, identity, cache, host);
        }
    }
    let default = table.default_registry(mistakes, default);
    (table, default)
}

impl Config {
    /// Reads the file that the flags name, if any, and puts both together. All mistakes are reported at once. The settings
    /// may be for another host than this one.
    pub(crate) fn load(flags: &Flags) -> Result<Self, Mistakes> {
        Self::load_for(flags, None)
    }

    /// The same on the host that is to serve by these settings: what is missing there is a mistake, too.
    pub(crate) fn load_on(host: &ServingHost, flags: &Flags) -> Result<Self, Mistakes> {
        Self::load_for(flags, Some(host))
    }

    fn load_for(flags: &Flags, host: Option<&ServingHost>) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::default();
        let FileTable {
            place: _,
            is_flawed: _,
            listen,
            admin,
            upstream,
            routes,
            default,
            identity,
            ca_file,
            token_wait,
            client_keepalive,
            drain,
            notify,
            cache,
            access,
            egress,
            limits,
            threads,
            log,
        } = match (&flags.config, &flags.text) {
            (Some(path), Some(text)) => file::take(path, text, &mut mistakes, FileTable::read),
            (Some(path), None) => file::read(path, &mut mistakes, FileTable::read),
            (None, _) => FileTable::default(),
        };

        let log = log::settings(flags, log, &mut mistakes);
        let (listeners, admin) = listener::parse(flags, listen, admin, host, &mut mistakes);
        let threads = FILE.threads.parse([flags.get(&FILE.threads.row), threads], &mut mistakes);
        let token_wait = FILE.token_wait.parse_or_default([token_wait], &mut mistakes);
        let client_keepalive = FILE.client_keepalive.parse_or_default([client_keepalive], &mut mistakes);
        let drain = Drain::parse(drain, &mut mistakes);
        let notify = Notify::parse(notify, &mut mistakes);
        let ca_file = parse_ca_file([flags.get(&FILE.ca_file.row), ca_file], host, &mut mistakes);
        let identity = identity.map_or_else(Identity::default, |table| Identity::parse(table, host, &mut mistakes));

        let cache = FileCache::parse(cache, &mut mistakes);
        let egress = egress::parse(egress, &mut mistakes);
        let Limits { per_client, bounds, registry_reads_per_minute, connections } =
            Limits::parse(limits, &mut mistakes);
        let access = access::rules(access, &listeners, per_client, bounds, &mut mistakes);

        let (table, default) = route_table(flags, (upstream, routes, default), &identity, &cache, host, &mut mistakes);
        let (Some(token_wait), Some(client_keepalive), Some(drain), Some(notify), Some(log), true) =
            (token_wait, client_keepalive, drain, notify, log, mistakes.is_empty())
        else {
            return Err(mistakes);
        };
        let routes = Routes::new(table.routes, default);
        Ok(Self {
            threads: threads.unwrap_or_else(|| default_threads(&routes)),
            listeners,
            upstreams: table.upstreams,
            routes,
            own: table.own,
            identity,
            admin,
            ca_file,
            token_wait,
            client_keepalive,
            log,
            lifetimes: cache.given,
            cache: cache.settings,
            access,
            connections,
            registry_reads_per_minute,
            drain,
            notify,
            egress,
        })
    }

    /// Where clients are waited for; one or more.
    pub(crate) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// The cache registries, each once, however many routes lead there.
    pub(crate) fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// Which name leads where.
    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Where health and readiness are told; `None` is nowhere.
    pub(crate) fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// A private CA, trusted besides the system's.
    pub(crate) fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// How long a request waits for a token that is on its way.
    pub(crate) fn token_wait(&self) -> Duration {
        self.token_wait
    }

    /// How long a client's connection is kept without a request.
    pub(crate) fn client_keepalive(&self) -> Duration {
        self.client_keepalive
    }

    /// Who is told of a fault that lasts.
    pub(crate) fn notify(&self) -> &Notify {
        &self.notify
    }

    /// How the process ends after a signal.
    pub(crate) fn drain(&self) -> Drain {
        self.drain
    }

    /// How many threads carry requests; 1 or more.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// The cache of the process; `None` is `cache: off`.
    pub(crate) fn cache(&self) -> Option<&CacheSettings> {
        self.cache.as_ref()
    }

    /// Which clients may pull, and how much.
    pub(crate) fn access(&self) -> &Rules {
        &self.access
    }

    /// The most connections of clients; `None` is as many as the file descriptors suffice for.
    pub(crate) fn connections(&self) -> Option<NonZeroUsize> {
        self.connections
    }

    /// How many reads a minute each registry is asked for at most; `None` is no limit of this proxy's own.
    pub(crate) fn registry_reads_per_minute(&self) -> Option<NonZeroU32> {
        self.registry_reads_per_minute
    }

    /// Which proxy is between this host and Azure.
    pub(crate) fn egress(&self) -> &EgressSettings {
        &self.egress
    }

    /// What is logged, and how.
    pub(crate) fn log(&self) -> &logger::Settings {
        &self.log
    }
}

/// On a host that is to serve by it, the file has to be there and to hold certificates.
fn parse_ca_file(given: [Option<Text>; 2], host: Option<&ServingHost>, mistakes: &mut Mistakes) -> Option<PathBuf> {
    let place = given.iter().flatten().next().map(|(place, _)| place.clone());
    let path = FILE.ca_file.parse(given, mistakes)?;
    if let (Some(host), Some(place)) = (host, place) {
        if credential::is_elsewhere(&path) {
            host.lack(&path).into_iter().for_each(|lack| mistakes.add(&place, lack));
        } else if let Err(cause) = (host.check_ca_file)(&path) {
            mistakes.add(&place, format_args!("{}: {cause}", path.display()));
        }
    }
    Some(path)
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

#[cfg(test)]
mod tests;
