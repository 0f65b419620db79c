//! Who counts as one client.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A network of IPv6 that one host has to itself (RFC 4291 section 2.5.4): it may use any address in it, and with temporary
/// addresses (RFC 8981) it does.
const IPV6_BITS: u32 = 64;

/// A client as limits count it: an IPv4 address, or the first 64 bits of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// The address.
    V4(u32),
    /// The network's bits.
    V6(u64),
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> IPV6_BITS) as u64),
        }
    }
}

/// `10.0.0.5` or `fd00:0:0:1::/64`.
impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V4(bits) => std::net::Ipv4Addr::from(bits).fmt(f),
            Self::V6(bits) => write!(f, "{}/{IPV6_BITS}", Ipv6Addr::from(u128::from(bits) << IPV6_BITS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_client_whichever_of_its_addresses_it_uses() {
        for (address, client) in [
            ("10.0.0.5", "10.0.0.5"),
            ("::ffff:10.0.0.5", "10.0.0.5"),
            ("fd00:0:0:1::1", "fd00:0:0:1::/64"),
            ("fd00:0:0:1:ffff::2", "fd00:0:0:1::/64"),
            ("fd00:0:0:2::1", "fd00:0:0:2::/64"),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(Client::from(address).to_string(), client, "{address}");
        }
    }
}
