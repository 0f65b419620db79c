//! The record of requests, which tests read as evidence.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::Serialize;
use tokio::sync::watch;

use crate::lock::lock;

/// One of the four servers of an emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Server {
    /// `login.microsoftonline.com`.
    Entra,
    /// `<name>.azurecr.io`.
    Registry,
    /// `<account>.blob.core.windows.net`.
    Storage,
    /// `169.254.169.254`, App Service's or Arc's own endpoint.
    Identity,
}

impl Server {
    /// The hop of a server that has only one.
    pub(crate) fn only_hop(self) -> Option<Hop> {
        match self {
            Server::Entra => Some(Hop::Entra),
            Server::Storage => Some(Hop::Storage),
            Server::Identity => Some(Hop::Imds),
            Server::Registry => None,
        }
    }
}

/// One step on the way from an identity to a blob.
///
/// The registry has three of them, because its two token endpoints and its data plane fail independently in Azure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hop {
    /// A managed identity endpoint: IMDS, App Service or Arc.
    Imds,
    /// Entra ID.
    Entra,
    /// `/oauth2/exchange` of the registry.
    Exchange,
    /// `/oauth2/token` of the registry.
    Token,
    /// Everything else of the registry, `/v2/` above all.
    Data,
    /// Blob storage.
    Storage,
}

/// A request as a server received it, and the status that it got.
///
/// It is recorded when the answer is decided and before it is sent, so a client that has seen an answer finds its record.
/// Nothing is masked: the emulator's secrets protect nothing.
#[derive(Clone, Debug, Serialize)]
pub struct Recorded {
    /// The server that received it.
    pub server: Server,
    /// The step that the request belongs to.
    pub hop: Hop,
    /// The connection that carried the request; unique among all servers.
    pub connection: u64,
    /// The method.
    pub method: String,
    /// Path and query as received.
    pub target: String,
    /// Header names, in lower case, and values, in the order received (lines of one name together).
    pub headers: Vec<(String, String)>,
    /// The request's body, up to 64 KiB of it.
    pub body: String,
    /// The status of the answer; 0 when a fault left the request without one.
    pub status: u16,
}

impl Recorded {
    /// The first value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct Requests {
    all: Vec<Recorded>,
    /// Counted as they come, so that a count does not go through them all.
    reads: BTreeMap<String, usize>,
}

/// All requests so far, and a notification for those who wait for one.
pub(crate) struct Journal {
    requests: Mutex<Requests>,
    count: watch::Sender<u64>,
}

impl Journal {
    pub(crate) fn new() -> Journal {
        Journal { requests: Mutex::default(), count: watch::Sender::new(0) }
    }

    pub(crate) fn add(&self, recorded: Recorded) {
        let mut requests = lock(&self.requests);
        if recorded.hop == Hop::Data {
            *requests.reads.entry(format!("{} {}", recorded.method, recorded.target)).or_default() += 1;
        }
        requests.all.push(recorded);
        drop(requests);
        self.count.send_modify(|count| *count += 1);
    }

    pub(crate) fn all(&self) -> Vec<Recorded> {
        lock(&self.requests).all.clone()
    }

    /// Removes and returns all requests, so that a reader who prints them does not print one twice.
    pub(crate) fn take(&self) -> Vec<Recorded> {
        std::mem::take(&mut *lock(&self.requests)).all
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&[Recorded]) -> T) -> T {
        look(&lock(&self.requests).all)
    }

    pub(crate) fn reads(&self) -> BTreeMap<String, usize> {
        lock(&self.requests).reads.clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}
