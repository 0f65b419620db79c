//! `serve`: builds the parts of the daemon, connects them and runs them.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
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

use crate::access::Gate;
use crate::admin::{Admin, Chronicler, State};
use crate::alarm::{self, Watcher};
use crate::config::identity::Kind;
use crate::config::{self, Config, Endpoint};
use crate::control::{self, Control};
use crate::identity;
use crate::listen;
use crate::listen::bind::BindError;
use crate::listen::certificate::TlsError;
use crate::listen::descriptors::{self, TooFewDescriptors};
use crate::listen::http::{Http, Keepalive};
use crate::listen::inherited::{HandedOver, Inherited};
use crate::listen::listener::Listeners;
use crate::listen::set::{CannotOpen, Change, ListenerSet, Wanted};
use crate::listen::signal::{self, Handlers};
use crate::load::Load;
use crate::metrics::Meters;
use crate::net::trust::{TrustError, TrustRoots};
use crate::notify::Notifier;
use crate::notify::watchdog::Watchdog;
use crate::program;
use crate::proxy::{self, Connections, Proxy, Table, has_kept, upstreams};

pub(crate) mod registry;
mod reload;
mod rounds;
mod spans;
mod table;
mod takeover;
mod upgrade;
mod upkeep;

use reload::{Asker, Reload, Source};
use rounds::Rounds;
use spans::SpanExport;
use table::RouteTable;
use takeover::Takeover;
use upgrade::Unready;

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
    /// A socket that was handed over to the process cannot be used.
    HandedOver(HandedOver),
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
                    BindError::Overlaps(_) => cause.fmt(f),
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
                if let BindError::Overlaps(_) = cause {
                    return write!(
                        f,
                        "{cause}: only a restart can take one for the other; choose another with {setting}, or restart"
                    );
                }
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
            Self::HandedOver(cause) => cause.fmt(f),
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
            Self::HandedOver(cause) => Some(cause),
            Self::Descriptors(cause) => Some(cause),
            Self::Trust(cause) => Some(cause),
            Self::Tls(cause) => Some(cause),
            Self::Client(cause) => Some(cause),
            Self::Setting(_) => None,
        }
    }
}

impl ServeError {
    /// A listener for clients that cannot be opened.
    pub(crate) fn cannot_listen(endpoint: Endpoint, cause: BindError) -> Self {
        Self::cannot_open(CannotOpen::Bind(listen::Kind::Clients, endpoint, cause))
    }

    fn cannot_open(cause: CannotOpen) -> Self {
        match cause {
            CannotOpen::Tls(cause) => Self::Tls(cause),
            CannotOpen::HandedOver(cause) => Self::HandedOver(cause),
            CannotOpen::Bind(kind, endpoint, cause) => {
                let setting = match kind {
                    listen::Kind::Clients => "--listen-address (listen in the file)",
                    listen::Kind::Admin => "--admin-address (admin in the file)",
                };
                Self::Listen { endpoint, setting, cause }
            }
        }
    }
}

/// Runs until a signal ends it. It listens at once, whether or not Azure is there yet. `source` reads the settings again.
pub(crate) fn serve(config: &Config, source: Source) -> Result<(), ServeError> {
    let inherited = Inherited::of_process().map_err(ServeError::HandedOver)?;
    let threads = config.threads();
    let shares = descriptors::share_out(threads).map_err(ServeError::Descriptors)?;
    // Both Pingora and reqwest take the process's provider; a second call finds the first one's and is no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let roots = TrustRoots::load(config.ca_file()).map_err(ServeError::Trust)?;
    let bundle = roots.bundle().map_err(ServeError::Trust)?;
    let connections = config.connections().map_or(shares.connections, |most| most.get().min(shares.connections));
    let load = Arc::new(Load::new(connections, shares.requests));
    load.gate.replace(config.access().clone());
    // An address in use fails the start before anything else is begun.
    let is_upgrade = inherited.is_upgrade();
    let (listeners, [clients, admin]) = ListenerSet::new(inherited, &load);
    let listeners = Arc::new(listeners);
    let prepared = listeners.prepare(wanted(config)).map_err(ServeError::cannot_open)?;
    let takeover = Takeover::new(Arc::clone(&listeners), prepared, Arc::clone(&load));

    let mut server = Server::new_with_opt_and_conf(
        None,
        ServerConf {
            threads,
            // With one thread there is nothing to steal, and tokio's multi-thread runtime costs a tenth more CPU time.
            work_stealing: threads > 1,
            max_retries: proxy::MAX_TRIES,
            // Pingora's own timers need a thread that wakes up a hundred times a second, also where nobody asks for anything.
            fast_timeout_to_tokio_threshold_seconds: Some(0),
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
    let calls = Connections::new(Some(ConnectorOptions::from_server_conf(&server.configuration)), shares.pool);
    let (table, mut upkeep) = RouteTable::new(roots.clone(), calls, &meters);
    table.replace(config)?;
    server.bootstrap();

    let spans = SpanExport::start(&roots, &table, &meters);
    let drain = Arc::new(ArcSwap::from_pointee(config.drain()));
    let notify = Arc::new(ArcSwap::from_pointee(config.notify().clone()));
    let (live, cache) = (table.live(), table.cache());
    let (asker, requests) = reload::channel();
    let control = answer_control(asker.clone(), &live, &takeover);
    let handlers = handlers(asker, control, &live, &listeners, &takeover, &spans);
    let end = signal::on_signals(Arc::clone(&load), Arc::clone(&drain), handlers).map_err(ServeError::Signals)?;
    if is_upgrade {
        info!("upgrade: this process serves when it has its tokens");
    } else {
        takeover.begin();
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
    config.upstreams().iter().filter_map(|upstream| upstream.doubt()).for_each(|doubt| warn!("{doubt}"));
    if config.upstreams().iter().any(|upstream| matches!(upstream.identity().kind(), Kind::Default)) {
        identity::passed_over().inspect(|sentence| warn!("{sentence}"));
    }
    alarm::doubt(&config.notify().command).inspect(|sentence| warn!("{sentence}"));
    let keepalive = Keepalive::new(config.client_keepalive());
    // Before anybody is told that this process is ready.
    let (started, current) = (config.clone(), config.clone());
    let reload = Reload {
        source,
        started,
        current,
        roots,
        table,
        keepalive: Arc::clone(&keepalive),
        drain,
        notify: Arc::clone(&notify),
        load: Arc::clone(&load),
        listeners: Arc::clone(&listeners),
        takeover: Arc::clone(&takeover),
    };
    reload.start(requests);
    let state = State {
        routes: Arc::clone(&live),
        cache,
        load: Arc::clone(&load),
        meters: Arc::clone(&meters),
        started: began,
    };
    let chronicler = Chronicler::new(Arc::clone(&meters));
    let http = Http::new(listen::Kind::Admin, Admin::new(state), &keepalive, &load);
    let (liveness, watchdog) = Watchdog::of_process();
    server.add_service(Listeners::new(admin, http, 1, &load, liveness.clone()));
    let watcher = Watcher::new(Arc::clone(&live), notify);
    let addresses = Box::new(move || listeners.addresses());
    let (routes, begun) = (Arc::clone(&live), takeover.begun());
    let notifier = Notifier::new(addresses, begun, is_upgrade, routes, Arc::clone(&load), watchdog);
    server.add_service(background_service("rounds", Rounds { chronicler, watcher, notifier }));
    if is_upgrade {
        takeover.begin_without_parent();
    }
    upkeep.liveness = liveness.clone();
    let mut upkeep = background_service("upkeep", upkeep);
    // A thread of its own, so that requests cannot delay a renewal.
    upkeep.threads = Some(1);
    server.add_service(upkeep);
    let proxy = spans.of(Proxy::new(live, &load, meters));
    let mut app = http_proxy(&server.configuration, proxy);
    app.server_options = Some(options());
    app.h2_options = Some(h2_options());
    let http = Http::new(listen::Kind::Clients, app, &keepalive, &load);
    server.add_service(Listeners::new(clients, http, threads, &load, liveness));
    server.run(RunArgs { shutdown_signal: Box::new(end) });
    // The drain was cut off, and the requests with it.
    program::end_all();
    spans.flush();
    drop(bundle);
    Ok(())
}

/// The listeners of these settings.
fn wanted(config: &Config) -> Vec<Wanted> {
    let clients = config.listeners().iter().cloned().map(|settings| Wanted { kind: listen::Kind::Clients, settings });
    let admin = config.admin().map(|address| {
        let endpoint = Endpoint::Address(address);
        let settings = config::Listener { endpoint, tls: None, proxy_protocol: None };
        Wanted { kind: listen::Kind::Admin, settings }
    });
    clients.chain(admin).collect()
}

/// Has a line in the log for each listener that has come, changed or gone. `gate` has the rules that clients pass.
fn announce(changes: &[Change], gate: &Gate) {
    for change in changes {
        match change {
            Change::Files => {}
            Change::Closed(url) => info!("{url}: closed, because the settings have it no more"),
            Change::Served { url, address, wanted, .. } if wanted.kind == listen::Kind::Admin => {
                info!(
                    "health and readiness on {url}/healthz and /readyz, a page for people at /, metrics at /metrics, counters at /cache"
                );
                if let Some(exposed) = address.and_then(exposed_admin) {
                    warn!("{exposed}");
                }
            }
            Change::Served { url, address, wanted, not_after } => {
                let settings = &wanted.settings;
                if let Some(ended) = not_after.and_then(|end| ended(url, end)) {
                    warn!("{ended}");
                }
                info!("acr-cache-proxy {}: listening on {url}{}", env!("CARGO_PKG_VERSION"), how(settings));
                if let Some(exposed) = address.and_then(|address| exposed(settings, address, gate.asks_for_names())) {
                    warn!("{exposed}");
                }
            }
        }
    }
}

/// A warning for a listener whose certificate has ended.
pub(crate) fn ended(url: &str, end: SystemTime) -> Option<String> {
    let is_over = end < SystemTime::now();
    is_over.then(|| format!("{url}: the certificate ended on {}: clients refuse it, renew it", fmt_http_date(end)))
}

/// A warning for a listener that whoever reaches this address may use; `access` may ask for names of certificates.
pub(crate) fn exposed(settings: &config::Listener, address: SocketAddr, asks_for_names: bool) -> Option<String> {
    let is_open = !address.ip().is_loopback() && !requires_certificates(settings, asks_for_names);
    is_open.then(|| format!("clients are not authenticated, and {address} is reachable from outside: protect the port"))
}

/// The same for the admin listener, which asks nobody who it is.
pub(crate) fn exposed_admin(address: SocketAddr) -> Option<String> {
    let is_open = !address.ip().is_loopback();
    is_open.then(|| {
        format!(
            "the admin listener is not authenticated, and {address} is reachable from outside: it names images and purges the cache, so let only probes and monitoring reach the port"
        )
    })
}

/// Whether a client without a certificate is refused, by the listener or, where that asks for one, by `access.certificates`.
fn requires_certificates(settings: &config::Listener, asks_for_names: bool) -> bool {
    let clients = settings.tls.as_ref().and_then(|tls| tls.clients.as_ref());
    clients.is_some_and(|clients| clients.is_required || asks_for_names)
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

/// What the process does at a signal.
fn handlers(
    asker: Asker,
    control: Control,
    live: &Arc<Table>,
    listeners: &Arc<ListenerSet>,
    takeover: &Arc<Takeover>,
    spans: &SpanExport,
) -> Handlers {
    let (live, takeover, spans) = (Arc::clone(live), Arc::clone(takeover), spans.clone());
    let [handed_over, stopped, closed] = [(); 3].map(|()| Arc::clone(listeners));
    let retried = control.clone();
    Handlers {
        reload: Box::new(move || {
            retried.retry();
            asker.ask();
        }),
        upgrade: Arc::new(move |cancelled| {
            if std::process::id() == 1 {
                return Err(
                    "it is the first of its container, which would end with it: replace the container".to_owned()
                );
            }
            if !takeover.has_begun() {
                return Err("it does not serve yet itself".to_owned());
            }
            let sockets = handed_over.sockets().map_err(|cause| format!("sockets: {cause}"))?;
            takeover.succeed(|| upgrade::replace(sockets, || without_token(&live), cancelled))
        }),
        ending: Box::new(move || control.close()),
        stop: Box::new(move |is_replaced| stopped.stop(is_replaced)),
        close: Box::new(move || closed.close()),
        last: Box::new(move || {
            program::end_all();
            spans.flush();
        }),
    }
}

/// Answers what is asked on the control socket.
fn answer_control(asker: Asker, live: &Arc<Table>, takeover: &Arc<Takeover>) -> Control {
    let (live, takeover) = (Arc::clone(live), Arc::clone(takeover));
    control::listen(move |request| match request {
        control::Request::Reload => asker.ask_and_wait(),
        control::Request::Unready => {
            let Unready { kept, nothing } = without_token(&live);
            Ok([kept, nothing].concat().join("\n"))
        }
        control::Request::Serve => {
            takeover.begin();
            Ok(String::new())
        }
    })
}

/// The registries for which there is no token now, by what clients get of them.
fn without_token(live: &Table) -> Unready {
    let lacks = upstreams(live).into_iter().filter(|upstream| !upstream.tokens.readiness().ready);
    let (kept, nothing): (Vec<_>, Vec<_>) = lacks.partition(|upstream| has_kept(live, upstream));
    let [kept, nothing] =
        [kept, nothing].map(|of| of.into_iter().map(|upstream| upstream.domain.authority().to_owned()).collect());
    Unready { kept, nothing }
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
