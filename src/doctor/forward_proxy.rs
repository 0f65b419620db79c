//! Whether the environment of an engine sends its requests for the proxy to a forward proxy.

use oci::authority;

use super::expected::{Expected, by_hand, edit, shell_word};
use super::finding::{Code, Examined, Finding, Way};
use crate::client_config::address::Address;
use crate::net::egress::NoProxy;
use crate::unit::Unit;

/// Adds what is wrong with the environment of an engine: if it sends requests for the proxy to a forward proxy, no pull comes here.
pub(super) fn judge(unit: &Unit, expected: &Expected<'_>, found: &mut Examined) {
    if let Some(finding) = of_unit(unit, expected, &Address::parse(&expected.here.url)) {
        found.find(finding);
        found.ways.values_mut().for_each(|way| *way = Way::Source);
    }
}

/// What is wrong if the environment sends requests for this address of the proxy to a forward proxy. Go asks none for
/// localhost and loopback addresses.
pub(super) fn of_unit(unit: &Unit, expected: &Expected<'_>, address: &Address) -> Option<Finding> {
    let variable = if expected.here.is_plain(address) { "HTTP_PROXY" } else { "HTTPS_PROXY" };
    let (_, file) = unit.variable(variable)?;
    let exempt = unit.variable("NO_PROXY").map(|(value, _)| value.as_str()).unwrap_or_default();
    if address.is_loopback() || is_exempt(exempt, address) {
        return None;
    }
    let host = &address.host;
    let drop_in = format!("/etc/systemd/system/{}.d/no-proxy.conf", unit.name);
    let value = if exempt.is_empty() { host.clone() } else { format!("{exempt},{host}") };
    let engine = unit.name.trim_end_matches(".service");
    let fix = if unit.is_script() {
        edit(file, &format!("  # export NO_PROXY={}; then: {}", shell_word(&value), unit.restart()))
    } else {
        by_hand(format!(
            "mkdir -p {drop_in_directory} && printf '[Service]\\nEnvironment=\"NO_PROXY=%s\"\\n' {value} > {drop_in} && systemctl daemon-reload && systemctl restart {engine}",
            drop_in_directory = drop_in.rsplit_once('/').map_or("", |(directory, _)| directory),
            value = shell_word(&value),
        ))
    };
    Some(Finding {
        registries: Vec::new(),
        code: Code::ForwardProxy,
        file: Some(file.clone()),
        text: format!("{variable} is set, and NO_PROXY does not have {host}, where the proxy is"),
        why: format!(
            "{engine} sends its requests for the proxy to that forward proxy, which cannot reach it, and pulls go to the source"
        ),
        fix,
    })
}

/// Whether a list of exceptions has the address.
pub(super) fn is_exempt(list: &str, address: &Address) -> bool {
    // For Go the end of a name is none of an address (CVE-2025-22870).
    let is_address = authority::ip(&address.host).is_some();
    let entries = list.split(',').filter_map(|entry| NoProxy::parse(entry).ok());
    entries.filter(|entry| !(is_address && entry.is_name())).any(|entry| entry.covers(&address.host, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As dockerd 28.5 has shown, whose pulls went to the forward proxy.
    #[test]
    fn the_end_of_a_name_is_no_exception_for_an_address() {
        for (list, url, is_exempted) in [
            ("localhost,.9.9", "http://10.9.9.9:8080", false),
            ("9.9", "http://10.9.9.9:8080", false),
            ("10.0.0.0/8", "http://10.9.9.9:8080", true),
            ("10.9.9.9:8080", "http://10.9.9.9:8080", true),
            ("10.9.9.9:8081", "http://10.9.9.9:8080", false),
            ("*", "http://10.9.9.9:8080", true),
            (".internal", "http://mirror.internal:8080", true),
        ] {
            assert_eq!(is_exempt(list, &Address::parse(url)), is_exempted, "{list} {url}");
        }
    }
}
