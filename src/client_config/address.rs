//! Addresses of mirrors as engines are given them, and whether one is the proxy's.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use oci::authority;

use crate::config::{Config, Listener};

/// As many letters may differ in the host for it to be a slip of the pen; more is somebody else's name.
const MAX_SLIPS: usize = 2;
/// A text that is quoted has this many characters at most; addresses have tens.
const MAX_QUOTED: usize = 200;

/// What keeps an address from being the proxy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slip {
    /// The host is the proxy's, and the port another.
    Port,
    /// The port is the proxy's, and the host nearly its own.
    Host,
    /// One speaks TLS and the other does not.
    Scheme,
    /// The scheme has capital letters: engines look for `http://` as it stands here, and take anything else for a host.
    Case,
}

/// What an address is to this host's proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the proxy's.
    Ours,
    /// It was meant to be.
    Slip(Slip),
    /// It is another mirror's.
    Other,
}

/// An address of a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// `None` where no scheme is said.
    tls: Option<bool>,
    /// The scheme is in small letters, or there is none.
    is_lower: bool,
    pub host: String,
    port: Option<u16>,
    /// What follows the port, with its slash; empty if there is nothing, or a slash alone.
    pub path: String,
    has_user: bool,
    /// As it was written, for sentences: without a user and a password.
    shown: String,
}

impl Address {
    /// `http://127.0.0.1:8080`, `127.0.0.1:8080/docker.io`. Whatever it is, it can be judged.
    pub(crate) fn parse(text: &str) -> Self {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        let is_lower = scheme.as_deref().is_none_or(|scheme| text.starts_with(scheme));
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (has_user, authority) = match authority.rsplit_once('@') {
            Some((_, authority)) => (true, authority),
            None => (false, authority),
        };
        let (host, port) = authority::split(authority);
        let user = if has_user { "***@" } else { "" };
        let begin = text.split_once("://").map(|(scheme, _)| format!("{scheme}://")).unwrap_or_default();
        // A query may hold a token.
        let shown = path.split(['?', '#']).next().unwrap_or_default();
        let shown: String = format!("{begin}{user}{authority}{shown}").chars().take(MAX_QUOTED).collect();
        Self {
            tls: scheme.map(|scheme| scheme == "https"),
            is_lower,
            host: host.to_ascii_lowercase(),
            port: port.and_then(authority::port),
            path: if path == "/" { String::new() } else { path.to_owned() },
            has_user,
            shown,
        }
    }

    /// The same with the scheme that a client takes where none is written.
    pub(crate) fn or_tls(mut self, tls: bool) -> Self {
        self.tls.get_or_insert(tls);
        self
    }

    pub(crate) fn has_scheme(&self) -> bool {
        self.tls.is_some()
    }

    /// A user, perhaps with a password, stands before the host.
    pub(crate) fn has_user(&self) -> bool {
        self.has_user
    }

    /// Whether it says that its host speaks TLS.
    pub(crate) fn has_tls(&self) -> bool {
        self.tls == Some(true)
    }

    /// The port, or what the scheme has for one.
    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap_or(if self.tls == Some(false) { 80 } else { 443 })
    }

    /// Whether both are of one host and one port.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        self.host == other.host && self.port() == other.port()
    }

    /// The path below which `hosts.toml` has it asked: `/v2` is put behind one that does not end so, unless that is overridden.
    pub(crate) fn api(&self, is_overridden: bool) -> String {
        let path = self.path.split(['?', '#']).next().unwrap_or_default();
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let path: String = parts.iter().map(|part| format!("/{part}")).collect();
        if path.ends_with("/v2") || is_overridden { path } else { path + "/v2" }
    }

    /// Nothing but a scheme and an authority.
    pub(crate) fn is_bare(&self) -> bool {
        self.path.is_empty() && !self.has_user
    }

    /// A host that Go's clients never ask a forward proxy for.
    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost" || authority::ip(&self.host).is_some_and(|ip| ip.is_loopback())
    }
}

impl Display for Address {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Where the proxy is for clients of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Here {
    places: Vec<Place>,
    /// Names in `hosts` of routes: a request by one of them is for the registry of its route.
    names: BTreeSet<String>,
    /// The address that `client-config` writes.
    pub url: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
    tls: bool,
}

impl Here {
    /// By the listeners, the names of the mirror in `hosts` of routes, and `url`. `own` are addresses and names of this host,
    /// for listeners on all of them.
    pub(crate) fn new(config: &Config, url: &str, own: &[String]) -> Self {
        Self::of(config, config.listeners(), url, own)
    }

    /// For files that are to name `url`. Where that is none of this host's listeners, the proxy that they mean is on another host, and an
    /// address of this one is not the same.
    pub(crate) fn of_files(config: &Config, url: &str, own: &[String]) -> Self {
        let main = Address::parse(url);
        let is_main = |listener: &Listener| {
            let address = listener.endpoint.address();
            address.is_some_and(|address| {
                address.port() == main.port()
                    && hosts_of(address, own).iter().any(|host| host.eq_ignore_ascii_case(&main.host))
            })
        };
        let listeners = if config.listeners().iter().any(is_main) { config.listeners() } else { &[] };
        Self::of(config, listeners, url, own)
    }

    fn of(config: &Config, listeners: &[Listener], url: &str, own: &[String]) -> Self {
        let main = Address::parse(url);
        let main = Place { host: main.host.clone(), port: main.port(), tls: main.tls == Some(true) };
        let names = || config.routes().iter().flat_map(|route| &route.hosts).map(|name| authority::split(name));
        let mut places = vec![main.clone()];
        for listener in listeners {
            let Some(address) = listener.endpoint.address() else { continue };
            let hosts = hosts_of(address, own).into_iter().chain(names().map(|(host, _)| host.to_owned()));
            let tls = listener.tls.is_some();
            places.extend(hosts.map(|host| Place { host: host.to_ascii_lowercase(), port: address.port(), tls }));
        }
        for (host, port) in names() {
            // As client-config writes it, whose own port is the mirror's.
            let port = port.map_or(Some(main.port), authority::port);
            places.extend(port.map(|port| Place { host: host.to_ascii_lowercase(), port, tls: main.tls }));
        }
        let names = names().map(|(host, _)| host.to_ascii_lowercase()).collect();
        Self { places, names, url: url.to_owned() }
    }

    /// What this address is. A path is left to who knows whether the client may have one.
    pub(crate) fn judge(&self, address: &Address) -> Verdict {
        let (host, port) = (address.host.as_str(), address.port());
        let at_host = |place: &&Place| place.host == host;
        let at = |place: &Place| place.host == host && place.port == port;
        let speaks = |place: &Place| address.tls.is_none_or(|tls| tls == place.tls);
        if self.places.iter().any(|place| at(place) && speaks(place)) {
            return if address.is_lower { Verdict::Ours } else { Verdict::Slip(Slip::Case) };
        }
        if self.places.iter().any(at) {
            return Verdict::Slip(Slip::Scheme);
        }
        let near = |place: &Place| place.port == port && strsim::levenshtein(&place.host, host) <= MAX_SLIPS;
        match self.places.iter().find(at_host) {
            Some(_) => Verdict::Slip(Slip::Port),
            None if self.places.iter().any(near) => Verdict::Slip(Slip::Host),
            None => Verdict::Other,
        }
    }

    /// Whether a client that asks one of these addresses asks what it would by the other: both are the proxy's, without a path, and by a
    /// name that a route is chosen by only if it is the same.
    pub(crate) fn is_same(&self, one: &str, other: &str) -> bool {
        let (one, other) = (Address::parse(one), Address::parse(other));
        let is_ours = |address: &Address| address.is_bare() && self.judge(address) == Verdict::Ours;
        let name = |address: &Address| self.names.get(&address.host).cloned();
        is_ours(&one) && is_ours(&other) && one.has_scheme() == other.has_scheme() && name(&one) == name(&other)
    }

    /// Whether clients of that address have to be told to speak plain HTTP.
    pub(crate) fn is_plain(&self, address: &Address) -> bool {
        let at = |place: &&Place| place.host == address.host && place.port == address.port();
        self.places.iter().find(at).is_some_and(|place| !place.tls)
    }
}

/// The hosts by which a listener is reached from its own machine.
fn hosts_of(address: SocketAddr, own: &[String]) -> Vec<String> {
    // A socket on every address of IPv6 takes IPv4 as well, and none on every one of IPv4 takes IPv6.
    let takes_ipv6 = address.is_ipv6();
    let mut hosts = Vec::new();
    if address.ip().is_unspecified() {
        hosts.push("127.0.0.1".to_owned());
        hosts.extend(takes_ipv6.then(|| "[::1]".to_owned()));
        hosts.extend(own.iter().filter(|name| takes_ipv6 || !name.starts_with('[')).cloned());
    } else {
        hosts.push(authority::of_ip(address.ip()));
    }
    if address.ip().is_unspecified() || address.ip().is_loopback() {
        hosts.push("localhost".to_owned());
        // Whoever connects to no address in particular comes to that of the loopback interface.
        let every: IpAddr = if takes_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        hosts.push(authority::of_ip(every));
    }
    hosts
}

/// What a list of addresses, in the order in which a client asks them, is to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order<'a> {
    /// It is asked first.
    First(&'a Address),
    /// It is asked after this one.
    Behind(&'a Address, &'a Address),
    /// It is not asked, and this address was meant for it.
    Slip(&'a Address, Slip),
    /// It is not asked.
    Absent,
}

/// Judges such a list.
pub(crate) fn order<'a>(here: &Here, addresses: &'a [Address]) -> Order<'a> {
    let ours = addresses.iter().position(|address| here.judge(address) == Verdict::Ours);
    let slip = addresses.iter().find_map(|address| match here.judge(address) {
        Verdict::Slip(slip) => Some((address, slip)),
        _ => None,
    });
    match (ours, slip) {
        (Some(0), _) => Order::First(&addresses[0]),
        (Some(at), _) => Order::Behind(&addresses[at], &addresses[0]),
        (None, Some((address, slip))) => Order::Slip(address, slip),
        (None, None) => Order::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// dockerd 20 takes what is before the colon for a host, and containerd and dockerd 28 the same in `hosts.toml`.
    #[test]
    fn a_scheme_in_capital_letters_is_not_the_proxy() {
        let place = Place { host: "127.0.0.1".to_owned(), port: 8080, tls: false };
        let here = Here { places: vec![place], names: BTreeSet::new(), url: "http://127.0.0.1:8080".to_owned() };
        for (url, verdict) in [
            ("http://127.0.0.1:8080", Verdict::Ours),
            ("127.0.0.1:8080", Verdict::Ours),
            ("HTTP://127.0.0.1:8080", Verdict::Slip(Slip::Case)),
            ("Http://127.0.0.1:8080", Verdict::Slip(Slip::Case)),
            ("HTTPS://127.0.0.1:8080", Verdict::Slip(Slip::Scheme)),
        ] {
            assert_eq!(here.judge(&Address::parse(url)), verdict, "{url}");
        }
        assert!(!here.is_same("http://127.0.0.1:8080", "HTTP://127.0.0.1:8080"), "client-config --check");
    }

    /// dockerd 20 has pulled through the proxy, and was said not to.
    #[test]
    fn an_address_of_every_interface_leads_to_a_listener_of_the_loopback() {
        for (listen, host, leads) in [
            ("127.0.0.1:8080", "0.0.0.0", true),
            ("0.0.0.0:8080", "0.0.0.0", true),
            ("[::]:8080", "[::]", true),
            ("10.0.0.1:8080", "0.0.0.0", false),
        ] {
            let hosts = hosts_of(listen.parse().expect("an address"), &[]);
            assert_eq!(hosts.iter().any(|one| one == host), leads, "{listen}: {hosts:?}");
        }
    }

    #[test]
    fn the_api_is_below_v2_unless_that_is_overridden() {
        for (url, asks, overridden) in [
            ("http://a:1", "/v2", ""),
            ("http://a:1/", "/v2", ""),
            ("http://a:1/v2", "/v2", "/v2"),
            ("http://a:1/v2/", "/v2", "/v2"),
            ("http://a:1/docker.io", "/docker.io/v2", "/docker.io"),
            ("http://a:1/v2/hub", "/v2/hub/v2", "/v2/hub"),
        ] {
            let address = Address::parse(url);
            assert_eq!((address.api(false).as_str(), address.api(true).as_str()), (asks, overridden), "{url}");
        }
    }
}
