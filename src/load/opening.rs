//! What came of connections before their first request, counted from the start of the process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::label::{Counts, labels};

labels! {
    /// How a TLS handshake has ended.
    Handshake {
        /// Whole.
        Ok = "ok",
        /// The client has no certificate, and one is required.
        NoCertificate = "no_certificate",
        /// The client's certificate is not one of `client_ca`, or has ended.
        BadCertificate = "bad_certificate",
        /// The client does not take the server's certificate or versions.
        RefusedByClient = "refused_by_client",
        /// The client left.
        ClientLeft = "client_left",
        /// What came is TLS, but no handshake of a version that is spoken here.
        Failed = "failed",
        /// What came is no TLS.
        NotTls = "not_tls",
        /// It has not ended in time.
        TooSlow = "too_slow",
        /// Too many were under way.
        TooMany = "too_many",
    }
}

labels! {
    /// Why a PROXY protocol header, or what came in place of one, was refused.
    RefusedProxyHeader {
        /// It comes from somebody who is not trusted with one.
        Untrusted = "untrusted",
        /// There is none.
        Missing = "missing",
        /// It cannot be read, or broke off.
        Malformed = "malformed",
        /// It is larger than its limit.
        TooLong = "too_long",
        /// It has not ended in time.
        TooSlow = "too_slow",
    }
}

/// The counters, and the ends of certificates that connections are opened with.
#[derive(Default)]
pub(crate) struct Openings {
    accepted: [AtomicU64; 2],
    handshakes: Counts<Handshake, { Handshake::ALL.len() }>,
    proxy_headers: Counts<RefusedProxyHeader, { RefusedProxyHeader::ALL.len() }>,
    certificates: Arc<Mutex<BTreeMap<String, SystemTime>>>,
}

impl Openings {
    /// A connection was accepted, of a client or by the admin listener.
    pub(crate) fn accept(&self, is_admin: bool) {
        self.accepted[usize::from(is_admin)].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were, of clients and by the admin listener.
    pub(crate) fn accepted(&self) -> [u64; 2] {
        self.accepted.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// A handshake has ended.
    pub(crate) fn handshake(&self, how: Handshake) {
        self.handshakes.add(how);
    }

    /// How many have ended so.
    pub(crate) fn handshakes(&self, how: Handshake) -> u64 {
        self.handshakes.get(how)
    }

    /// A header was refused.
    pub(crate) fn refuse_proxy_header(&self, why: RefusedProxyHeader) {
        self.proxy_headers.add(why);
    }

    /// How many were for this reason.
    pub(crate) fn refused_proxy_headers(&self, why: RefusedProxyHeader) -> u64 {
        self.proxy_headers.get(why)
    }

    /// A place for the end of a listener's certificate, which is forgotten with it.
    pub(crate) fn certificate(&self, listener: String) -> CertificateEnd {
        CertificateEnd { certificates: Arc::clone(&self.certificates), listener }
    }

    /// When the certificate of each listener that has one ends.
    pub(crate) fn certificates(&self) -> Vec<(String, SystemTime)> {
        locked(&self.certificates).iter().map(|(listener, end)| (listener.clone(), *end)).collect()
    }
}

/// Held while a listener is open.
pub(crate) struct CertificateEnd {
    certificates: Arc<Mutex<BTreeMap<String, SystemTime>>>,
    listener: String,
}

impl CertificateEnd {
    /// The certificate in use ends then; `None` is none.
    pub(crate) fn set(&self, end: Option<SystemTime>) {
        let mut certificates = locked(&self.certificates);
        match end {
            Some(end) => drop(certificates.insert(self.listener.clone(), end)),
            None => drop(certificates.remove(&self.listener)),
        }
    }
}

impl Drop for CertificateEnd {
    fn drop(&mut self) {
        self.set(None);
    }
}

/// Nothing panics while it holds the lock.
fn locked<T>(all: &Mutex<T>) -> MutexGuard<'_, T> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_listener_has_the_end_of_its_certificate_as_long_as_it_is_open() {
        let openings = Openings::default();
        let (one, other) = (openings.certificate("https://a".to_owned()), openings.certificate("https://b".to_owned()));
        one.set(Some(UNIX_EPOCH));
        other.set(None);
        assert_eq!(openings.certificates(), [("https://a".to_owned(), UNIX_EPOCH)]);
        drop(one);
        assert!(openings.certificates().is_empty());
    }
}
