//! Reaching the other side: host:port, names looked up, and which certificate authorities are trusted.

pub mod addresses;
pub mod trust;
