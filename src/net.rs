//! Outgoing connections: host names, their addresses, the proxy on the way to them, and the certificate authorities that are
//! trusted.

pub(crate) mod addresses;
pub(crate) mod client;
pub(crate) mod egress;
pub(crate) mod trust;
pub(crate) mod tunnel;

/// What is said of a certificate that no trusted CA has signed.
pub(crate) const NOT_TRUSTED: &str = "its certificate is not trusted: a private CA goes into ca_file";
/// What is said where a registry takes no connection.
pub(crate) const NO_CONNECTION: &str =
    "no connection: check the domain, the network path, a private endpoint's DNS and the CA";

/// What the calls of this program say of it.
pub(crate) const USER_AGENT: &str = concat!("acr-cache-proxy/", env!("CARGO_PKG_VERSION"));
