//! Which hosts are reached directly although there is an egress proxy: the entries of `no_proxy`.
//!
//! They mean what they mean to curl and to reqwest, with a port in addition, as in Go: a name stands for itself and what is
//! below it, with or without a dot in front; an address or a network stands for hosts that are written as addresses, for no
//! name is looked up to find out; `*` is every host.

use std::net::IpAddr;

use ipnet::IpNet;
use oci::authority;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoProxy {
    host: Hosts,
    /// Only this port of it.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    Every,
    Network(IpNet),
    /// In lower case, without a dot in front.
    Below(String),
}

impl NoProxy {
    /// `example.azurecr.io`, `.azurecr.io`, `10.0.0.5`, `10.0.0.0/8`, `fd00::/8`, `[fd00::5]:443`, `example.org:8443` or `*`.
    /// The error says what to use.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a host or a network: use a name such as .azurecr.io, or 10.0.0.0/8");
        let entry = text.trim();
        // An IPv6 address without brackets has colons of its own.
        if let Ok(network) = entry.parse::<IpNet>() {
            return Ok(Self { host: Hosts::Network(network.trunc()), port: None });
        }
        if let Ok(address) = entry.parse::<IpAddr>() {
            return Ok(Self { host: Hosts::Network(address.into()), port: None });
        }
        let (host, port) = authority::split(entry);
        let port = match port {
            Some(port) => Some(authority::port(port).filter(|port| *port != 0).ok_or_else(wrong)?),
            None => None,
        };
        let host = match (host, authority::ip(host)) {
            ("*", _) => Hosts::Every,
            (_, Some(address)) => Hosts::Network(address.into()),
            (name, None) => {
                let name = name.strip_prefix("*.").or_else(|| name.strip_prefix('.')).unwrap_or(name);
                let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
                if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_good) {
                    return Err(wrong());
                }
                Hosts::Below(name.trim_end_matches('.').to_ascii_lowercase())
            }
        };
        Ok(Self { host, port })
    }

    /// Whether it has a name, or the end of one, and no address.
    pub(crate) fn is_name(&self) -> bool {
        matches!(self.host, Hosts::Below(_))
    }

    /// Whether it is for this host, an IPv6 address in brackets, and port.
    pub(crate) fn covers(&self, host: &str, port: u16) -> bool {
        self.port.is_none_or(|known| known == port)
            && match &self.host {
                Hosts::Every => true,
                Hosts::Network(network) => authority::ip(host).is_some_and(|address| network.contains(&address)),
                Hosts::Below(name) => is_at_or_below(host.trim_end_matches('.'), name),
            }
    }
}

/// Whether `host` is `name`, or ends with it behind a dot.
fn is_at_or_below(host: &str, name: &str) -> bool {
    let Some(begin) = host.len().checked_sub(name.len()) else { return false };
    let is_end = host.get(begin..).is_some_and(|end| end.eq_ignore_ascii_case(name));
    is_end && (begin == 0 || host.as_bytes().get(begin - 1) == Some(&b'.'))
}

#[cfg(test)]
mod tests {
    use hyper_util::client::proxy::matcher::Matcher;

    use super::*;

    const HOSTS: [(&str, u16); 12] = [
        ("example.azurecr.io", 443),
        ("Example.AzureCR.io", 443),
        ("example.azurecr.io", 8443),
        ("azurecr.io", 443),
        ("notazurecr.io", 443),
        ("10.0.0.5", 443),
        ("10.1.0.5", 443),
        ("[fd00::5]", 443),
        ("[fe00::5]", 443),
        ("localhost", 443),
        ("login.microsoftonline.com", 443),
        ("x.blob.core.windows.net", 443),
    ];

    #[test]
    fn an_entry_is_a_name_an_address_a_network_or_all_with_or_without_a_port() {
        for (text, covered) in [
            ("azurecr.io", &[0, 1, 2, 3][..]),
            (".azurecr.io", &[0, 1, 2, 3]),
            ("*.azurecr.io", &[0, 1, 2, 3]),
            (" .AzureCR.io. ", &[0, 1, 2, 3]),
            ("example.azurecr.io", &[0, 1, 2]),
            ("example.azurecr.io:443", &[0, 1]),
            ("azurecr.io:8443", &[2]),
            ("10.0.0.5", &[5]),
            ("10.0.0.5:8443", &[]),
            ("10.0.0.0/16", &[5]),
            ("10.0.0.9/8", &[5, 6]),
            ("fd00::/8", &[7]),
            ("fd00::5", &[7]),
            ("[fd00::5]:443", &[7]),
            ("*", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
            ("*:8443", &[2]),
        ] {
            let entry = NoProxy::parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong}"));
            let found: Vec<_> = (0..HOSTS.len()).filter(|at| entry.covers(HOSTS[*at].0, HOSTS[*at].1)).collect();
            assert_eq!(found, covered, "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in ["", "<local>", "10.0.0.0/33", "a b", "http://a", "a:0", "a:x", "..a", "a/b"] {
            let wrong = NoProxy::parse(text).expect_err(text);
            assert!(wrong.contains("use a name"), "{wrong}");
        }
    }

    /// What other programs of the host read in the same variable. (But for `*`: it is every host here and to curl, and every
    /// name to reqwest.)
    #[test]
    fn without_a_port_it_means_what_it_means_to_reqwest() {
        for text in
            ["azurecr.io", ".azurecr.io", "example.azurecr.io", "10.0.0.5", "10.0.0.0/16", "fd00::/8", "fd00::5"]
        {
            let entry = NoProxy::parse(text).expect("an entry");
            let theirs = Matcher::builder().https("http://proxy.corp:3128").no(text).build();
            for (host, port) in HOSTS {
                let uri = format!("https://{host}:{port}/").parse().expect("an address");
                assert_eq!(entry.covers(host, port), theirs.intercept(&uri).is_none(), "{text}: {host}:{port}");
            }
        }
    }
}
