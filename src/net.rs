//! Outgoing connections: host names, their addresses, and the certificate authorities that are trusted.

pub(crate) mod addresses;
pub(crate) mod client;
pub(crate) mod trust;
