//! Mirrors of `registry-mirrors` with which dockerd does without TLS's checks.

use serde_json::Value;

use super::{Facts, parsed};
use crate::client_config::address::Address;
use crate::net::egress::NoProxy;

impl Facts {
    /// Whether a mirror is among its insecure registries, so that it verifies no certificate of it and presents none (`isSecureIndex` of
    /// dockerd). It does the same on a loopback address, which is judged as others are, since other engines verify it there. A name that
    /// leads to an address of a network in the list is not looked up.
    pub(in super::super) fn checks_nothing_of(&self, mirror: &Address) -> bool {
        let content = self.settings.as_ref().and_then(|settings| settings.content.as_ref().ok());
        let settings = parsed(content.map_or("", String::as_str));
        let in_file = settings["insecure-registries"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let by_flag = self.unit.flag("insecure-registry");
        let is_it = |entry: &str| match entry.contains('/') {
            true => NoProxy::parse(entry).is_ok_and(|network| network.covers(&mirror.host, mirror.port())),
            false => Address::parse(entry).or_tls(true).is_at(mirror),
        };
        in_file.chain(by_flag.iter().map(String::as_str)).any(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Text;

    /// doctor said that dockerd does not trust the proxy, which it does not ask for a certificate, or that it presents one, which it does not.
    #[test]
    fn an_insecure_registry_is_known_by_its_address_and_by_its_network() {
        for (entry, mirror, expected) in [
            ("mirror.internal:8444", "https://mirror.internal:8444", true),
            ("mirror.internal:8444", "https://mirror.internal:8443", false),
            ("mirror.internal", "https://mirror.internal:8444", false),
            ("mirror.internal", "https://mirror.internal", true),
            ("10.0.0.0/8", "https://10.9.9.9:8444", true),
            ("10.0.0.0/8", "https://11.9.9.9:8444", false),
            ("10.0.0.0/8", "https://mirror.internal:8444", false),
        ] {
            let content = Ok(serde_json::json!({ "insecure-registries": [entry] }).to_string());
            let facts = Facts {
                settings: Some(Text { path: "/etc/docker/daemon.json".to_owned(), content }),
                ..Facts::default()
            };
            assert_eq!(facts.checks_nothing_of(&Address::parse(mirror)), expected, "{entry} {mirror}");
        }
    }
}
