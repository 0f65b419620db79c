//! What the servers share.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::watch;

use crate::clock::Clock;
use crate::fault::Faults;
use crate::jwt::Signer;
use crate::lock::lock;
use crate::options::Options;
use crate::random;
use crate::rate_limits::Meter;
use crate::record::{Journal, Server};
use crate::store::Store;

/// Serial numbers of tokens, so that all tokens issued so far can be revoked.
#[derive(Default)]
pub(crate) struct Serials {
    next: AtomicU64,
    revoked_before: AtomicU64,
}

impl Serials {
    /// The serial number of a new token.
    pub(crate) fn next_serial(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    /// Whether a token is revoked; `id` is its identifier, which ends in the serial number. A token without one is not ours.
    pub(crate) fn is_revoked(&self, id: &str) -> bool {
        let serial = id.rsplit_once('-').and_then(|(_, serial)| u64::from_str_radix(serial, 16).ok());
        serial.is_none_or(|serial| serial < self.revoked_before.load(Ordering::SeqCst))
    }

    pub(crate) fn revoke_all(&self) {
        self.revoked_before.store(self.next.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

/// Everything behind the listeners.
pub(crate) struct State {
    pub(crate) options: Options,
    registry_addr: SocketAddr,
    pub(crate) storage_addr: SocketAddr,
    pub(crate) clock: Clock,
    pub(crate) journal: Journal,
    pub(crate) faults: Faults,
    pub(crate) store: Store,
    pub(crate) entra_signer: Signer,
    pub(crate) registry_signer: Signer,
    /// The key of SAS signatures: the registry signs with it, and storage verifies.
    pub(crate) account_key: [u8; 32],
    /// The registry's identifier, part of every blob's address.
    pub(crate) registry_id: String,
    connections: AtomicU64,
    /// The registry's access tokens.
    pub(crate) access_tokens: Serials,
    /// Entra's tokens.
    pub(crate) sessions: Serials,
    /// Repositories that nobody may pull from.
    revoked: Mutex<HashSet<String>>,
    pub(crate) meter: Meter,
    refusing: [AtomicBool; 4],
    closing: [watch::Sender<()>; 4],
}

impl State {
    pub(crate) fn new(options: Options, registry_addr: SocketAddr, storage_addr: SocketAddr) -> io::Result<State> {
        Ok(State {
            clock: Clock::new(options.clock_skew),
            options,
            registry_addr,
            storage_addr,
            journal: Journal::new(),
            faults: Faults::default(),
            store: Store::default(),
            entra_signer: Signer::new()?,
            registry_signer: Signer::new()?,
            account_key: random::bytes(),
            registry_id: random::guid().replace('-', ""),
            connections: AtomicU64::new(0),
            access_tokens: Serials::default(),
            sessions: Serials::default(),
            revoked: Mutex::default(),
            meter: Meter::default(),
            refusing: Default::default(),
            closing: Default::default(),
        })
    }

    /// Where a challenge sends clients: the login server, with the port if it is not Azure's.
    pub(crate) fn realm(&self) -> String {
        let server = &self.options.login_server;
        match self.options.registry_port.unwrap_or_else(|| self.registry_addr.port()) {
            443 => format!("https://{server}/oauth2/token"),
            port => format!("https://{server}:{port}/oauth2/token"),
        }
    }

    pub(crate) fn revoke(&self, repository: &str) {
        lock(&self.revoked).insert(repository.to_owned());
    }

    pub(crate) fn restore(&self, repository: &str) {
        lock(&self.revoked).remove(repository);
    }

    pub(crate) fn is_revoked(&self, repository: &str) -> bool {
        lock(&self.revoked).contains(repository)
    }

    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn is_refusing(&self, server: Server) -> bool {
        self.refusing[server as usize].load(Ordering::SeqCst)
    }

    pub(crate) fn set_refusing(&self, server: Server, refuse: bool) {
        self.refusing[server as usize].store(refuse, Ordering::SeqCst);
    }

    /// Changes when the connections of a server are to be closed.
    pub(crate) fn closing(&self, server: Server) -> watch::Receiver<()> {
        self.closing[server as usize].subscribe()
    }

    pub(crate) fn close_connections(&self, server: Server) {
        self.closing[server as usize].send_replace(());
    }
}
