//! An emulator of Azure on loopback: Entra ID, a container registry, and its blob storage.
//!
//! It speaks the protocols as Azure does, over TLS with a CA of its own, and validates requests as strictly. It knows
//! nothing about its clients: it records their requests and injects the faults that a test asks for.
//!
//! # Map, in the order of a request
//!
//! ```text
//! listener                              accepts connections, with or without TLS
//! handler                               one request: reads it, records it, sends the answer
//!   outcome                             the answer of the server, or what the injected fault makes of it
//!     entra, identity, registry, storage    the four servers: a request in, an answer out
//!   payload, script                     an answer on the wire: sent whole, cut, delayed, or written past hyper
//!   connection, wire                    the connection that carries it: its bytes, flushes and resets
//! fault, record                         what a test injects, and what it reads afterwards
//! state, store, options, image          what the servers share: settings, keys, images
//! rate_limits                           how many calls a minute they answer
//! request, query, answer, token, jwt    the values that pass between them
//! ```
//!
//! Sources: Azure/acr's documents, recordings in Azure's SDKs, and issues; each module names its own, and says which
//! behaviour is inferred.

mod answer;
mod busybox;
mod certificate;
mod clock;
mod connection;
mod entra;
mod fault;
mod gzip;
mod handler;
mod identity;
mod image;
mod jwt;
mod listener;
mod lock;
mod options;
mod outcome;
mod payload;
mod query;
mod random;
mod rate_limits;
mod record;
mod registry;
mod request;
mod script;
mod state;
mod storage;
mod store;
mod token;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

pub use crate::busybox::static_busybox;
pub use crate::fault::{Fault, Injection};
pub use crate::image::{Image, Pushed};
pub use crate::options::{CLIENT_ID, CLIENT_SECRET, Client, ManagedIdentity, Options, TENANT};
pub use crate::rate_limits::RateLimits;
pub use crate::record::{Hop, Recorded, Server};

use crate::certificate::Tls;
use crate::listener::serve;
use crate::state::State;

/// What waits for a request looks at the record once in this time, and not at the whole of it for each request of a burst.
const LOOK: Duration = Duration::from_millis(2);

/// A running emulator.
///
/// Dropping it stops the servers and closes their connections. The runtime does that a moment later, so the ports are
/// certain to be free only when the runtime has ended.
pub struct Emulator {
    state: Arc<State>,
    ca_pem: String,
    certificate_pem: String,
    key_pem: String,
    registry_addr: SocketAddr,
    entra_addr: SocketAddr,
    identity_addr: Option<SocketAddr>,
    servers: Vec<AbortHandle>,
}

impl Emulator {
    /// Binds the listeners and serves them on the current tokio runtime.
    ///
    /// The error names the server and the address that could not be bound.
    pub async fn start(options: Options) -> io::Result<Emulator> {
        let mut names = vec![options.login_server.clone()];
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        names.extend(options.extra_names.iter().cloned());
        if !names.contains(&options.storage_host) {
            names.push(options.storage_host.clone());
        }
        let tls = Tls::new(names)?;
        let (registry, registry_addr) = bind("registry", options.registry_listen).await?;
        let (entra, entra_addr) = bind("entra", options.entra_listen).await?;
        let (storage, storage_addr) = bind("storage", options.storage_listen).await?;
        let identity = match options.identity_listen {
            Some(address) => Some(bind("identity", address).await?),
            None => None,
        };
        let storage_tls = options.storage_tls.then(|| tls.acceptor.clone());
        let state = Arc::new(State::new(options, registry_addr, storage_addr)?);
        let spawn =
            |listener, server, tls| tokio::spawn(serve(listener, server, tls, Arc::clone(&state))).abort_handle();
        let mut servers = vec![
            spawn(registry, Server::Registry, Some(tls.acceptor.clone())),
            spawn(entra, Server::Entra, Some(tls.acceptor.clone())),
            spawn(storage, Server::Storage, storage_tls),
        ];
        let mut identity_addr = None;
        if let Some((listener, address)) = identity {
            servers.push(spawn(listener, Server::Identity, None));
            identity_addr = Some(address);
        }
        let Tls { ca_pem, certificate_pem, key_pem, .. } = tls;
        Ok(Emulator { state, ca_pem, certificate_pem, key_pem, registry_addr, entra_addr, identity_addr, servers })
    }

    /// Where the registry listens.
    pub fn registry_addr(&self) -> SocketAddr {
        self.registry_addr
    }

    /// Where Entra ID listens.
    pub fn entra_addr(&self) -> SocketAddr {
        self.entra_addr
    }

    /// Where blob storage listens.
    pub fn storage_addr(&self) -> SocketAddr {
        self.state.storage_addr
    }

    /// Where the managed identity endpoints listen, if they do.
    pub fn identity_addr(&self) -> Option<SocketAddr> {
        self.identity_addr
    }

    /// The base address of Entra ID, in the form of `AZURE_AUTHORITY_HOST`.
    pub fn authority(&self) -> String {
        format!("https://{}/", self.entra_addr)
    }

    /// The CA that signed the certificate of all TLS listeners, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The certificate of all TLS listeners and its key, in PEM, for further servers of a test.
    pub fn certificate_and_key_pem(&self) -> (&str, &str) {
        (&self.certificate_pem, &self.key_pem)
    }

    /// Puts an image into the registry.
    ///
    /// # Panics
    /// When the image has no architecture or its program cannot be read; [`Emulator::try_push`]
    /// returns the error instead.
    pub fn push(&self, image: Image) -> Pushed {
        match self.try_push(&image) {
            Ok(pushed) => pushed,
            Err(error) => panic!("image {}:{}: {error}", image.repository, image.tag),
        }
    }

    /// Puts an image into the registry, under its repository and tag.
    pub fn try_push(&self, image: &Image) -> io::Result<Pushed> {
        let built = image::build(image)?;
        Ok(self.state.store.put(&image.repository, &image.tag, built))
    }

    /// Adds a tag to a manifest that is there.
    pub fn tag(&self, repository: &str, digest: &str, tag: &str) {
        self.state.store.tag(repository, digest, tag);
    }

    /// Removes a tag, but not the manifest that it names; false if there is no such tag.
    pub fn delete_tag(&self, repository: &str, tag: &str) -> bool {
        self.state.store.delete_tag(repository, tag)
    }

    /// Removes a manifest and all tags that name it, as `DELETE` of a digest does; false if there is no such manifest.
    pub fn delete_manifest(&self, repository: &str, digest: &str) -> bool {
        self.state.store.delete_manifest(repository, digest)
    }

    /// From now on a tag, or a whole repository, is not imported yet: its manifests and the redirects to its blobs come
    /// with `X-Azure-Origin: upstream` (Azure/acr#862; that redirects have it is inferred).
    ///
    /// A tag stands for all that its manifest refers to. Unlike Azure's, the import does not follow by itself.
    pub fn mark_not_imported(&self, repository: &str, tag: Option<&str>) {
        self.state.store.set_imported(repository, tag, false);
    }

    /// Ends what [`Emulator::mark_not_imported`] began with the same arguments.
    pub fn import(&self, repository: &str, tag: Option<&str>) {
        self.state.store.set_imported(repository, tag, true);
    }

    /// Takes the right to pull from this repository away from every identity: new tokens do not grant it, and the earlier
    /// ones are too narrow.
    pub fn revoke_repository(&self, repository: &str) {
        self.state.revoke(repository);
    }

    /// Gives back what [`Emulator::revoke_repository`] took away.
    pub fn restore_repository(&self, repository: &str) {
        self.state.restore(repository);
    }

    /// Puts a manifest of any kind and size under a tag and returns its digest. What it refers to is not checked.
    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: impl Into<Bytes>) -> String {
        self.state.store.put_manifest(repository, tag, media_type, bytes.into())
    }

    /// Adds an artifact (a signature, say) that refers to a manifest, and returns its digest.
    pub fn attach(&self, repository: &str, subject: &str, artifact_type: &str, payload: impl Into<Bytes>) -> String {
        self.state.store.attach(repository, subject, artifact_type, payload.into())
    }

    /// The bytes of a manifest, by tag or digest.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<Bytes> {
        let tagged = self.state.store.tagged(repository, reference);
        let digest = tagged.as_deref().unwrap_or(reference);
        Some(self.state.store.manifest(repository, digest)?.bytes)
    }

    /// The bytes of a blob.
    pub fn blob(&self, digest: &str) -> Option<Bytes> {
        self.state.store.blob(digest)
    }

    /// All requests so far, in the order of their answers.
    pub fn requests(&self) -> Vec<Recorded> {
        self.state.journal.all()
    }

    /// All requests so far; they are removed from the record.
    pub fn take_requests(&self) -> Vec<Recorded> {
        self.state.journal.take()
    }

    /// Removes the requests so far from the record.
    pub fn clear_requests(&self) {
        self.state.journal.take();
    }

    /// Looks at the requests so far without a copy of them. They wait for `look`, and so do the servers.
    pub fn with_requests<T>(&self, look: impl FnOnce(&[Recorded]) -> T) -> T {
        self.state.journal.with(look)
    }

    /// How often each object was asked for since the record was last cleared: requests to the registry's data plane by
    /// method and target, as `GET /v2/hub/a/manifests/latest`, whatever they were answered.
    pub fn reads(&self) -> BTreeMap<String, usize> {
        self.state.journal.reads()
    }

    /// Waits until the requests so far satisfy a condition.
    pub async fn wait_for<F: Fn(&[Recorded]) -> bool>(&self, condition: F) {
        let mut changes = self.state.journal.subscribe();
        while !self.state.journal.with(&condition) {
            // Cannot fail: the sender is in our own state.
            if changes.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Makes a hop fail until [`Emulator::clear_faults`], or as often as the injection says.
    pub fn inject(&self, hop: Hop, fault: impl Into<Injection>) {
        self.state.faults.add(hop, fault.into());
    }

    /// Ends all faults, and accepts connections again. Requests that already hang are not released.
    pub fn clear_faults(&self) {
        self.state.faults.clear();
        for server in [Server::Entra, Server::Registry, Server::Storage, Server::Identity] {
            self.state.set_refusing(server, false);
        }
    }

    /// Resets every new connection to a server and closes the open ones; or, with `false`, accepts connections again.
    pub fn refuse_connections(&self, server: Server, refuse: bool) {
        self.state.set_refusing(server, refuse);
        if refuse {
            self.state.close_connections(server);
        }
    }

    /// Closes (FIN) every connection to a server, as a load balancer does with idle ones.
    pub fn close_connections(&self, server: Server) {
        self.state.close_connections(server);
    }

    /// From now on the registry answers 401 to every access token issued so far.
    pub fn revoke_tokens(&self) {
        self.state.access_tokens.revoke_all();
    }

    /// From now on the registry's exchange refuses every Entra token issued so far with 401, as if the session
    /// had been revoked. A host that slept sees the same: its token has expired, and it does not know.
    pub fn revoke_entra_tokens(&self) {
        self.state.sessions.revoke_all();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        for server in &self.servers {
            server.abort();
        }
    }
}

async fn bind(server: &str, address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{server} on {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(named)?;
    let bound = listener.local_addr().map_err(named)?;
    Ok((listener, bound))
}
