//! Reaching the other side: host:port, names looked up, and which certificate authorities are trusted.

pub(crate) mod addresses;
pub(crate) mod trust;
