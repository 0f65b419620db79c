//! Whether a host is reached directly or through a forward proxy: `egress` of the settings, and the variables that other
//! programs read.
//!
//! One answer counts for all that leaves: pulls, blob storage, and the calls for tokens. The identity endpoints of the machine
//! (IMDS, App Service, Azure Arc) are never asked about here: they are next to this program, and refuse what a proxy sends.
//!
//! - `url`: the address of the proxy
//! - `rules`: the hosts that are reached directly all the same

use std::fmt;
use std::sync::Arc;

use log::warn;
use oci::authority;

use super::addresses::{Addresses, Way};
use super::trust::TrustRoots;
use super::tunnel::{ForwardProxy, Tls, Tunnel};

mod rules;
mod url;

pub(crate) use rules::NoProxy;
pub(crate) use url::{PROXY_FORM, ProxyUrl};

/// Where the proxy is named, the first that has a value. Calls go to https addresses only, so `HTTP_PROXY` is not read, as by
/// curl and reqwest for these.
pub(crate) const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
/// Where the hosts are that need none.
const NO_PROXY_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// The setting for it.
const SETTING: &str = "egress.proxy";

/// `egress` of the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EgressSettings {
    /// Takes the place of the variables.
    pub proxy: Option<ProxyChoice>,
    /// Takes the place of its variable, unless it is empty.
    pub no_proxy: Vec<NoProxy>,
}

/// `egress.proxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProxyChoice {
    /// Everything is reached directly, whatever variables say.
    Off,
    /// Through this one.
    Through(ProxyUrl),
}

/// A variable that names no proxy this program can use. Displays as a sentence that begins with its name.
#[derive(Debug)]
pub(crate) struct BadVariable(&'static str, String);

impl fmt::Display for BadVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name, wrong) = self;
        write!(f, "{name}: {wrong}; or set {SETTING} to the proxy, or to off if there is none")
    }
}

impl std::error::Error for BadVariable {}

/// How hosts are reached.
#[derive(Debug)]
pub(crate) struct Egress {
    proxy: Option<Exit>,
    no_proxy: Vec<NoProxy>,
}

#[derive(Debug)]
struct Exit {
    proxy: Arc<ForwardProxy>,
    addresses: Arc<Addresses>,
    host: String,
}

impl Egress {
    /// Everything is reached directly.
    pub(crate) fn direct() -> Arc<Self> {
        Arc::new(Self { proxy: None, no_proxy: Vec::new() })
    }

    /// By the settings and the variables of this process, as [`new`](Self::new).
    pub(crate) fn of_process(settings: &EgressSettings, roots: &TrustRoots) -> Result<Arc<Self>, BadVariable> {
        let variable = |name: &str| Some(std::env::var_os(name)?.to_string_lossy().into_owned());
        Self::new(settings, roots, variable).map(Arc::new)
    }

    /// By the settings, and where they are silent by variables, which `variable` reads. A proxy that is spoken to over TLS has to
    /// have a certificate that `roots` trust. Does no network I/O.
    fn new(
        EgressSettings { proxy, no_proxy }: &EgressSettings,
        roots: &TrustRoots,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, BadVariable> {
        let first = |names: &[&'static str]| {
            let mut given = names.iter().filter_map(|name| Some((*name, variable(name)?)));
            given.find(|(_, text)| !text.trim().is_empty())
        };
        let found = match proxy {
            Some(ProxyChoice::Off) => None,
            Some(ProxyChoice::Through(url)) => Some((SETTING, url.clone())),
            None => match first(&PROXY_VARIABLES) {
                Some((name, text)) => Some((name, ProxyUrl::parse(&text).map_err(|wrong| BadVariable(name, wrong))?)),
                None => None,
            },
        };
        let exit = |(setting, url): (&'static str, ProxyUrl)| {
            let tls = url.server_name().map(|name| Ok(Tls::new(roots.client()?, name.clone()))).transpose();
            let tls = tls.map_err(|cause: rustls::Error| BadVariable(setting, format!("TLS client: {cause}")))?;
            Ok(Exit {
                proxy: Arc::new(ForwardProxy { name: url.name(), setting, authorization: url.authorization(), tls }),
                addresses: Arc::new(Addresses::of_proxy(url.host(), url.port())),
                host: url.host().to_owned(),
            })
        };
        let proxy = found.map(exit).transpose()?;
        let no_proxy = match no_proxy.as_slice() {
            [] if proxy.is_some() => first(&NO_PROXY_VARIABLES).map(|(name, text)| entries(name, &text)),
            given => Some(given.to_vec()),
        };
        Ok(Self { proxy, no_proxy: no_proxy.unwrap_or_default() })
    }

    /// The way to a host, an IPv6 address in brackets. `direct` gives its own addresses, which are asked for only if it is
    /// reached by them.
    pub(crate) fn way(&self, (host, port): (&str, u16), direct: impl FnOnce() -> Arc<Addresses>) -> Way {
        self.way_through(host, port).unwrap_or_else(|| Way::direct(direct()))
    }

    /// The same if it is through the proxy.
    pub(crate) fn way_through(&self, host: &str, port: u16) -> Option<Way> {
        let Exit { proxy, addresses, .. } = self.proxy.as_ref().filter(|_| !self.is_direct(host, port))?;
        Some(Way::through(Tunnel::new(proxy, host, port), Arc::clone(addresses)))
    }

    /// Whether a host is reached directly.
    pub(crate) fn is_direct(&self, host: &str, port: u16) -> bool {
        self.proxy.is_none() || self.no_proxy.iter().any(|entry| entry.covers(host, port))
    }

    /// The proxy, if there is one.
    pub(crate) fn proxy(&self) -> Option<&ForwardProxy> {
        self.proxy.as_ref().map(|exit| &*exit.proxy)
    }

    /// The proxy's addresses, if this is its name.
    pub(crate) fn addresses_of(&self, name: &str) -> Option<&Arc<Addresses>> {
        let exit = self.proxy.as_ref()?;
        authority::without_brackets(&exit.host).eq_ignore_ascii_case(name).then_some(&exit.addresses)
    }
}

/// A variable has entries for other programs too: those that can be no host are passed over.
fn entries(name: &str, text: &str) -> Vec<NoProxy> {
    let parse = |entry: &str| NoProxy::parse(entry).inspect_err(|wrong| warn!("{name}: passed over: {wrong}")).ok();
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(settings: &EgressSettings, variables: &[(&str, &str)]) -> Result<Egress, BadVariable> {
        let value = |name: &str| Some(variables.iter().find(|(known, _)| *known == name)?.1.to_owned());
        Egress::new(settings, &TrustRoots::none(), value)
    }

    fn set(proxy: &str, no_proxy: &[&str]) -> EgressSettings {
        let proxy = match proxy {
            "" => None,
            "off" => Some(ProxyChoice::Off),
            url => Some(ProxyChoice::Through(ProxyUrl::parse(url).expect("an address"))),
        };
        EgressSettings { proxy, no_proxy: no_proxy.iter().map(|text| NoProxy::parse(text).expect("a host")).collect() }
    }

    #[test]
    fn a_setting_wins_over_its_variable_and_the_first_variable_over_the_next() {
        let (upper, lower) = (("HTTPS_PROXY", "http://upper:1"), ("https_proxy", "http://lower:2"));
        let (all, none) = (("ALL_PROXY", "http://all:3"), ("NO_PROXY", "azurecr.io"));
        for (settings, variables, expected) in [
            (set("", &[]), &[][..], None),
            (set("", &[]), &[lower, upper], Some(("upper:1", "HTTPS_PROXY", false))),
            (set("", &[]), &[("HTTPS_PROXY", ""), lower], Some(("lower:2", "https_proxy", false))),
            (set("", &[]), &[all], Some(("all:3", "ALL_PROXY", false))),
            (set("", &[]), &[all, upper, none], Some(("upper:1", "HTTPS_PROXY", true))),
            (set("", &[]), &[("HTTP_PROXY", "http://plain:4")], None),
            (set("http://set:5", &[]), &[upper], Some(("set:5", "egress.proxy", false))),
            (set("http://set:5", &[]), &[upper, none], Some(("set:5", "egress.proxy", true))),
            (set("http://set:5", &["example.org"]), &[none], Some(("set:5", "egress.proxy", false))),
            (set("", &["example.org"]), &[upper, none], Some(("upper:1", "HTTPS_PROXY", false))),
            (set("off", &[]), &[upper, all], None),
            // A variable that a setting takes the place of may say anything.
            (set("off", &[]), &[("HTTPS_PROXY", "socks5://x:1")], None),
        ] {
            let egress = egress(&settings, variables).expect("valid");
            let found = egress
                .proxy()
                .map(|proxy| (proxy.name.as_str(), proxy.setting, egress.is_direct("example.azurecr.io", 443)));
            assert_eq!(found, expected, "{settings:?} {variables:?}");
        }
    }

    #[test]
    fn a_variable_that_names_no_usable_proxy_is_an_error_that_does_not_quote_it() {
        for (name, text) in [("HTTPS_PROXY", "https://u:geheim@p:0"), ("ALL_PROXY", "socks5h://u:geheim@p:1")] {
            let wrong = egress(&EgressSettings::default(), &[(name, text)]).expect_err(text).to_string();
            assert!(wrong.starts_with(&format!("{name}: ")), "{wrong}");
            assert!(wrong.contains("set egress.proxy") && !wrong.contains("geheim"), "{wrong}");
        }
    }

    #[test]
    fn entries_of_the_variable_that_can_be_no_host_are_passed_over() {
        let variables = [("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", "<local>, ,.svc,10.0.0.0/8, 10.0.0.0/33")];
        let egress = egress(&EgressSettings::default(), &variables).expect("valid");
        assert_eq!(egress.no_proxy.len(), 2);
        assert!(egress.is_direct("a.svc", 443) && egress.is_direct("10.1.2.3", 443) && !egress.is_direct("local", 443));
    }

    #[test]
    fn a_host_behind_the_proxy_is_not_looked_up() {
        let egress = egress(&set("http://p.corp:3128", &[".direct"]), &[]).expect("valid");
        let way = egress.way(("example.azurecr.io", 443), || panic!("its addresses are not needed"));
        assert_eq!(way.tunnel().map(|tunnel| tunnel.proxy().name.as_str()), Some("p.corp:3128"));
        let own = Arc::new(Addresses::new("a.direct", 443, &[]));
        assert!(egress.way(("a.direct", 443), || Arc::clone(&own)).tunnel().is_none());
        assert!(egress.addresses_of("P.corp").is_some() && egress.addresses_of("a.direct").is_none());
    }
}
