//! The registry's vocabulary, pure: names, images, manifests, requests, errors. It depends on neither pingora nor tokio.
//!
//! Source of every grammar here: the OCI distribution specification 1.1, "Pulling manifests" and
//! "Content discovery"; digests: the OCI image specification, "Digests".

pub mod authority;
pub mod challenge;
pub mod condition;
pub mod error;
pub mod image;
pub mod manifest;
pub mod media_type;
pub mod members;
pub mod name;
pub mod platform;
pub mod printable;
pub mod quote;
pub mod rename;
pub mod request;
pub mod rewrite;
pub mod route;
