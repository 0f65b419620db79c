//! `host[:port]`, the authority of a URL (RFC 3986 section 3.2). This is the only module that splits it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest one: the name of a host has 253 bytes (RFC 1035 section 2.3.4), and a port with its colon six.
pub const MAX_AUTHORITY: usize = 259;

/// The host, and the text after the colon of the port if there is one. An IPv6 address keeps its brackets. Neither part is
/// checked.
pub fn split(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    }
}

/// A port, 0 to 65535. Only digits are accepted, no sign.
pub fn port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// An address as the host of a URL writes it: IPv6 in brackets.
pub fn of_ip(ip: IpAddr) -> String {
    if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() }
}

/// The host as DNS and certificates write it: an IPv6 address without its brackets.
pub fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

/// The address if the host is one: IPv4, or IPv6 in brackets. `None` for a name.
pub fn ip(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_follows_the_last_colon_outside_brackets() {
        for (text, host, port) in [
            ("example.azurecr.io", "example.azurecr.io", None),
            ("example.azurecr.io:5000", "example.azurecr.io", Some("5000")),
            ("[fd00::5]", "[fd00::5]", None),
            ("[fd00::5]:5000", "[fd00::5]", Some("5000")),
            (":8080", "", Some("8080")),
            ("a:", "a", Some("")),
            ("a:b:c", "a:b", Some("c")),
            ("", "", None),
        ] {
            assert_eq!(split(text), (host, port), "{text:?}");
        }
    }

    #[test]
    fn a_port_has_only_digits() {
        for (text, expected) in [
            ("0", Some(0)),
            ("65535", Some(65535)),
            ("65536", None),
            ("+80", None),
            ("-1", None),
            (" 1", None),
            ("", None),
        ] {
            assert_eq!(port(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_ipv6_address_needs_brackets() {
        for (host, address, bare) in [
            ("127.0.0.1", Some("127.0.0.1"), "127.0.0.1"),
            ("[::1]", Some("::1"), "::1"),
            ("::1", None, "::1"),
            ("[127.0.0.1]", None, "127.0.0.1"),
            ("[::1", None, "[::1"),
            ("localhost", None, "localhost"),
        ] {
            assert_eq!(ip(host).map(|ip| ip.to_string()).as_deref(), address, "{host}");
            assert_eq!(without_brackets(host), bare, "{host}");
        }
    }
}
