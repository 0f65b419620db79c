//! The certificate that the proxy shows, and whether clients with these authorities accept it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::super::ask;
use crate::client_config::address::Address;
use crate::host::Host;
use crate::net::certificate::Wrong;
use crate::net::trust::{SYSTEM_BUNDLES, TrustRoots};
use crate::net::verifier;

/// From the connection to the end of the handshake, which takes milliseconds on one host and a second between continents.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Where an administrator puts authorities, from which the bundle is made.
const ANCHORS: [&str; 2] = ["/usr/local/share/ca-certificates/*.crt", "/etc/pki/ca-trust/source/anchors/*"];
/// Those that Debian brings. Each run of its program makes the bundle anew, so the time of that says little.
const OF_SYSTEM: &str = "/usr/share/ca-certificates/mozilla/*.crt";

/// Why a client does not accept it.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub wrong: Wrong,
    /// As rustls words it.
    pub text: String,
    /// A name of the certificate that the client could know the proxy by, where it is of other names.
    pub name: Option<String>,
}

impl Refusal {
    fn of(why: &CertificateError) -> Self {
        let presented = match why {
            CertificateError::NotValidForNameContext { presented, .. } => &presented[..],
            _ => &[],
        };
        let name = presented.iter().find_map(|name| {
            let name = name.strip_prefix("DnsName(\"")?.strip_suffix("\")")?;
            (!name.contains('*')).then(|| name.to_owned())
        });
        Self { wrong: Wrong::of(why), text: why.to_string(), name }
    }
}

/// The certificate that the proxy shows.
pub(super) struct Shown<'a> {
    pub host: &'a Host,
    pub url: Address,
    /// Why it was refused, by the files that were trusted.
    known: BTreeMap<Vec<String>, Option<Refusal>>,
}

impl<'a> Shown<'a> {
    pub(super) fn new(host: &'a Host, url: Address) -> Self {
        Self { host, url, known: BTreeMap::new() }
    }

    /// Why a client that trusts the host's authorities and those of these files does not accept it; `None` if it does, or nobody shows one.
    pub(super) async fn refusal(&mut self, own: &[String]) -> Option<Refusal> {
        if let Some(known) = self.known.get(own) {
            return known.clone();
        }
        let files = SYSTEM_BUNDLES.iter().copied().chain(own.iter().map(String::as_str));
        let files: Vec<_> = files.filter_map(|path| self.host.at(path).ok()).collect();
        let wrong = refusal(&self.url, &files).await;
        self.known.insert(own.to_vec(), wrong.clone());
        wrong
    }

    /// The same of one that trusts these files alone.
    pub(super) async fn refusal_by(&self, files: &[String]) -> Option<Refusal> {
        let files: Vec<_> = files.iter().filter_map(|path| self.host.at(path).ok()).collect();
        refusal(&self.url, &files).await
    }

    /// When somebody gave the host the authority by which it accepts the certificate; `None` for one that came with the system, or may have.
    pub(super) async fn added(&self) -> Option<SystemTime> {
        // Where no certificate is shown, nobody refuses it.
        self.refusal_by(&[]).await?;
        let files = |pattern: &str| self.host.glob(pattern).unwrap_or_default();
        let newest = |files: &[String]| files.iter().filter_map(|path| self.host.changed(path)).max();
        for given in ANCHORS.map(files) {
            if !given.is_empty() && self.refusal_by(&given).await.is_none() {
                return newest(&given);
            }
        }
        let of_system = files(OF_SYSTEM);
        if of_system.is_empty() || self.refusal_by(&of_system).await.is_none() {
            return None;
        }
        newest(&SYSTEM_BUNDLES.map(str::to_owned))
    }
}

/// Why a client that trusts the authorities of these files does not accept the certificate; `None` if it does, or nobody shows one.
async fn refusal(url: &Address, files: &[PathBuf]) -> Option<Refusal> {
    let config = as_engines(TrustRoots::of_files(files.to_vec()))?;
    let name = ServerName::try_from(url.host.trim_matches(['[', ']']).to_owned()).ok()?;
    let address = ask::resolve(url).await.ok()?;
    let shake = async {
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let cause = timeout(HANDSHAKE_LIMIT, shake).await.ok()?.err()?;
    match cause.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(why) => Some(Refusal::of(why)),
        _ => None,
    }
}

/// Engines are of Go, which accepts a certificate that is itself among the authorities, as of `openssl req -x509`; rustls does not. Nothing is
/// sent over what this accepts.
pub(super) fn as_engines(roots: TrustRoots) -> Option<ClientConfig> {
    let client = verifier::client(&roots.clone(), move |certificate, name, verified| match verified {
        // Its dates were looked at before that.
        Err(rustls::Error::InvalidCertificate(why)) if Wrong::of(&why) == Wrong::OfAuthority => {
            if !roots.has(certificate) {
                return Err(CertificateError::UnknownIssuer.into());
            }
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
        }
        verified => verified,
    });
    client.ok()
}
