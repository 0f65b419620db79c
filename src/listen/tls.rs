//! TLS of a listener: handshakes with the certificates of its files, which are looked at again and again.
//!
//! The settings of rustls are replaced as a whole, sessions included, so a client whose CA was removed cannot resume one. Its
//! connections end, too: see [`Ends`]. Nor does a session outlive the client's certificate: see [`Sessions`].

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use httpdate::fmt_http_date;
use log::{info, warn};
use pingora_core::server::ShutdownWatch;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, ProtocolVersion};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::{self, Certificates, Contents, Fingerprint, HTTP2, TlsError};
use super::connection::Stream;
use super::sessions::Sessions;
use crate::config::TlsFiles;
use crate::file::Reader;
use crate::peer::Peer;

/// How often the files are read. A new certificate is there long before the old one ends, and a removed CA should not wait
/// for long; reading three small files takes some 50 µs. Notifications of the kernel would miss mounts of other hosts.
pub(crate) const FILES_STEP: Duration = Duration::from_secs(5);

/// TLS of one listener.
pub(crate) struct Tls {
    files: TlsFiles,
    current: ArcSwap<Current>,
    /// What was wrong when the files were read last.
    trouble: Mutex<Option<Trouble>>,
    reader: Reader,
}

/// The certificates that handshakes have, replaced as a whole.
struct Current {
    fingerprint: Fingerprint,
    certificates: Certificates,
    ends: Arc<Ends>,
}

/// Files that cannot be used. They are told when they are found a second time: a pair that is being replaced file by file does
/// not fit for a moment.
#[derive(Clone, PartialEq, Eq)]
struct Trouble {
    sentence: String,
    is_told: bool,
}

/// What ends connections whose clients have shown a certificate: Pingora closes them after the requests under way as soon as
/// `closing` is true, and idle ones end at once when `revoked` is.
///
/// When a CA is removed, that is so for all of them, also for those of another CA: they connect anew, and the ones of the
/// removed CA cannot. A CA that is added, and another certificate of the server, end no connection.
struct Ends {
    closing: watch::Sender<bool>,
    revoked: watch::Sender<bool>,
}

impl Ends {
    fn new() -> Arc<Self> {
        Arc::new(Self { closing: watch::Sender::new(false), revoked: watch::Sender::new(false) })
    }

    /// A CA was removed.
    fn end(&self) {
        self.closing.send_replace(true);
        self.revoked.send_replace(true);
    }
}

/// By when a connection has to end, apart from the end of its listener.
pub(crate) struct Revocation(Option<Shown>);

/// What ends the connection of a client that has shown a certificate.
struct Shown {
    ends: Arc<Ends>,
    revoked: watch::Receiver<bool>,
    /// The end of the certificate.
    until: Instant,
}

/// No connection is told in advance that it ends later than this.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Revocation {
    /// Of a connection that no CA has to do with.
    pub(crate) fn never() -> Self {
        Self(None)
    }

    /// What tells Pingora to end the connection after the requests under way; `opening` tells it that its settings, its listener
    /// or the process end.
    pub(crate) fn shutdown(&self, opening: &ShutdownWatch) -> ShutdownWatch {
        self.0.as_ref().map_or_else(|| opening.clone(), |shown| shown.ends.closing.subscribe())
    }

    /// Whether there is something to wait for.
    pub(crate) fn may_come(&self) -> bool {
        self.0.is_some()
    }

    /// Waits until the client's CA is trusted no more, or its certificate has ended. Cancel safe.
    pub(crate) async fn wait(&mut self) {
        match &mut self.0 {
            Some(Shown { revoked, until, .. }) => tokio::select! {
                // An error cannot be: the sender is beside the receiver.
                _ = revoked.wait_for(|revoked| *revoked) => {}
                () = sleep_until(*until) => {}
            },
            None => std::future::pending().await,
        }
    }
}

/// A connection after its handshake.
pub(crate) struct Secured<S> {
    /// The decrypted bytes.
    pub stream: TlsStream<S>,
    /// The client has asked for HTTP/2.
    pub speaks_h2: bool,
    /// Who it is.
    pub peer: Peer,
    /// Until when it may go on.
    pub revocation: Revocation,
}

impl Tls {
    /// With the certificates of these files.
    pub(crate) fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let (fingerprint, certificates) = certificate::load(files)?;
        let current = Current { fingerprint, certificates, ends: Ends::new() };
        Ok(Self {
            files: files.clone(),
            current: ArcSwap::from_pointee(current),
            trouble: Mutex::new(None),
            reader: Reader::default(),
        })
    }

    /// When the server's certificate ends.
    pub(crate) fn not_after(&self) -> SystemTime {
        self.current.load().certificates.not_after
    }

    /// One handshake; the caller limits its time. On an error the client has been told, as far as TLS has words for it.
    pub(super) async fn accept<S: Stream>(&self, stream: S) -> io::Result<Secured<S>> {
        let current = self.current.load_full();
        let (sessions, config) = Sessions::of_handshake(&current.certificates.config);
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let session = stream.get_ref().1;
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            // There is no other.
            _ => "TLSv1.2",
        };
        let peer = Peer::new(version, certificate.map(AsRef::as_ref));
        let left = certificate.map(left_of).transpose()?;
        sessions.keep(left);
        let revocation = Revocation(left.map(|left| {
            let (ends, revoked) = (Arc::clone(&current.ends), current.ends.revoked.subscribe());
            Shown { ends, revoked, until: Instant::now() + left.min(FAR) }
        }));
        let speaks_h2 = session.alpn_protocol() == Some(HTTP2);
        Ok(Secured { stream, speaks_h2, peer, revocation })
    }

    /// The connections end after the requests under way.
    pub(super) fn close(&self) {
        self.current.load().ends.closing.send_replace(true);
    }

    /// Ends the connections with client certificates if `next`, which has taken this one's place, lacks a CA of clients.
    pub(super) fn revoke_removed(&self, next: Option<&Self>) {
        let (current, next) = (self.current.load(), next.map(|next| next.current.load()));
        let is_there = |ca| next.as_ref().is_some_and(|next| next.certificates.client_cas.contains(ca));
        if !current.certificates.client_cas.iter().all(is_there) {
            current.ends.end();
        }
    }

    /// Takes what `read` has found in the same files. Whether that is new.
    pub(super) fn take(&self, listener: &str, read: Self) -> bool {
        let read = Arc::into_inner(read.current.into_inner());
        let new = read.filter(|read| read.fingerprint != self.current.load().fingerprint);
        let Some(Current { fingerprint, certificates, .. }) = new else { return false };
        self.replace(listener, fingerprint, certificates);
        true
    }

    /// Reads the files, and takes what is new in them. What cannot be used changes nothing, and the log says so once.
    /// `listener` is its name there.
    pub(crate) async fn look(&self, listener: &str) {
        let files = self.files.clone();
        let known = self.current.load().fingerprint;
        let read = self.reader.run(move || {
            let contents = Contents::read(&files)?;
            let fingerprint = contents.fingerprint();
            let is_new = fingerprint != known;
            is_new.then(|| contents.parse(&files).map(|certificates| (fingerprint, certificates))).transpose()
        });
        let sentence = match read.await {
            Ok(Ok(new)) => {
                if let Some((fingerprint, certificates)) = new {
                    self.replace(listener, fingerprint, certificates);
                }
                *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
                return;
            }
            Ok(Err(wrong)) => TlsError::to_sentence(&wrong),
            Err(cause) => format!("{}: {cause}", self.files.certificate.display()),
        };
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *trouble {
            Some(known) if known.sentence == sentence => {
                if !known.is_told {
                    warn!("{listener}: {sentence}; the certificates that were there before stay in use");
                    known.is_told = true;
                }
            }
            other => *other = Some(Trouble { sentence, is_told: false }),
        }
    }

    fn replace(&self, listener: &str, fingerprint: Fingerprint, certificates: Certificates) {
        let old = self.current.load_full();
        let is_removed = |ca| !certificates.client_cas.contains(ca);
        let removed = old.certificates.client_cas.iter().filter(|ca| is_removed(ca)).count();
        let ends = if removed > 0 { Ends::new() } else { Arc::clone(&old.ends) };
        let (end, is_over) = (fmt_http_date(certificates.not_after), certificates.not_after < SystemTime::now());
        self.current.store(Arc::new(Current { fingerprint, certificates, ends }));
        let changed = "the certificate files have changed, and what is in them is in use";
        if is_over {
            warn!("{listener}: {changed}; the certificate ended on {end}: clients refuse it, renew it");
        } else {
            info!("{listener}: {changed}; the certificate ends on {end}");
        }
        if removed > 0 {
            let cas = if removed == 1 { "CA of clients was" } else { "CAs of clients were" };
            info!("{listener}: {removed} {cas} removed: connections with client certificates end");
            old.ends.end();
        }
    }
}

/// How long a client's certificate goes on. One that has ended comes with a session that was found in its last moment.
fn left_of(certificate: &CertificateDer<'_>) -> io::Result<Duration> {
    let not_after = certificate::not_after(certificate);
    not_after.duration_since(SystemTime::now()).map_err(|_| {
        let end = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (time, not_after) = (UnixTime::now(), UnixTime::since_unix_epoch(end));
        let cause = rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after });
        io::Error::new(io::ErrorKind::InvalidData, cause)
    })
}
