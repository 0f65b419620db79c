//! The table `egress`: its settings, and what they come to.

use super::file::{Document, Node};
use super::mistake::{Mistakes, Place};
use super::parse::is_off;
use super::table::{Default, Entry, List, ROW, Row, Shape, Table, Value, table};
use crate::net::egress::{EgressSettings, NoProxy, PROXY_FORM, ProxyChoice, ProxyUrl};

table! {
    /// The forward proxy on the way to Azure.
    EGRESS: EgressRows, EgressTable {
        proxy: Value<ProxyChoice> {
            variable: Some("HTTPS_PROXY"),
            value: "URL|off",
            default: Default::Words("none"),
            example: "http://proxy.example.com:3128",
            help: "The proxy, http://HOST:PORT or https://HOST:PORT, with USER:PASSWORD@ before the host if it wants them, or off",
            more: "It takes the place of `HTTPS_PROXY`, `https_proxy`, `ALL_PROXY` and `all_proxy`, of which the first with a \
                   value counts; `off` connects directly, whatever they say. The proxy is asked for a tunnel (`CONNECT`) by \
                   the host's name, so this host needs no DNS for it. Without a scheme it is `http`, and the port is 80 \
                   where none is given; with `https` it is spoken to over TLS, by a certificate of the system's CAs or \
                   `ca_file`, and the port is 443. Special characters of user and password are percent-encoded. The endpoints of managed \
                   identities and Azure Arc are always asked directly, and so is a registry whose `addresses` are set."
        } parse parse_proxy;

        no_proxy: List<NoProxy> {
            variable: Some("NO_PROXY"),
            value: "[HOST, ...]",
            default: Default::Text("[]"),
            example: "[.azurecr.io]",
            help: "Hosts that are reached without it: names with all below them, addresses, networks, or *",
            more: "It takes the place of `NO_PROXY` and `no_proxy`, which are lists with commas, unless it is empty. \
                   `example.com` and `.example.com` both stand for `example.com` and for what is below it; with a port, as \
                   `example.com:8443`, for that port only. `10.0.0.0/8` and `fd00::/8` stand for hosts that are written as \
                   addresses."
        } parse NoProxy::parse;
    }
}

/// What the table says.
pub(super) fn parse(table: Option<EgressTable>, mistakes: &mut Mistakes) -> EgressSettings {
    let EgressTable { place: _, is_flawed: _, proxy, no_proxy } = table.unwrap_or_default();
    EgressSettings { proxy: EGRESS.proxy.parse([proxy], mistakes), no_proxy: EGRESS.no_proxy.parse(no_proxy, mistakes) }
}

/// The error quotes nothing of it: there may be a password in it.
fn parse_proxy(text: &str) -> Result<ProxyChoice, String> {
    if is_off(text) {
        return Ok(ProxyChoice::Off);
    }
    // A host may be called `on`; who means that adds its port.
    let is_switch = ["true", "on", "yes", "no", "none"].iter().any(|word| text.eq_ignore_ascii_case(word));
    // A URL takes it for an address, 5 for 0.0.0.5.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    if is_switch || is_number && !text.is_empty() {
        return Err(format!("it is not the address of a proxy: {PROXY_FORM}; or off for none"));
    }
    ProxyUrl::parse(text).map(ProxyChoice::Through)
}
