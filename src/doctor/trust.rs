//! Whether engines trust the certificate of a proxy that speaks TLS. One that does not goes past the proxy without a word, or fails where
//! nobody else may be asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::ask;
use super::expected::{Expected, by_hand};
use super::finding::{Code, Examined, Finding, Fix, PAST, Part, Way};
use super::hosts_toml;
use crate::client_config::address::Address;
use crate::host::Host;
use crate::net::trust::{SYSTEM_BUNDLES, TrustRoots};
use crate::shell::shell_word;

/// From the connection to the end of the handshake, which takes milliseconds on one host and a second between continents.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Directories with a directory for each address, in which files that end so are authorities.
const CERTS_D: [&str; 6] = [
    "/root/.config/containers/certs.d",
    "/etc/containers/certs.rootful.d",
    "/etc/containers/certs.d",
    "/usr/share/containers/certs.rootful.d",
    "/usr/share/containers/certs.d",
    DOCKER_CERTS_D,
];
const DOCKER_CERTS_D: &str = "/etc/docker/certs.d";

/// Adds what is wrong to the engines that pull through the proxy. Where nobody answers at its address, that is told of the proxy.
/// `certs_d` are the directories in which containerd looks for files that name some.
pub(super) async fn judge(host: &Host, expected: &Expected<'_>, certs_d: &[String], parts: &mut [Examined]) {
    let url = Address::parse(&expected.here.url);
    if !url.has_tls() {
        return;
    }
    let of_host: Vec<_> = SYSTEM_BUNDLES.iter().filter_map(|path| host.at(path).ok()).collect();
    let Some(wrong) = refusal(&url, &of_host).await else { return };
    for part in parts.iter_mut().filter(|part| part.part != Part::Proxy) {
        let through: Vec<_> = part.ways.iter().filter(|(_, way)| **way == Way::Proxy).map(|(name, _)| name).collect();
        let through: Vec<String> = through.into_iter().cloned().collect();
        if through.is_empty() {
            continue;
        }
        let Some((own, fix)) = authorities(part.part, host, expected, certs_d) else {
            part.notes.push(format!(
                "the certificate of {url} is not accepted with the CA certificates of this host: {wrong}: what its own settings trust is not judged"
            ));
            continue;
        };
        let own: Vec<_> = of_host.iter().cloned().chain(own.iter().filter_map(|path| host.at(path).ok())).collect();
        let Some(wrong) = refusal(&url, &own).await else { continue };
        for name in through {
            let way = if expected.is_closed(&name) { Way::Nowhere } else { Way::Source };
            part.ways.insert(name.clone(), way);
            part.find(Finding {
                registries: vec![name],
                code: Code::Untrusted,
                file: None,
                text: format!("it does not trust the certificate of {url}: {wrong}"),
                why: format!("TLS with the proxy fails, and {PAST}; of a closed route every pull fails"),
                fix: fix.clone(),
            });
        }
    }
}

/// Files of authorities that an engine trusts besides those of the host, and how it gets one more; `None` where that is not known.
fn authorities(part: Part, host: &Host, expected: &Expected<'_>, certs_d: &[String]) -> Option<(Vec<String>, Fix)> {
    const FILE: &str = "  # CA.pem: the certificate of the authority that has signed the proxy's";
    let url = &expected.here.url;
    let authority = url.split_once("://").map_or(url.as_str(), |(_, authority)| authority);
    let below = |directories: &[&str]| -> Vec<String> {
        let directories = directories.iter().map(|directory| format!("{directory}/{authority}"));
        let files = directories.flat_map(|directory| {
            let names = host.list(&directory).unwrap_or_default().into_iter().filter(|name| name.ends_with(".crt"));
            names.map(|name| format!("{directory}/{name}")).collect::<Vec<_>>()
        });
        files.collect()
    };
    let into = |directory: &str, then: &str| {
        let file = shell_word(&format!("{directory}/{authority}/ca.crt"));
        by_hand(format!("install -D -m 0644 CA.pem {file}{then}{FILE}"))
    };
    match part {
        Part::Podman => Some((below(&CERTS_D), into("/etc/containers/certs.d", ""))),
        Part::Crio => Some((below(&CERTS_D), into("/etc/containers/certs.d", " && systemctl restart crio"))),
        Part::Dockerd => Some((below(&[DOCKER_CERTS_D]), into(DOCKER_CERTS_D, ""))),
        Part::Containerd => {
            let own = certs_d.iter().flat_map(|directory| hosts_toml::authorities(host, directory)).collect();
            let update =
                "install -m 0644 CA.pem /usr/local/share/ca-certificates/acr-cache-proxy.crt && update-ca-certificates";
            Some((own, by_hand(format!("{update} && systemctl restart containerd{FILE}"))))
        }
        _ => None,
    }
}

/// Why a client that trusts the authorities of these files does not accept the certificate; `None` if it does, or nobody shows one.
async fn refusal(url: &Address, files: &[PathBuf]) -> Option<String> {
    let config = TrustRoots::of_files(files.to_vec()).client().ok()?;
    let name = ServerName::try_from(url.host.trim_matches(['[', ']']).to_owned()).ok()?;
    let address = ask::resolve(&format!("{}:{}", url.host, url.port())).await.ok()?;
    let shake = async {
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let cause = timeout(HANDSHAKE_LIMIT, shake).await.ok()?.err()?;
    match cause.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(why) => Some(why.to_string()),
        _ => None,
    }
}
