//! Networks of clients and balancers: `10.0.0.0/8`, `fd00::/8`, or one address.
//!
//! An IPv4 address that comes as IPv6 (`::ffff:10.0.0.5`, as on a listener for both) is the IPv4 address.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;

/// Addresses with the same beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network(IpNet);

impl Network {
    /// An address, or a network whose address has no bit behind the prefix. The error says what to use.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |right: String| format!("{text:?} is not a network: use {right}");
        let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let Some(network) = network.map(unmapped) else {
            return Err(wrong(
                "an address, or one with the length of its prefix, such as 10.0.0.0/8 or fd00::/8".into(),
            ));
        };
        let whole = network.trunc();
        if network != whole {
            // The longer one is what is meant by a copied address, the shorter one by a copied mask.
            return Err(wrong(format!("{whole} for the network, {} for this address alone", network.addr())));
        }
        Ok(Self(network))
    }
}

/// The IPv4 network that one of mapped addresses stands for (RFC 4291 section 2.5.5.2).
fn unmapped(network: IpNet) -> IpNet {
    const MAPPED: u8 = 96;
    let mapped = match network {
        IpNet::V6(network) => network.prefix_len().checked_sub(MAPPED).zip(network.addr().to_ipv4_mapped()),
        IpNet::V4(_) => None,
    };
    mapped.and_then(|(length, address)| IpNet::new(address.into(), length).ok()).unwrap_or(network)
}

/// Networks in which an address is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Networks(Arc<Ranges>);

/// The first and the last address of each, sorted, none within another.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ranges {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    /// In any order, and they may overlap.
    pub(crate) fn new(networks: Vec<Network>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in IpNet::aggregate(&networks.into_iter().map(|Network(network)| network).collect()) {
            match network {
                IpNet::V4(network) => v4.push((network.network().to_bits(), network.broadcast().to_bits())),
                IpNet::V6(network) => v6.push((network.network().to_bits(), network.broadcast().to_bits())),
            }
        }
        v4.sort_unstable();
        v6.sort_unstable();
        Self(Arc::new(Ranges { v4, v6 }))
    }

    /// There is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.v4.is_empty() && self.0.v6.is_empty()
    }

    /// Single addresses that look like networks whose length was forgotten, such as 10.0.0.0, each with the length that is likely meant.
    pub(crate) fn likely_without_length(&self) -> Vec<(IpAddr, u32)> {
        let single = self.0.v4.iter().filter(|(first, last)| first == last);
        let v4 = single.map(|(first, _)| Ipv4Addr::from_bits(*first));
        v4.filter_map(|address| Some((address.into(), length_of_network(address)?))).collect()
    }

    /// Whether the address is in one of them.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => is_within(&self.0.v4, address.to_bits()),
            IpAddr::V6(address) => is_within(&self.0.v6, address.to_bits()),
        }
    }
}

/// A single address that ends in two bytes of zeros or more, as one of a network does, with the length that would cover those.
fn length_of_network(address: Ipv4Addr) -> Option<u32> {
    let zeros = address.to_bits().trailing_zeros() / 8 * 8;
    (zeros >= 16).then(|| 32 - zeros)
}

/// None of the others can begin between a network and its address.
fn is_within<A: Ord + Copy>(networks: &[(A, A)], address: A) -> bool {
    let behind = networks.partition_point(|(first, _)| *first <= address);
    behind.checked_sub(1).and_then(|place| networks.get(place)).is_some_and(|(_, last)| address <= *last)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_network_is_an_address_with_the_length_of_its_prefix() {
        const ANY: &str = "an address, or one with the length of its prefix, such as 10.0.0.0/8 or fd00::/8";
        for (text, expected) in [
            ("10.0.0.0/8", Ok("10.0.0.0/8")),
            ("10.0.0.5", Ok("10.0.0.5/32")),
            ("0.0.0.0/0", Ok("0.0.0.0/0")),
            ("fd00::/8", Ok("fd00::/8")),
            ("::1", Ok("::1/128")),
            ("::ffff:10.0.0.0/104", Ok("10.0.0.0/8")),
            ("::ffff:10.0.0.5", Ok("10.0.0.5/32")),
            ("10.0.0.5/8", Err("10.0.0.0/8 for the network, 10.0.0.5 for this address alone")),
            ("fd00::1/8", Err("fd00::/8 for the network, fd00::1 for this address alone")),
            ("10.0.0.0/33", Err(ANY)),
            ("10.0.0.0/", Err(ANY)),
            ("10.0.0", Err(ANY)),
            ("10.0.0.0/255.0.0.0", Err(ANY)),
            ("mirror.internal", Err(ANY)),
            ("", Err(ANY)),
        ] {
            let found = Network::parse(text).map(|network| network.0.to_string());
            let expected = expected.map(str::to_owned);
            assert_eq!(found, expected.map_err(|right| format!("{text:?} is not a network: use {right}")), "{text}");
        }
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        // Few bits differ, so that networks and addresses meet.
        prop_oneof![
            (0_u32..32).prop_map(|bits| IpAddr::from(Ipv4Addr::from(0x0a00_0000 | bits))),
            (0_u128..32).prop_map(|bits| IpAddr::from(Ipv6Addr::from(0xfd00_u128 << 112 | bits))),
            (0_u32..32).prop_map(|bits| IpAddr::from(Ipv4Addr::from(0x0a00_0000 | bits).to_ipv6_mapped())),
            any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from(bits))),
        ]
    }

    fn network() -> impl Strategy<Value = Network> {
        (address(), 0_u8..=6).prop_map(|(address, bits)| {
            let length = if address.is_ipv4() { 32 } else { 128 };
            Network(unmapped(IpNet::new(address, length - bits).expect("a prefix").trunc()))
        })
    }

    proptest! {
        #[test]
        fn an_address_is_found_where_one_of_the_networks_has_it(
            networks in proptest::collection::vec(network(), 0..12),
            addresses in proptest::collection::vec(address(), 1..20),
        ) {
            let set = Networks::new(networks.clone());
            for address in addresses {
                let has_it = networks.iter().any(|Network(network)| network.contains(&address.to_canonical()));
                prop_assert_eq!(set.contains(address), has_it, "{} in {:?}", address, networks);
            }
        }
    }
}
