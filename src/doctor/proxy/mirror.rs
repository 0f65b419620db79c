//! The address of `--mirror`, by which engines find the proxy, where that is none that the proxy of this host was asked at.

use std::io;

use oci::authority;

use super::super::ask::{self, Answer};
use super::super::expected::{Expected, by_hand};
use super::super::finding::{Code, Finding};
use super::{Facts, down, is_another_registrys, is_some_registry, strange, stranger, told};
use crate::activation::Sockets;
use crate::client_config::address::Address;
use crate::config::Config;
use crate::host::Host;
use crate::shell::shell_word;

/// What is wrong with a URL of `https` at a listener without TLS.
const PLAIN: &str = "it speaks HTTP, and no TLS: the address begins with http://";

/// What comes of a request there.
pub(super) struct Mirror {
    /// `http://mirror.internal:8080`
    pub url: String,
    /// Of one with TLS, only whether it takes connections: `trust` looks at its certificate.
    pub answers: io::Result<Option<Answer>>,
    /// It is a registry, and not this proxy.
    pub is_other: bool,
}

impl Mirror {
    /// Asks it. What systemd keeps for the proxy alone is not connected to, as that would start it.
    pub(super) async fn ask(url: &str, sockets: &Sockets) -> Self {
        let address = Address::parse(url);
        let (answers, is_other) = match ask::resolve(&address).await {
            Ok(at) if sockets.alone_at_address(at).is_some() => (Err(io::ErrorKind::ConnectionRefused.into()), false),
            Ok(at) if address.has_tls() => match ask::get(at, "/v2/").await.map(Some) {
                // Without TLS it answers as it does to those whom it serves.
                plain if is_some_registry(&plain) => (Err(io::Error::new(io::ErrorKind::InvalidData, PLAIN)), false),
                _ => (ask::connects(at).await.map(|()| None), false),
            },
            Ok(at) => {
                let answers = ask::get(at, "/v2/").await.map(Some);
                let is_other = is_some_registry(&answers) && is_another_registrys(ask::get(at, "/").await);
                (answers, is_other)
            }
            Err(cause) => (Err(cause), false),
        };
        Self { url: url.to_owned(), answers, is_other }
    }

    /// Pure: what is wrong there, while the proxy of this host answers.
    pub(super) fn finding(&self, facts: &Facts, expected: &Expected<'_>) -> Option<Finding> {
        let url = &self.url;
        match &self.answers {
            Ok(answer) => {
                let text = strange(url, self.is_other, answer.as_ref()?)?;
                Some(stranger(url, text, expected))
            }
            Err(cause) if cause.kind() == io::ErrorKind::InvalidData => {
                Some(stranger(url, format!("what answers at {url} is not what --mirror says: {cause}"), expected))
            }
            Err(cause) => Some(Finding {
                registries: Vec::new(),
                code: Code::Down,
                file: None,
                text: format!(
                    "nothing answers at {url}, which --mirror says: {}; the proxy of this host answers at {}",
                    told(cause),
                    facts.at
                ),
                why: down::without_it(expected),
                fix: by_hand(format!("curl --verbose --max-time 10 {}/v2/", shell_word(url))),
            }),
        }
    }
}

/// Whether a listener of this host's proxy is at this URL, so that what it counts is all that comes there.
pub(in super::super) async fn is_own(url: &str, config: &Config, host: &Host) -> bool {
    let Ok(at) = ask::resolve(&Address::parse(url)).await else { return false };
    let is_here = at.ip().is_loopback() || host.names().contains(&authority::of_ip(at.ip()));
    let mut listeners = config.listeners().iter().filter_map(|listener| listener.endpoint.address());
    listeners
        .any(|listener| listener == at || is_here && listener.ip().is_unspecified() && listener.port() == at.port())
}
