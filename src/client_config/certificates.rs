//! The certificates that a client's file names for a mirror that speaks TLS: that of its authority, and the client's own.
//!
//! One rule for all clients that name them in their own file: what the file from before names stays, because without it a host that works goes
//! past the proxy; and else those are named that are in the client's directory of the mirror.

use super::Mirror;
use crate::host::Host;

/// Files that are named, by paths as the client sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Certificates {
    /// Of authorities.
    pub ca: Vec<String>,
    /// The client's certificate with its key, or one file that has both.
    pub client: Vec<(String, Option<String>)>,
}

/// Where a client looks for those of a mirror.
pub(super) struct Shelf<'a> {
    pub mirror: &'a Mirror,
    pub host: &'a Host,
    /// Its directory of certificates, which has one for each address.
    pub certs_d: &'a str,
}

impl Shelf<'_> {
    /// What the file at `path` is to name; `read` is what a text names for the mirror. A file that is named and is not there has every pull
    /// fail, so only those are that are.
    pub(super) fn of(&self, path: &str, read: fn(&str, &Mirror) -> Certificates) -> Certificates {
        if !self.mirror.tls {
            return Certificates::default();
        }
        let content = self.host.read(path).and_then(|text| text.content.ok());
        let named = content.map(|content| read(&content, self.mirror)).unwrap_or_default();
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let is_kept = !named.is_empty() && named.files().all(|file| self.is_there(&beside(directory, file)));
        if is_kept { named } else { self.in_directory() }
    }

    fn in_directory(&self) -> Certificates {
        let path = |name: &str| self.path(name);
        let is_there = |name: &str| self.is_there(&path(name));
        let pair = || (path("client.cert"), Some(path("client.key")));
        Certificates {
            ca: is_there("ca.crt").then(|| path("ca.crt")).into_iter().collect(),
            client: (is_there("client.cert") && is_there("client.key")).then(pair).into_iter().collect(),
        }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.certs_d, self.mirror.authority())
    }

    fn is_there(&self, path: &str) -> bool {
        self.host.at(path).is_ok_and(|at| at.is_file())
    }

    /// Where the certificates go, for who has none of them in place; `by_hand` says it of a file of somebody else's.
    pub(super) fn about(&self, program: &str, by_hand: &str) -> Option<String> {
        self.mirror.tls.then(|| {
            format!(
                "{program} trusts the CA certificates of the host; if the CA of {} is not among them, its certificate goes into {}, and what a client has to show into client.cert and client.key beside it; then run client-config again, which names these files, and keeps others that its file names already{by_hand}",
                self.mirror.url(),
                self.path("ca.crt")
            )
        })
    }
}

impl Certificates {
    fn is_empty(&self) -> bool {
        self.ca.is_empty() && self.client.is_empty()
    }

    fn files(&self) -> impl Iterator<Item = &String> {
        let pairs = self.client.iter().flat_map(|(certificate, key)| [certificate].into_iter().chain(key));
        self.ca.iter().chain(pairs)
    }
}

/// A path that is perhaps relative to the directory of the file that names it.
pub(crate) fn beside(directory: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{directory}/{path}") }
}
