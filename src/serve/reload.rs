//! The settings are read again while requests run: SIGHUP, or `acr-cache-proxy reload`.
//!
//! The whole configuration is read and checked as at the start. If anything is wrong with it, nothing changes.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arc_swap::ArcSwap;
use log::{info, warn};

use super::ServeError;
use super::table::RouteTable;
use super::takeover::Takeover;
use crate::config::{Config, Drain, Effect, Notify};
use crate::control::Outcome;
use crate::listen::http::Keepalive;
use crate::listen::set::{Change, ListenerSet};
use crate::load::Load;
use crate::net::trust::TrustRoots;
use crate::{alarm, logger, notify};

/// Reads the configuration as at the start of the process: the same file, flags and variables. An error has a line for each
/// mistake.
pub(crate) type Source = Box<dyn Fn() -> Result<Config, String> + Send>;

/// What is replaced, and what it is compared with.
pub(super) struct Reload {
    pub source: Source,
    /// The settings of the start, of which some stay in effect until the process ends.
    pub started: Config,
    /// The settings that were read last.
    pub current: Config,
    pub roots: TrustRoots,
    pub table: RouteTable,
    pub keepalive: Arc<Keepalive>,
    pub drain: Arc<ArcSwap<Drain>>,
    pub notify: Arc<ArcSwap<Notify>>,
    pub load: Arc<Load>,
    pub listeners: Arc<ListenerSet>,
    pub takeover: Arc<Takeover>,
}

/// Somebody wants the settings to be read; with a sender, to know what came of it.
type Request = Option<SyncSender<Outcome>>;

/// Asks for the settings to be read.
#[derive(Clone)]
pub(super) struct Asker(SyncSender<Request>);

impl Asker {
    /// Does not wait. A request that waits to begin serves this one as well.
    pub(super) fn ask(&self) {
        let _ = self.0.try_send(None);
    }

    /// Waits for what comes of it.
    pub(super) fn ask_and_wait(&self) -> Outcome {
        let (answer, answered) = sync_channel(1);
        let answered = self.0.send(Some(answer)).ok().and_then(|()| answered.recv().ok());
        answered.unwrap_or_else(|| Err("settings cannot be read any more: restart the proxy".to_owned()))
    }
}

/// A way to ask, and who asks.
pub(super) fn channel() -> (Asker, Receiver<Request>) {
    let (sender, requests) = sync_channel(1);
    (Asker(sender), requests)
}

/// What has changed, by the keys of the file.
struct Reloaded {
    at_once: Vec<&'static str>,
    at_start: Vec<&'static str>,
    /// Warnings: what stays as it was, and what the start warns of, too.
    doubts: Vec<String>,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at_once.as_slice() {
            [] if self.at_start.is_empty() => f.write_str("no setting has changed")?,
            [] => f.write_str("no setting has changed that takes effect at once")?,
            keys => write!(f, "in effect: {}", keys.join(", "))?,
        }
        if !self.at_start.is_empty() {
            write!(f, "; takes effect at the next restart: {}", self.at_start.join(", "))?;
        }
        self.doubts.iter().try_for_each(|doubt| write!(f, "; {doubt}"))
    }
}

impl Reload {
    /// Does it for each request, in a thread of its own: files may be slow.
    pub(super) fn start(mut self, requests: Receiver<Request>) {
        std::thread::spawn(move || {
            for request in requests {
                notify::reloading();
                let outcome = self.reload();
                match &outcome {
                    Ok(reloaded) if reloaded.at_start.is_empty() && reloaded.doubts.is_empty() => {
                        info!("reload: {reloaded}");
                    }
                    Ok(reloaded) => warn!("reload: {reloaded}"),
                    Err(mistakes) => {
                        warn!("reload: nothing has changed: {}", mistakes.trim_end().replace('\n', "; "));
                    }
                }
                notify::reloaded(&self.listeners.addresses().0);
                if let Some(answer) = request {
                    // Who asked may have left.
                    let _ = answer.send(outcome.map(|reloaded| reloaded.to_string()));
                }
            }
        });
    }

    fn reload(&mut self) -> Result<Reloaded, String> {
        if !self.takeover.has_begun() {
            return Err("this process does not serve yet".to_owned());
        }
        if self.takeover.has_successor() {
            return Err(
                "a new process gets ready to take this one's place, and has read its settings: reload when it serves"
                    .to_owned(),
            );
        }
        let next = (self.source)()?;
        let roots = TrustRoots::load(next.ca_file()).map_err(|cause| cause.to_string())?;
        let mut at_once = self.current.changes(&next, Effect::AtOnce);
        let mut at_start = self.started.changes(&next, Effect::AtStart);
        if roots != self.roots && !at_start.contains(&"ca_file") {
            at_start.push("the CA certificates");
        }
        let prepared = self.listeners.prepare(super::wanted(&next));
        let prepared = prepared.map_err(|cause| ServeError::cannot_open(cause).to_string())?;
        // The last that can fail.
        self.table.replace(&next).map_err(|cause| cause.to_string())?;
        let changes = self.listeners.take(prepared);
        self.load.gate.replace(next.access().clone());
        super::announce::listeners(&changes, &self.load.gate);
        if changes.iter().any(|change| matches!(change, Change::Files)) {
            at_once.push("certificate files of listen");
        }
        if changes.iter().any(|change| matches!(change, Change::MadeAgain(_))) {
            at_once.push("sockets of listen that were gone");
        }
        self.keepalive.set(next.client_keepalive());
        self.drain.store(Arc::new(next.drain()));
        self.notify.store(Arc::new(next.notify().clone()));
        logger::replace(next.log());
        let unchanged = changes.into_iter().filter_map(|change| match change {
            Change::Unchanged(sentence) => Some(sentence),
            _ => None,
        });
        let doubts = unchanged.chain(next.doubts()).chain(alarm::doubt(&next.notify().command)).collect();
        self.current = next;
        Ok(Reloaded { at_once, at_start, doubts })
    }
}
