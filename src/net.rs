//! Outgoing connections: host names, their addresses, the proxy on the way to them, and the certificate authorities that are
//! trusted.

pub(crate) mod addresses;
pub(crate) mod client;
pub(crate) mod egress;
pub(crate) mod trust;
pub(crate) mod tunnel;

/// What the calls of this program say of it.
pub(crate) const USER_AGENT: &str = concat!("acr-cache-proxy/", env!("CARGO_PKG_VERSION"));
