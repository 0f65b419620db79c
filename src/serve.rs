//! `serve`: the only place where the parts are put together.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use log::{info, warn};
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server, ShutdownWatch};
use pingora_core::services::background::{BackgroundService, background_service};
use pingora_core::services::listening::Service;
use pingora_proxy::http_proxy_service;

use crate::addresses::Addresses;
use crate::admin::Admin;
use crate::config::Config;
use crate::config::identity::Kind;
use crate::identity::Identity;
use crate::proxy::{self, Proxy, Upstream};
use crate::token::Tokens;
use crate::token::exchange::Registry;
use crate::trust::{TrustError, TrustRoots};

mod listener;
mod shutdown;

use listener::Listening;
use shutdown::MustNotEnd;

/// Idle connections to the registry that are kept, all addresses together. A host pulls three layers at a time and
/// image; a shared mirror serves some tens of hosts at once.
const UPSTREAM_POOL: usize = 128;

/// Why the program does not start; prints as one sentence.
#[derive(Debug)]
pub enum ServeError {
    /// The address cannot be listened on.
    Listen {
        /// This one.
        address: SocketAddr,
        /// What sets it.
        flag: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// The CA certificates cannot be used.
    Trust(TrustError),
    /// The system refuses to hand signals over.
    Signals(io::Error),
    /// The TLS client for the sign-in cannot be made.
    Client(reqwest::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { address, flag, cause } if cause.kind() == io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "listen {address}: the address is in use: stop the other program or choose another with {flag}"
                )
            }
            Self::Listen { address, flag, cause } => write!(f, "listen {address}: {cause}: choose another with {flag}"),
            Self::Trust(cause) => cause.fmt(f),
            Self::Signals(cause) => write!(f, "signal handlers: {cause}"),
            Self::Client(cause) => write!(f, "TLS client: {cause}"),
        }
    }
}

impl std::error::Error for ServeError {}

/// Runs until a signal ends it. It listens at once, whether or not Azure is there yet.
pub fn serve(config: &Config) -> Result<(), ServeError> {
    // Both Pingora and reqwest take the process's provider; a second call finds the first one's and is no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let roots = TrustRoots::load(config.ca_file()).map_err(ServeError::Trust)?;
    let bundle = roots.bundle().map_err(ServeError::Trust)?;
    let bind = |name, flag, address| {
        Listening::bind(name, address).map_err(|cause| ServeError::Listen { address, flag, cause })
    };
    let listening = bind("the listener", "--listen-address", config.listen())?;
    let admin = config.admin().map(|address| bind("the admin listener", "--admin-address", address)).transpose()?;

    let domain = config.upstream().domain();
    let addresses = Arc::new(Addresses::new(domain.host(), domain.port(), config.upstream().addresses()));
    let identity = match config.identity().kind() {
        Kind::Anonymous => None,
        _ => Some(Identity::new(config.identity(), &roots).map_err(ServeError::Client)?),
    };
    let registry =
        Registry::new(domain.clone(), identity, Arc::clone(&addresses), &roots).map_err(ServeError::Client)?;
    let tokens = Arc::new(Tokens::default());
    let in_flight = Arc::new(AtomicUsize::new(0));

    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut server = Server::new_with_opt_and_conf(
        None,
        ServerConf {
            threads,
            max_retries: proxy::MAX_TRIES,
            upstream_keepalive_pool_size: UPSTREAM_POOL,
            ca_file: Some(bundle.path()),
            // The drain ends by itself when the last request does; this is its bound.
            grace_period_seconds: Some(shutdown::DRAIN_LIMIT.as_secs()),
            graceful_shutdown_timeout_seconds: Some(1),
            ..ServerConf::default()
        },
    );
    server.bootstrap();

    let shutdown = shutdown::on_signals(&server, Arc::clone(&in_flight)).map_err(ServeError::Signals)?;
    let proxy = Proxy::new(
        Upstream {
            domain: domain.clone(),
            prefix: config.upstream().prefix().clone(),
            addresses: Arc::clone(&addresses),
            tokens: Arc::clone(&tokens),
        },
        in_flight,
    );
    info!(
        "acr-cache-proxy {}: listening on http://{} for {} with prefix {:?}",
        env!("CARGO_PKG_VERSION"),
        listening.address(),
        domain.authority(),
        config.upstream().prefix().as_str(),
    );
    if !listening.address().ip().is_loopback() {
        warn!("clients are not authenticated, and {} is reachable from outside: protect the port", listening.address());
    }
    if let Some(admin) = admin {
        info!("health and readiness on http://{}/healthz and /readyz", admin.address());
        let states = vec![(domain.authority().to_owned(), Arc::clone(&tokens))];
        server.add_service(admin.serve(Service::new("admin".to_owned(), Admin::new(states))));
    }
    let upkeep = Upkeep { addresses, tokens, registry: Arc::new(registry) };
    server.add_service(background_service("upkeep", upkeep));
    server.add_service(listening.serve(http_proxy_service(&server.configuration, proxy)));
    server.run(RunArgs { shutdown_signal: Box::new(shutdown) });
    drop(bundle);
    Ok(())
}

/// What goes on behind the requests: addresses and tokens are kept fresh.
struct Upkeep {
    addresses: Arc<Addresses>,
    tokens: Arc<Tokens>,
    registry: Arc<Registry>,
}

#[async_trait]
impl BackgroundService for Upkeep {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let _alive = MustNotEnd::new("the upkeep of addresses and tokens", shutdown.clone());
        let issuer = Arc::clone(&self.registry);
        tokio::select! {
            () = self.addresses.keep_fresh() => {}
            () = self.tokens.run(issuer) => {}
            _ = shutdown.wait_for(|stop| *stop) => {}
        }
    }
}
