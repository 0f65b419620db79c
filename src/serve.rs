//! `serve`: builds the parts of the daemon, connects them and runs them.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use log::info;
use pingora_core::apps::HttpServerOptions;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use pingora_core::services::background::background_service;
use pingora_proxy::http_proxy;

use crate::admin::{Admin, Chronicler, State};
use crate::alarm::Watcher;
use crate::config::{self, Config, Endpoint};
use crate::control::{self, Control};
use crate::listen;
use crate::listen::descriptors;
use crate::listen::http::{Http, Keepalive};
use crate::listen::inherited::Inherited;
use crate::listen::listener::Listeners;
use crate::listen::set::{ListenerSet, Wanted};
use crate::listen::signal::{self, Handlers};
use crate::load::Load;
use crate::metrics::Meters;
use crate::net::trust::TrustRoots;
use crate::notify::Notifier;
use crate::notify::watchdog::Watchdog;
use crate::program;
use crate::proxy::{self, Connections, Proxy, Table};

pub(crate) mod announce;
mod error;
mod handover;
pub(crate) mod registry;
mod reload;
mod rounds;
mod spans;
mod standing;
mod table;
mod takeover;
mod upgrade;
mod upkeep;

pub(crate) use error::ServeError;

use reload::{Asker, Reload, Source};
use rounds::Rounds;
use spans::SpanExport;
use standing::Standing;
use table::RouteTable;
use takeover::Takeover;

/// Requests under way on one HTTP/2 connection. Clients that have more open another connection.
const MAX_STREAMS: u32 = 32;
/// Bytes that one HTTP/2 stream buffers for its client.
const MAX_STREAM_BUFFER: usize = 128 << 10;

/// Runs until a signal ends it. It listens at once, whether or not Azure is there yet. `source` reads the settings again.
pub(crate) fn serve(config: &Config, source: Source) -> Result<(), ServeError> {
    let mut inherited = Inherited::of_process().map_err(ServeError::HandedOver)?;
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
    let predecessor = inherited.predecessor();
    let is_upgrade = predecessor.is_some();
    let (listeners, [clients, admin]) = ListenerSet::new(inherited, &load);
    let listeners = Arc::new(listeners);
    let prepared = listeners.prepare(wanted(config)).map_err(ServeError::cannot_open)?;
    let takeover = Takeover::new(Arc::clone(&listeners), prepared, Arc::clone(&load));

    let mut server = pingora(threads, shares.pool, bundle.path());
    let (meters, began) = (Arc::new(Meters::default()), Instant::now());
    let calls = Connections::new(Some(ConnectorOptions::from_server_conf(&server.configuration)), shares.pool);
    let (mut table, mut upkeep) = RouteTable::new(roots.clone(), calls, &meters);
    table.replace(config)?;
    server.bootstrap();

    let spans = SpanExport::start(&roots, &table, &meters);
    let drain = Arc::new(ArcSwap::from_pointee(config.drain()));
    let notify = Arc::new(ArcSwap::from_pointee(config.notify().clone()));
    let (live, cache) = (table.live(), table.cache());
    let (asker, requests) = reload::channel();
    let control = control::listen({
        let asker = asker.clone();
        move || asker.ask_and_wait()
    });
    let handlers = handlers(asker, control, &live, &listeners, &takeover, &spans);
    let end = signal::on_signals(Arc::clone(&load), Arc::clone(&drain), handlers).map_err(ServeError::Signals)?;
    if is_upgrade {
        info!("upgrade: this process serves when it has its tokens");
    } else {
        takeover.begin();
    }
    announce::settings(config, table.egress_proxy().as_deref());
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
        lost: Box::new({
            let listeners = Arc::clone(&listeners);
            move || listeners.lost()
        }),
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
    if let Some(predecessor) = predecessor {
        takeover.obey(predecessor, &live, &upkeep.runtime);
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

/// Pingora's server, without a service yet. `pool` is how many connections to registries and storage stay open for another request.
fn pingora(threads: usize, pool: usize, ca_file: String) -> Server {
    Server::new_with_opt_and_conf(
        None,
        ServerConf {
            threads,
            // With one thread there is nothing to steal, and tokio's multi-thread runtime costs a tenth more CPU time.
            work_stealing: threads > 1,
            max_retries: proxy::MAX_TRIES,
            // Pingora's own timers need a thread that wakes up a hundred times a second, also where nobody asks for anything.
            fast_timeout_to_tokio_threshold_seconds: Some(0),
            // Pingora keeps so many connections for each thread.
            upstream_keepalive_pool_size: pool.div_ceil(threads),
            ca_file: Some(ca_file),
            // Pingora is told to end when the drain is over.
            grace_period_seconds: Some(0),
            graceful_shutdown_timeout_seconds: Some(1),
            ..ServerConf::default()
        },
    )
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
            takeover.succeed(|| upgrade::replace(sockets, || Standing::of(&live), cancelled))
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
