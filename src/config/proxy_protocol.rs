//! `proxy_protocol` of a listener: whose word counts for a client's address.

use super::file::{Document, Node};
use super::mistake::{Mistakes, Place};
use super::table::{Default, Entry, List, ROW, Row, Shape, Table, table};
use crate::access::{Network, Networks};

table! {
    /// `proxy_protocol` of a listener.
    PROXY_PROTOCOL: ProxyProtocolRows, ProxyProtocolTable {
        trusted: List<Network> {
            value: "[NETWORK, ...]",
            default: Default::Required,
            example: "[10.0.0.5, fd00::/8]",
            help: "Networks of the balancers: each of their connections has to begin with the header",
            more: "From all others the header is refused, and without one they are clients like any. The peer of a Unix socket \
                   counts as trusted, so there the list may be empty."
        } parse Network::parse;
    }
}

/// What the table says; the list of a Unix socket may be empty.
pub(super) fn parse(table: ProxyProtocolTable, is_unix: bool, mistakes: &mut Mistakes) -> Option<Networks> {
    let ProxyProtocolTable { place: at, is_flawed, trusted } = table;
    let is_empty = trusted.is_empty();
    let networks = PROXY_PROTOCOL.trusted.parse(trusted, mistakes);
    if let (Some(at), true) = (at, is_empty && !is_unix && !is_flawed) {
        mistakes.add(&at, "trusts nobody: set trusted to the networks of the balancers, such as [10.0.0.5]");
    }
    Some(Networks::new(networks))
}
