//! `serve`: builds the parts of the daemon, connects them and runs them.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use httpdate::fmt_http_date;
use log::{info, warn};
use pingora_core::apps::HttpServerOptions;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use pingora_core::services::background::background_service;
use pingora_proxy::http_proxy;

use crate::admin::{Admin, Chronicler, State};
use crate::config::identity::Kind;
use crate::config::{self, Config, Endpoint};
use crate::control;
use crate::identity;
use crate::listen;
use crate::listen::bind::{BindError, Listener};
use crate::listen::certificate::TlsError;
use crate::listen::descriptors::{self, TooFewDescriptors};
use crate::listen::http::{Http, Keepalive};
use crate::listen::listener::Listeners;
use crate::listen::opening::Opening;
use crate::listen::signal;
use crate::load::Load;
use crate::metrics::Meters;
use crate::net::trust::{TrustError, TrustRoots};
use crate::notify::Notifier;
use crate::proxy::{self, Proxy};

mod reload;
mod table;
mod upkeep;

use reload::{Reload, Source};
use table::RouteTable;

/// Requests under way on one HTTP/2 connection. Clients that have more open another connection.
const MAX_STREAMS: u32 = 32;
/// Bytes that one HTTP/2 stream buffers for its client.
const MAX_STREAM_BUFFER: usize = 128 << 10;

/// Why the program does not start; prints as one sentence.
#[derive(Debug)]
pub(crate) enum ServeError {
    /// The address or the Unix socket cannot be listened on.
    Listen {
        /// This one.
        endpoint: Endpoint,
        /// What sets it: a flag and a key of the file.
        setting: &'static str,
        /// Why.
        cause: BindError,
    },
    /// The process may open fewer files than it needs to start.
    Descriptors(TooFewDescriptors),
    /// A setting that turns out to be wrong only at the start: its file and line or variable, and what is wrong.
    Setting(String),
    /// The CA certificates cannot be used.
    Trust(TrustError),
    /// A listener's certificates cannot be used.
    Tls(TlsError),
    /// The signal handlers cannot be installed.
    Signals(io::Error),
    /// The TLS client for the sign-in cannot be made.
    Client(reqwest::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { endpoint, cause, .. } if endpoint.address().is_none() => {
                write!(f, "listen {endpoint}: ")?;
                match cause {
                    BindError::NoSocket => {
                        write!(f, "{cause}, and it is not removed: remove it, or choose another path")
                    }
                    BindError::System(cause) => match cause.kind() {
                        io::ErrorKind::AddrInUse => {
                            f.write_str("another process serves it: stop that one, or choose another path")
                        }
                        io::ErrorKind::NotFound => f.write_str(
                            "its folder is not there: make it (RuntimeDirectory= in a unit), or choose another path",
                        ),
                        io::ErrorKind::PermissionDenied => f.write_str(
                            "this user may not make it there: choose a folder of its own (RuntimeDirectory= in a unit)",
                        ),
                        _ => write!(f, "{cause}: choose another path"),
                    },
                }
            }
            Self::Listen { endpoint, setting, cause } => {
                write!(f, "listen {endpoint}: ")?;
                let kind = if let BindError::System(cause) = cause { cause.kind() } else { io::ErrorKind::Other };
                match kind {
                    io::ErrorKind::AddrInUse => {
                        write!(f, "the address is in use: stop the other program or choose another with {setting}")
                    }
                    io::ErrorKind::PermissionDenied => write!(
                        f,
                        "a port below 1024 needs the capability CAP_NET_BIND_SERVICE: give it to the program (AmbientCapabilities= in a unit), or choose another with {setting}"
                    ),
                    io::ErrorKind::AddrNotAvailable => {
                        write!(f, "this host has no such address: choose another with {setting}")
                    }
                    _ => write!(f, "{cause}: choose another with {setting}"),
                }
            }
            Self::Descriptors(cause) => cause.fmt(f),
            Self::Setting(wrong) => f.write_str(wrong),
            Self::Trust(cause) => cause.fmt(f),
            Self::Tls(cause) => write!(f, "listen: {}", cause.to_sentence()),
            Self::Signals(cause) => write!(f, "signal handlers: {cause}"),
            Self::Client(cause) => write!(f, "TLS client: {cause}"),
        }
    }
}

impl Error for ServeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Listen { cause, .. } => Some(cause),
            Self::Signals(cause) => Some(cause),
            Self::Descriptors(cause) => Some(cause),
            Self::Trust(cause) => Some(cause),
            Self::Tls(cause) => Some(cause),
            Self::Client(cause) => Some(cause),
            Self::Setting(_) => None,
        }
    }
}

/// Runs until a signal ends it. It listens at once, whether or not Azure is there yet. `source` reads the settings again.
pub(crate) fn serve(config: &Config, source: Source) -> Result<(), ServeError> {
    let threads = config.threads();
    let shares = descriptors::share_out(threads).map_err(ServeError::Descriptors)?;
    // Both Pingora and reqwest take the process's provider; a second call finds the first one's and is no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let roots = TrustRoots::load(config.ca_file()).map_err(ServeError::Trust)?;
    let bundle = roots.bundle().map_err(ServeError::Trust)?;
    // Read before the sockets are bound: what is wrong with a file is found before an address in use.
    let openings =
        config.listeners().iter().map(Opening::load).collect::<Result<Vec<_>, _>>().map_err(ServeError::Tls)?;
    let (clients, admin): (Vec<_>, Vec<_>) =
        bind(config)?.into_iter().partition(|listener| listener.kind() == listen::Kind::Clients);

    let connections = config.connections().map_or(shares.connections, |most| most.get().min(shares.connections));
    let load = Arc::new(Load::new(connections, shares.requests));
    load.gate.replace(config.access().clone());

    let mut server = Server::new_with_opt_and_conf(
        None,
        ServerConf {
            threads,
            // With one thread there is nothing to steal, and tokio's multi-thread runtime costs a tenth more CPU time.
            work_stealing: threads > 1,
            max_retries: proxy::MAX_TRIES,
            // Pingora keeps so many connections for each thread.
            upstream_keepalive_pool_size: shares.pool.div_ceil(threads),
            ca_file: Some(bundle.path()),
            // Pingora is told to end when the drain is over.
            grace_period_seconds: Some(0),
            graceful_shutdown_timeout_seconds: Some(1),
            ..ServerConf::default()
        },
    );
    let (meters, began) = (Arc::new(Meters::default()), Instant::now());
    let connector = ConnectorOptions::from_server_conf(&server.configuration);
    let (table, upkeep) = RouteTable::new(roots.clone(), connector, &meters);
    table.replace(config)?;
    server.bootstrap();

    let drain = Arc::new(ArcSwap::from_pointee(config.drain()));
    let (asker, requests) = reload::channel();
    let on_hangup = asker.clone();
    let signals = signal::on_signals(Arc::clone(&load), Arc::clone(&drain), move || on_hangup.ask());
    let (shutdown, end) = signals.map_err(ServeError::Signals)?;
    for ((listener, settings), opening) in clients.iter().zip(config.listeners()).zip(&openings) {
        let how = how(settings);
        if let Some(end) = opening.tls.as_ref().map(|tls| tls.not_after()).filter(|end| *end < SystemTime::now()) {
            warn!("{}: the certificate ended on {}: clients refuse it, renew it", listener.url(), fmt_http_date(end));
        }
        info!("acr-cache-proxy {}: listening on {}{how}", env!("CARGO_PKG_VERSION"), listener.url());
    }
    for route in config.routes().iter() {
        let upstream = route.destination.upstream.domain().authority();
        let prefix = route.prefix.as_str();
        let slash = if prefix.is_empty() { "" } else { "/" };
        let is_off = config.cache().is_some() && route.destination.lifetimes.is_none();
        let cache = if is_off { ", cache: off" } else { "" };
        info!("route: {} -> {upstream}{slash}{prefix}{cache}", route.source);
    }
    if let Some(proxy) = table.egress_proxy() {
        info!("egress: through {proxy}");
    }
    match config.cache() {
        Some(cache) => info!("cache: up to {} MiB of memory", cache.memory >> 20),
        None => info!("cache: off"),
    }
    let is_open = |settings: &&config::Listener| {
        let clients = settings.tls.as_ref().and_then(|tls| tls.clients.as_ref());
        !clients.is_some_and(|clients| clients.is_required)
    };
    let open = clients.iter().zip(config.listeners()).filter(|(_, settings)| is_open(settings));
    for address in open.filter_map(|(listener, _)| listener.address()).filter(|address| !address.ip().is_loopback()) {
        warn!("clients are not authenticated, and {address} is reachable from outside: protect the port");
    }
    if config.upstreams().iter().any(|upstream| matches!(upstream.identity().kind(), Kind::Default)) {
        identity::passed_over().inspect(|sentence| warn!("{sentence}"));
    }
    for listener in &admin {
        info!(
            "health and readiness on {}/healthz and /readyz, a page for people at /, metrics at /metrics, counters at /cache",
            listener.url()
        );
    }
    let keepalive = Keepalive::new(config.client_keepalive());
    let live = table.live();
    // Before anybody is told that this process is ready.
    let (started, current) = (config.clone(), config.clone());
    Reload {
        source,
        started,
        current,
        roots,
        table,
        keepalive: Arc::clone(&keepalive),
        drain,
        load: Arc::clone(&load),
    }
    .start(requests);
    control::listen(move |control::Request::Reload| asker.ask_and_wait());
    if !admin.is_empty() {
        let state =
            State { routes: Arc::clone(&live), load: Arc::clone(&load), meters: Arc::clone(&meters), started: began };
        let mut history = background_service("history", Chronicler::new(Arc::clone(&meters)));
        history.threads = Some(1);
        server.add_service(history);
        let app = Admin::new(state);
        let http = Http::new(listen::Kind::Admin, app, &keepalive, &load);
        let admin = admin.into_iter().map(|listener| (listener, Opening::plain())).collect();
        server.add_service(Listeners::new(admin, http, 1, &load, shutdown.clone()));
    }
    let addresses = clients.iter().filter_map(Listener::address).collect();
    let urls = clients.iter().map(Listener::url).collect();
    if let Some(notifier) = Notifier::ready(addresses, urls, Arc::clone(&live), Arc::clone(&load)) {
        server.add_service(background_service("service manager", notifier));
    }
    let mut upkeep = background_service("upkeep", upkeep);
    // A thread of its own, so that requests cannot delay a renewal.
    upkeep.threads = Some(1);
    server.add_service(upkeep);
    let proxy = Proxy::new(live, &load, meters);
    let mut app = http_proxy(&server.configuration, proxy);
    app.server_options = Some(options());
    app.h2_options = Some(h2_options());
    let http = Http::new(listen::Kind::Clients, app, &keepalive, &load);
    let clients = clients.into_iter().zip(openings).collect();
    server.add_service(Listeners::new(clients, http, threads, &load, shutdown));
    server.run(RunArgs { shutdown_signal: Box::new(end) });
    drop(bundle);
    Ok(())
}

/// Binds all listeners. Called before anything else starts, so that an address in use fails the start at once.
fn bind(config: &Config) -> Result<Vec<Listener>, ServeError> {
    let client = |listener: &config::Listener| {
        let setting = "--listen-address (listen in the file)";
        (listen::Kind::Clients, listener.endpoint.clone(), listener.tls.is_some(), setting)
    };
    let admin =
        |address| (listen::Kind::Admin, Endpoint::Address(address), false, "--admin-address (admin in the file)");
    let clients = config.listeners().iter().map(client);
    let bind = |(kind, endpoint, has_tls, setting)| {
        Listener::bind(kind, &endpoint, has_tls).map_err(|cause| ServeError::Listen { endpoint, setting, cause })
    };
    clients.chain(config.admin().map(admin)).map(bind).collect()
}

/// What a listener asks of its clients, as the log has it.
fn how(settings: &config::Listener) -> String {
    let certificates = match settings.tls.as_ref().and_then(|tls| tls.clients.as_ref()) {
        Some(clients) if clients.is_required => ", client certificates required",
        Some(_) => ", client certificates optional",
        None => "",
    };
    let tls = if settings.tls.is_some() && settings.endpoint.address().is_none() { ", TLS" } else { "" };
    let proxy_protocol = if settings.proxy_protocol.is_some() { ", PROXY protocol" } else { "" };
    format!("{tls}{certificates}{proxy_protocol}")
}

fn options() -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    // CONNECT is then refused by this proxy with an OCI error, like every method that is not a pull; Pingora would answer
    // with an empty body.
    options.allow_connect_method_proxying = true;
    options
}

fn h2_options() -> H2Options {
    let mut options = default_h2_options();
    options.max_concurrent_streams(MAX_STREAMS).max_send_buffer_size(MAX_STREAM_BUFFER);
    options
}
