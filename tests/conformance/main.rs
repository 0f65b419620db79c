//! The pull side of the OCI distribution specification 1.1, requirement by requirement, through the proxy: over the
//! emulator, and over a registry of another make, which is Debian's `docker-registry`.
//!
//! `table.md` says which check stands for which requirement, and where an upstream is known to do otherwise.

/// What is checked, a function for each requirement.
mod checks;
/// Debian's `docker-registry`, dressed as a registry of Azure's.
mod docker_registry;
/// The table, and the tests that are made of it.
mod table;
/// TLS servers of a test's own.
mod tls;
/// What tells `docker-registry` whom to trust, in Azure's words.
mod tokens;
/// A registry with known content, and a proxy in front of it.
mod upstream;
