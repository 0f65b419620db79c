//! Which listeners are open: added, changed and removed while the process runs, and handed over to the one that takes its place.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use log::warn;
use pingora_core::server::ShutdownWatch;
use tokio::sync::{mpsc, watch};

use super::Kind;
use super::bind::{self, BindError};
use super::certificate::TlsError;
use super::inherited::{Handed, HandedOver, Inherited};
use super::opening::Opening;
use crate::config::{self, Endpoint};
use crate::load::{Guard, Load};

/// A listener that was removed is closed within this: what accepts its connections only has to be told.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// What is wrong with a Unix socket whose file is gone.
const GONE: &str = "its file was removed, or another has its place, and no client finds the socket";
/// systemd starts no socket unit alone while its service runs.
const RESTART: &str = "systemctl restart acr-cache-proxy.socket acr-cache-proxy";

/// A listener as the settings have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What it is for.
    pub kind: Kind,
    /// Where it is, and what it asks of each connection.
    pub settings: config::Listener,
}

impl Wanted {
    /// Whether both have the same queue of connections.
    fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.endpoint().is_at(other.endpoint())
    }

    fn endpoint(&self) -> &Endpoint {
        &self.settings.endpoint
    }
}

/// A listener that is to be served until it stops.
pub(crate) struct Opened {
    pub(super) kind: Kind,
    pub(super) listener: bind::Listener,
    pub(super) opening: Arc<ArcSwap<Opening>>,
    pub(super) stop: ShutdownWatch,
    pub(super) held: Arc<Held>,
    /// Counted until it is closed, if it is for clients: a signal may come before it is served.
    pub(super) open: Option<Guard>,
    /// Dropped when it is closed.
    pub(super) closed: blocking::Sender<()>,
}

/// What is kept of a listener while it is served.
pub(super) struct Held {
    /// To hand it over.
    socket: Mutex<Option<bind::Socket>>,
    /// Its queue has somebody else who serves it, or who keeps it for the next process.
    is_shared: AtomicBool,
}

impl Held {
    /// Closes this copy of the socket. Whether its queue is somebody else's from now on.
    pub(super) fn release(&self) -> bool {
        self.socket().take();
        self.is_shared.load(Ordering::Acquire)
    }

    fn socket(&self) -> MutexGuard<'_, Option<bind::Socket>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn duplicate(&self) -> io::Result<bind::Socket> {
        self.socket().as_ref().ok_or(io::ErrorKind::NotConnected)?.duplicate()
    }
}

/// What new settings make of the listeners: all that can fail is done, and nothing has changed yet.
pub(crate) struct Prepared(Vec<(Wanted, Opening, Place)>);

enum Place {
    /// One that is open, by its position.
    Open(usize),
    New(bind::Listener, bind::Socket),
}

/// A listener that is served in another way than before.
pub(crate) enum Change {
    /// It is new, or its connections open in another way.
    Served {
        /// As a person reads it.
        url: String,
        /// With the port that was chosen.
        address: Option<SocketAddr>,
        /// As the settings have it.
        wanted: Wanted,
        /// When its certificate ends.
        not_after: Option<SystemTime>,
    },
    /// Its certificate files have changed, which the log has been told.
    Files,
    /// It is closed.
    Closed(String),
    /// Its file was gone, or another's was in its place: its socket is closed, and a new one made, so that clients find it.
    MadeAgain(String),
    /// It stays as it was, which is told.
    Unchanged(String),
}

/// Why a listener cannot be opened.
#[derive(Debug)]
pub(crate) enum CannotOpen {
    /// Its certificates cannot be used.
    Tls(TlsError),
    /// Its address or its Unix socket cannot be listened on.
    Bind(Kind, Endpoint, BindError),
    /// What was handed over to this process is not what the settings have.
    HandedOver(HandedOver),
}

/// The listeners of the process.
pub(crate) struct ListenerSet {
    load: Arc<Load>,
    state: Mutex<State>,
}

struct State {
    inherited: Inherited,
    open: Vec<Open>,
    /// Where those for clients and for the admin endpoints go; `None` once no more work is taken in.
    services: Option<[mpsc::UnboundedSender<Opened>; 2]>,
}

struct Open {
    wanted: Wanted,
    /// With the port that was chosen.
    endpoint: Endpoint,
    opening: Arc<ArcSwap<Opening>>,
    held: Arc<Held>,
    /// Of a Unix socket.
    file: Option<bind::SocketFile>,
    stop: watch::Sender<bool>,
    closed: blocking::Receiver<()>,
}

impl ListenerSet {
    /// None yet, and what will be opened of each kind: for clients, and for the admin endpoints.
    pub(crate) fn new(inherited: Inherited, load: &Arc<Load>) -> (Self, [mpsc::UnboundedReceiver<Opened>; 2]) {
        let ((clients, opened), (admin, opened_admin)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let state = State { inherited, open: Vec::new(), services: Some([clients, admin]) };
        (Self { load: Arc::clone(load), state: Mutex::new(state) }, [opened, opened_admin])
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the certificates of these listeners, and binds those that are not open yet. Connections to them wait until
    /// [`Self::take`].
    pub(crate) fn prepare(&self, wanted: Vec<Wanted>) -> Result<Prepared, CannotOpen> {
        // What is wrong with a file is found before an address in use.
        let openings = wanted.iter().map(|wanted| Opening::load(&wanted.settings));
        let openings: Vec<_> = openings.collect::<Result<_, _>>().map_err(CannotOpen::Tls)?;
        let mut state = self.state();
        let State { inherited, open, .. } = &mut *state;
        // Before an address is bound: one that overlaps with it would only be in use.
        inherited.check(wanted.iter().map(Wanted::endpoint)).map_err(CannotOpen::HandedOver)?;
        let is_found = |index: &usize| open.get(*index).is_some_and(|open| !open.is_lost(inherited));
        let mut left: Vec<usize> = (0..open.len()).filter(is_found).collect();
        let positions: Vec<_> = wanted
            .iter()
            .map(|wanted| {
                let is_same = |index: &usize| open.get(*index).is_some_and(|open| open.wanted.is_same(wanted));
                left.iter().position(is_same).map(|at| left.swap_remove(at))
            })
            .collect();
        let removed: Vec<_> = left.into_iter().filter_map(|index| open.get(index)).collect();
        let place = |(wanted, position): (&Wanted, Option<usize>)| match position {
            Some(position) => Ok(Place::Open(position)),
            None => bind(wanted.endpoint(), inherited, open, &removed)
                .map_err(|cause| CannotOpen::Bind(wanted.kind, wanted.endpoint().clone(), cause)),
        };
        let places: Vec<_> = wanted.iter().zip(positions).map(place).collect::<Result<_, _>>()?;
        inherited.close_rest();
        let prepared = wanted.into_iter().zip(openings).zip(places);
        Ok(Prepared(prepared.map(|((wanted, opening), place)| (wanted, opening, place)).collect()))
    }

    /// Puts these in place of those that are open. Requests under way at others, or by other settings, are finished, and their
    /// connections end then. Returns what has changed, when what is no more is closed.
    pub(crate) fn take(&self, prepared: Prepared) -> Vec<Change> {
        let mut state = self.state();
        let State { inherited, open, services } = &mut *state;
        let Some(services) = services else { return Vec::new() };
        let mut changes = Vec::new();
        let mut before: Vec<_> = open.drain(..).map(Some).collect();
        let mut new = Vec::new();
        for (wanted, opening, place) in prepared.0 {
            open.extend(match place {
                Place::Open(position) => before.get_mut(position).and_then(Option::take).map(|mut open| {
                    let keeps_mode = open.change_mode(&wanted, inherited).err();
                    let unchanged = keeps_mode.into_iter().chain(open.lost_by_manager(inherited));
                    changes.extend(unchanged.map(Change::Unchanged));
                    changes.extend(open.change(wanted, opening));
                    open
                }),
                Place::New(listener, copy) => {
                    new.push(wanted.endpoint().clone());
                    let service = &services[usize::from(wanted.kind == Kind::Admin)];
                    let is_kept = inherited.keeps(wanted.endpoint());
                    let guard = (wanted.kind == Kind::Clients).then(|| self.load.listeners.enter());
                    let open = Open::new(wanted, opening, listener, copy, is_kept, guard, service);
                    changes.push(open.served());
                    Some(open)
                }
            });
        }
        let removed: Vec<_> = before.into_iter().flatten().collect();
        for open in &removed {
            let is_there_again = new.iter().any(|new| new.is_at(open.wanted.endpoint()));
            // Then the new one has another queue.
            let is_lost = open.is_lost(inherited);
            let is_shared = is_there_again && !is_lost;
            changes.push(match is_there_again && is_lost {
                true => Change::MadeAgain(open.url()),
                false => Change::Closed(open.url()),
            });
            open.remove_file(is_shared);
            open.stop(is_shared);
        }
        drop(state);
        for open in removed {
            // An error is what is waited for: the other end is dropped.
            let _ = open.closed.recv_timeout(CLOSE_LIMIT);
        }
        changes
    }

    /// The addresses of those for clients, and all of these as a person reads them.
    pub(crate) fn addresses(&self) -> (Vec<SocketAddr>, Vec<String>) {
        let state = self.state();
        let clients = || state.open.iter().filter(|open| open.wanted.kind == Kind::Clients);
        (clients().filter_map(|open| open.endpoint.address()).collect(), clients().map(Open::url).collect())
    }

    /// A sentence for each Unix socket that no client finds any more.
    pub(crate) fn lost(&self) -> Vec<String> {
        let State { inherited, open, .. } = &*self.state();
        let own = open
            .iter()
            .filter(|open| open.is_lost(inherited))
            .map(|open| format!("{}: {GONE}: reload, and it is made again (acr-cache-proxy reload)", open.url()));
        own.chain(open.iter().filter_map(|open| open.lost_by_manager(inherited))).collect()
    }

    /// All sockets once more, for a process that takes this one's place. It makes those anew that no client finds any more.
    pub(crate) fn sockets(&self) -> io::Result<Vec<Handed>> {
        let State { inherited, open, .. } = &*self.state();
        // The new process cannot tell: it has never seen the file.
        open.iter().filter_map(|open| open.lost_by_manager(inherited)).for_each(|sentence| warn!("{sentence}"));
        let handed = open.iter().filter(|open| !open.is_lost(inherited)).map(|open| {
            let socket = open.held.duplicate()?.into();
            Ok(Handed { socket, is_kept: inherited.keeps(open.wanted.endpoint()) })
        });
        handed.collect()
    }

    /// Closes those for clients. What waits in the queues is served, unless another process does that from now on, and has the admin
    /// listener as well. Else that one tells how this process does until [`Self::close`], each time by the last answer of a connection.
    pub(crate) fn stop(&self, is_replaced: bool) {
        let mut state = self.state();
        state.services = None;
        state.open.retain(|open| {
            let goes_on = open.wanted.kind == Kind::Admin && !is_replaced;
            if goes_on {
                open.opening.load().end(None);
            } else {
                open.stop(is_replaced);
            }
            goes_on
        });
    }

    /// Closes the rest.
    pub(crate) fn close(&self) {
        self.state().open.drain(..).for_each(|open| open.stop(false));
    }
}

/// A socket that was handed over, or that of a listener of the other kind that is removed; else a new one.
fn bind(endpoint: &Endpoint, inherited: &mut Inherited, open: &[Open], removed: &[&Open]) -> Result<Place, BindError> {
    let other = || removed.iter().find(|open| open.wanted.endpoint().is_at(endpoint));
    let listener = match inherited.socket(endpoint).or_else(|| other().map(|open| open.held.duplicate())) {
        Some(socket) => bind::Listener::new(socket?, endpoint)?,
        None => bind::Listener::bind(endpoint).map_err(|cause| {
            let is_in_use = matches!(&cause, BindError::System(cause) if cause.kind() == io::ErrorKind::AddrInUse);
            let own = open.iter().find(|open| open.endpoint.collides(endpoint)).filter(|_| is_in_use);
            own.and_then(|own| own.endpoint.address()).map_or(cause, BindError::Overlaps)
        })?,
    };
    let copy = listener.socket.duplicate()?;
    Ok(Place::New(listener, copy))
}

impl Open {
    fn new(
        wanted: Wanted,
        opening: Opening,
        listener: bind::Listener,
        copy: bind::Socket,
        is_kept: bool,
        open: Option<Guard>,
        service: &mpsc::UnboundedSender<Opened>,
    ) -> Self {
        let (stop, stopping) = watch::channel(false);
        let (is_open, closed) = blocking::channel();
        let opening = Arc::new(ArcSwap::from_pointee(opening));
        let held = Arc::new(Held { socket: Mutex::new(Some(copy)), is_shared: AtomicBool::new(is_kept) });
        let endpoint = listener.endpoint.clone();
        let opened = Opened {
            kind: wanted.kind,
            listener,
            opening: Arc::clone(&opening),
            stop: stopping,
            held: Arc::clone(&held),
            open,
            closed: is_open,
        };
        // Fails only while the program ends.
        let _ = service.send(opened);
        let file = bind::SocketFile::of(&endpoint);
        Self { wanted, endpoint, opening, held, file, stop, closed }
    }

    /// Before the listener is closed for good: nobody else will find its file either, unless somebody has its queue.
    fn remove_file(&self, is_shared: bool) {
        if let Some(file) = self.file.as_ref().filter(|_| !is_shared && !self.held.is_shared.load(Ordering::Acquire)) {
            let _ = file.remove().inspect_err(|cause| warn!("{}: its file stays behind: {cause}", self.url()));
        }
    }

    /// No client finds its socket any more: the file is gone, or another has its place. One that the service manager keeps is the
    /// manager's to make again.
    fn is_lost(&self, inherited: &Inherited) -> bool {
        let is_own = matches!(self.endpoint, Endpoint::Unix { .. }) && !inherited.keeps(&self.endpoint);
        is_own && self.file.as_ref().is_none_or(bind::SocketFile::is_lost)
    }

    /// The same of one that the service manager keeps, a sentence: only that can make it again. One whose file was never seen may be
    /// where this process cannot look.
    fn lost_by_manager(&self, inherited: &Inherited) -> Option<String> {
        let is_lost = inherited.keeps(&self.endpoint) && self.file.as_ref().is_some_and(bind::SocketFile::is_lost);
        is_lost.then(|| format!("{}: {GONE}: systemd keeps the socket, so restart both units ({RESTART})", self.url()))
    }

    /// Its file has the permissions of these settings from now on. The error is a sentence.
    fn change_mode(&self, wanted: &Wanted, inherited: &Inherited) -> Result<(), String> {
        let (old, new) = (self.wanted.endpoint(), wanted.endpoint());
        match (old, new) {
            (Endpoint::Unix { mode: old, .. }, Endpoint::Unix { mode, .. }) if old != mode && !inherited.keeps(new) => {
                let changed =
                    self.file.as_ref().map_or(Err(io::ErrorKind::NotFound.into()), |file| file.set_mode(*mode));
                changed.map_err(|cause| format!("{}: its permissions are not {mode:04o}: {cause}", self.url()))
            }
            _ => Ok(()),
        }
    }

    /// The listener has these settings from now on, and what was read for them.
    fn change(&mut self, wanted: Wanted, opening: Opening) -> Option<Change> {
        let before = std::mem::replace(&mut self.wanted, wanted);
        let (old, new) = (&before.settings, &self.wanted.settings);
        if (&old.tls, &old.proxy_protocol) == (&new.tls, &new.proxy_protocol) {
            let is_new = self.opening.load().take_files(&self.url(), opening);
            return is_new.then_some(Change::Files);
        }
        let opening = Arc::new(opening);
        self.opening.swap(Arc::clone(&opening)).end(Some(&opening));
        Some(self.served())
    }

    /// Takes in no more work. `is_shared`: somebody else has the same queue. From its return on each answer is the last one of its
    /// connection, also of one that is still in the queue.
    fn stop(&self, is_shared: bool) {
        self.held.is_shared.fetch_or(is_shared, Ordering::AcqRel);
        self.opening.load().end(None);
        self.stop.send_replace(true);
    }

    fn served(&self) -> Change {
        let not_after = self.opening.load().tls.as_ref().map(|tls| tls.not_after());
        Change::Served { url: self.url(), address: self.endpoint.address(), wanted: self.wanted.clone(), not_after }
    }

    fn url(&self) -> String {
        url(&self.endpoint, self.wanted.settings.tls.is_some())
    }
}

/// A listener as a person reads it: `http://127.0.0.1:8080`, `unix:/run/clients.sock`.
pub(super) fn url(endpoint: &Endpoint, has_tls: bool) -> String {
    match endpoint {
        Endpoint::Address(address) if has_tls => format!("https://{address}"),
        Endpoint::Address(address) => format!("http://{address}"),
        unix @ Endpoint::Unix { .. } => unix.to_string(),
    }
}
