//! Addresses that may have been this proxy's: of its own host, with another port, where nobody listens. As likely they are another registry's
//! that is stopped, so no file loses one.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use oci::authority;

use super::address::{Address, Here, Slip, Verdict};

/// The loopback interface refuses at once; what takes longer is somebody who is slow.
const LIMIT: Duration = Duration::from_millis(500);

/// Whether it may have been the proxy's: no setting names its port, and it is of the proxy's own loopback address.
pub(crate) fn may_be_former(here: &Here, address: &Address) -> bool {
    address.is_bare()
        && address.has_scheme()
        && address.is_loopback()
        && here.judge(address) == Verdict::Slip(Slip::Port)
}

/// Whether nobody listens at an address of the loopback interface. Of any other, and where it is not known, somebody may.
pub(crate) fn refuses(address: &Address) -> bool {
    let hosts: Vec<IpAddr> = match authority::ip(&address.host) {
        Some(ip) if ip.is_loopback() => vec![ip],
        None if address.host == "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        _ => return false,
    };
    let is_refused = |ip: &IpAddr| match TcpStream::connect_timeout(&SocketAddr::new(*ip, address.port()), LIMIT) {
        Ok(_) => false,
        // A host without IPv6 has no such address.
        Err(cause) => {
            cause.kind() == ErrorKind::ConnectionRefused || ip.is_ipv6() && cause.kind() == ErrorKind::AddrNotAvailable
        }
    };
    hosts.iter().all(is_refused)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_may_have_been_the_proxys_if_it_is_of_its_host_and_nobody_listens_there() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let taken = listener.local_addr().expect("an address").port();
        // It has the port and does not listen: no other test gets it.
        let silent = tokio::net::TcpSocket::new_v4().expect("a socket");
        silent.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let free = silent.local_addr().expect("an address").port();
        let text = "routes: [{source: docker.io, domain: a.azurecr.io, prefix: hub}]\nlisten: 127.0.0.1:8080\n";
        let flags = crate::config::Flags::default().with_text(std::path::Path::new("a.yaml"), text);
        let config = crate::config::Config::load(&flags).expect("right");
        let here = Here::new(&config, "http://127.0.0.1:8080", &[]);
        for (url, expected) in [
            (format!("http://127.0.0.1:{free}"), true),
            (format!("http://localhost:{free}"), true),
            (format!("http://127.0.0.1:{taken}"), false),
            (format!("http://localhost:{taken}"), false),
            // Of these nobody knows whose they are.
            (format!("http://127.0.0.2:{free}"), false),
            (format!("http://127.0.0.1:{free}/hub"), false),
            (format!("http://u:p@127.0.0.1:{free}"), false),
            (format!("127.0.0.1:{free}"), false),
            ("http://127.0.0.1:8080".to_owned(), false),
            ("http://10.255.255.1:9".to_owned(), false),
        ] {
            let address = Address::parse(&url);
            assert_eq!(may_be_former(&here, &address) && refuses(&address), expected, "{url}");
        }
    }
}
