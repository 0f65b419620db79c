//! Addresses to listen on, in the forms that Go accepts. An error shows the address that was probably meant.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use oci::authority;

/// The default of `listen`; loopback, because clients are not authenticated.
pub(super) const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

/// The listener for clients: `:8080` is every address, `localhost` is 127.0.0.1. The error says what to use.
pub(crate) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    parse(text).ok_or_else(|| {
        let right = match meant(text) {
            Meant::Port(port) => {
                format!(":{port} for every address of this host, 127.0.0.1:{port} for this host alone")
            }
            Meant::Address(address) => address.to_string(),
            Meant::Unknown => {
                "an IP address and a port, such as 127.0.0.1:8080, [::1]:8080, or :8080 for every address".to_owned()
            }
        };
        format!("{text:?} is not an address to listen on: use {right}")
    })
}

/// The admin listener: a port alone is on loopback, so that the state is visible from outside only on request.
pub(crate) fn parse_admin(text: &str) -> Result<SocketAddr, String> {
    let mut address = parse(text).ok_or_else(|| {
        let right = match meant(text) {
            Meant::Port(port) => {
                format!(
                    ":{port} or 127.0.0.1:{port} for this host alone, 0.0.0.0:{port} for every address of this host"
                )
            }
            Meant::Address(address) => address.to_string(),
            Meant::Unknown => {
                "an IP address and a port, such as 127.0.0.1:8081, or :8081, which is the same".to_owned()
            }
        };
        format!("{text:?} is not an address to listen on: use {right}")
    })?;
    if text.starts_with(':') {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    Ok(address)
}

/// Whether two listeners cannot both bind their addresses. `[::]` takes IPv4 as well.
pub(crate) fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let every = |ip: IpAddr| ip == IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let covers = |ip: IpAddr, other: IpAddr| every(ip) || (ip.is_unspecified() && other.is_ipv4());
    one.port() == other.port()
        && one.port() != 0
        && (one.ip() == other.ip() || covers(one.ip(), other.ip()) || covers(other.ip(), one.ip()))
}

/// By which a listener is reached from its own host.
pub(crate) fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listener.port())
}

fn parse(text: &str) -> Option<SocketAddr> {
    let (host, port) = authority::split(text);
    let port = authority::port(port?)?;
    let ip: IpAddr = match host {
        "" => Ipv6Addr::UNSPECIFIED.into(),
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => authority::ip(host)?,
    };
    Some(SocketAddr::new(ip, port))
}

/// What was probably meant by a text that is not an address.
enum Meant {
    /// A port alone, or behind `:` or `*:`.
    Port(u16),
    /// This address, in its right form.
    Address(SocketAddr),
    Unknown,
}

fn meant(text: &str) -> Meant {
    const PORT: u16 = 8080;
    let text = text.trim();
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/');
    if let Ok(port) = bare.strip_prefix("*:").or(bare.strip_prefix(':')).unwrap_or(bare).parse() {
        return Meant::Port(port);
    }
    // `::1:8080`: the last part is meant as the port, although it could be a part of the address.
    let unbracketed = bare.rsplit_once(':').and_then(|(host, port)| {
        let port = port.parse::<u16>().ok().filter(|port| *port > 999)?;
        Some(SocketAddr::new(host.parse::<Ipv6Addr>().ok()?.into(), port))
    });
    let with_default_port = |host: &str| {
        let literal = authority::without_brackets(host);
        let ip = if literal == "localhost" { Some(Ipv4Addr::LOCALHOST.into()) } else { literal.parse().ok() };
        ip.map(|ip| SocketAddr::new(ip, PORT))
    };
    parse(bare)
        .or(unbracketed)
        .or_else(|| with_default_port(bare.trim_end_matches(':')))
        .map_or(Meant::Unknown, Meant::Address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on_have_the_forms_of_go() {
        for (text, expected) in [
            (":8080", Some("[::]:8080")),
            ("127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("[::1]:8080", Some("[::1]:8080")),
            ("localhost:0", Some("127.0.0.1:0")),
            ("0.0.0.0:80", Some("0.0.0.0:80")),
            ("8080", None),
            ("::1:8080", None),
            ("127.0.0.1", None),
            ("127.0.0.1:", None),
            ("127.0.0.1:65536", None),
            ("mirror.internal:8080", None),
            ("http://127.0.0.1:8080", None),
            ("", None),
        ] {
            assert_eq!(parse_listen(text).ok().map(|address| address.to_string()).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn an_error_shows_the_address_that_was_meant() {
        const ALL: &str = "an IP address and a port, such as 127.0.0.1:8080, [::1]:8080, or :8080 for every address";
        for (text, right) in [
            ("8080", ":8080 for every address of this host, 127.0.0.1:8080 for this host alone"),
            ("*:80", ":80 for every address of this host, 127.0.0.1:80 for this host alone"),
            (" :8080", ":8080 for every address of this host, 127.0.0.1:8080 for this host alone"),
            ("127.0.0.1", "127.0.0.1:8080"),
            ("127.0.0.1:", "127.0.0.1:8080"),
            ("localhost", "127.0.0.1:8080"),
            ("::1", "[::1]:8080"),
            ("[::1]", "[::1]:8080"),
            ("::1:5000", "[::1]:5000"),
            ("http://10.0.0.5:8080/", "10.0.0.5:8080"),
            ("mirror.internal:8080", ALL),
            ("127.0.0.1:65536", ALL),
            ("80800", ALL),
            ("", ALL),
        ] {
            let sentence = parse_listen(text).expect_err(text);
            assert_eq!(sentence, format!("{text:?} is not an address to listen on: use {right}"));
        }
        let sentence = parse_admin("8081").expect_err("a port alone");
        assert!(
            sentence.ends_with(
                "use :8081 or 127.0.0.1:8081 for this host alone, 0.0.0.0:8081 for every address of this host"
            )
        );
        assert!(
            parse_admin("here").expect_err("a name").ends_with("such as 127.0.0.1:8081, or :8081, which is the same")
        );
    }

    #[test]
    fn addresses_collide_if_one_covers_the_other() {
        for (one, other, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:1", "[::1]:1", false),
            ("[::]:1", "127.0.0.1:1", true),
            ("[::1]:1", "[::]:1", true),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let [one, other] = [one, other].map(|text| text.parse().expect("an address"));
            assert_eq!((collide(one, other), collide(other, one)), (expected, expected), "{one} {other}");
        }
    }
}
