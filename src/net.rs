//! Outgoing connections: host names, their addresses, the proxy on the way to them, and the certificate authorities that are
//! trusted.

use std::io::{self, ErrorKind};

pub(crate) mod addresses;
pub(crate) mod certificate;
pub(crate) mod client;
pub(crate) mod egress;
pub(crate) mod trust;
pub(crate) mod tunnel;
pub(crate) mod verifier;

/// What is said where a registry takes no connection.
pub(crate) const NO_CONNECTION: &str =
    "no connection: check the domain, the network path, a private endpoint's DNS and the CA";

/// What the calls of this program say of it.
pub(crate) const USER_AGENT: &str = concat!("acr-cache-proxy/", env!("CARGO_PKG_VERSION"));

/// How a connection has broken: the other side acknowledged nothing, or there is no route to it any longer. A reset or an end would be
/// a sign of it.
pub(crate) fn is_silence(cause: &io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_breaks_in_silence_is_told_from_one_that_is_closed() {
        for (number, expected) in [(110, true), (113, true), (101, true), (104, false), (32, false)] {
            assert_eq!(is_silence(&io::Error::from_raw_os_error(number)), expected, "{number}");
        }
    }
}
