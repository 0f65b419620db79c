//! Mirrors of `registry-mirrors` with which dockerd does without TLS's checks.

use std::iter;
use std::net::IpAddr;

use oci::authority;
use serde_json::Value;

use super::{Facts, parsed};
use crate::client_config::address::Address;
use crate::net::egress::NoProxy;

/// What dockerd puts among them by itself.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

impl Facts {
    /// Whether a mirror is among its insecure registries, so that it verifies no certificate of it and presents none (`isSecureIndex` of
    /// dockerd). `ip` is where the mirror's name leads. Those of one that runs are known by what it says, since it takes no others but at a
    /// start.
    pub(in super::super) fn checks_nothing_of(&self, mirror: &Address, ip: Option<IpAddr>) -> bool {
        let port = mirror.port();
        let hosts: Vec<_> = iter::once(mirror.host.clone()).chain(ip.map(authority::of_ip)).collect();
        self.insecure().iter().any(|entry| match entry.contains('/') {
            true => NoProxy::parse(entry).is_ok_and(|network| hosts.iter().any(|host| network.covers(host, port))),
            false => Address::parse(entry).or_tls(true).is_at(mirror),
        })
    }

    fn insecure(&self) -> Vec<String> {
        let texts = |list: &Value| -> Vec<_> {
            list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let loaded = self.info.as_ref().map(|info| &info["RegistryConfig"]);
        if let Some(loaded) = loaded.filter(|loaded| loaded["InsecureRegistryCIDRs"].is_array()) {
            let names = loaded["IndexConfigs"].as_object().into_iter().flatten();
            let names = names.filter(|(_, index)| index["Secure"] == false).map(|(name, _)| name.clone());
            return texts(&loaded["InsecureRegistryCIDRs"]).into_iter().chain(names).collect();
        }
        let content = self.settings.as_ref().and_then(|settings| settings.content.as_ref().ok());
        let in_file = texts(&parsed(content.map_or("", String::as_str))["insecure-registries"]);
        LOOPBACK.map(str::to_owned).into_iter().chain(in_file).chain(self.unit.flag("insecure-registry")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Text;

    /// doctor said that dockerd does not trust the proxy, which it does not ask for a certificate, or that it presents one, which it does not.
    #[test]
    fn an_insecure_registry_is_known_by_its_address_and_by_its_network() {
        let is_unchecked = |facts: &Facts, mirror: &str, ip: Option<&str>| {
            facts.checks_nothing_of(&Address::parse(mirror), ip.map(|ip| ip.parse().expect("an address")))
        };
        for (entry, mirror, ip, expected) in [
            ("mirror.internal:8444", "https://mirror.internal:8444", None, true),
            ("mirror.internal:8444", "https://mirror.internal:8443", None, false),
            ("mirror.internal", "https://mirror.internal:8444", None, false),
            ("mirror.internal", "https://mirror.internal", None, true),
            ("10.0.0.0/8", "https://10.9.9.9:8444", None, true),
            ("10.0.0.0/8", "https://11.9.9.9:8444", None, false),
            ("10.0.0.0/8", "https://mirror.internal:8444", Some("11.9.9.9"), false),
            ("10.0.0.0/8", "https://mirror.internal:8444", Some("10.9.9.9"), true),
            // What nobody has put there: dockerd presented nothing to a proxy on this host, and doctor said that all is well.
            ("10.0.0.0/8", "https://127.0.0.1:8444", None, true),
            ("10.0.0.0/8", "https://[::1]:8444", None, true),
            ("10.0.0.0/8", "https://mirror.internal:8444", Some("127.0.1.1"), true),
            ("10.0.0.0/8", "https://mirror.internal:8444", Some("::1"), true),
        ] {
            let content = Ok(serde_json::json!({ "insecure-registries": [entry] }).to_string());
            let settings = Some(Text { path: "/etc/docker/daemon.json".to_owned(), content });
            let mut facts = Facts { settings, ..Facts::default() };
            assert_eq!(is_unchecked(&facts, mirror, ip), expected, "{entry} {mirror} {ip:?}");
            // One that runs has what it has loaded, whatever its file says by now.
            let indexes = |secure: bool| serde_json::json!({entry: {"Secure": secure}, "docker.io": {"Secure": true}});
            for (networks, names, loaded) in [
                (serde_json::json!([]), indexes(true), false),
                (serde_json::json!(["127.0.0.0/8", "::1/128", entry]), indexes(false), expected),
            ] {
                let list = serde_json::json!({"InsecureRegistryCIDRs": networks, "IndexConfigs": names});
                facts.info = Some(serde_json::json!({ "RegistryConfig": list }));
                assert_eq!(is_unchecked(&facts, mirror, ip), loaded, "{entry} {mirror} {ip:?} {list}");
            }
        }
    }
}
