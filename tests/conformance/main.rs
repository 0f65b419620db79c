//! The pull side of the OCI distribution specification 1.1, requirement by requirement, through the proxy: over the
//! emulator, and over a registry of another make, which is Debian's `docker-registry`.
//!
//! `table.md` says which check stands for which requirement, and where an upstream is known to do otherwise.

mod checks;
mod content;
mod docker_registry;
mod table;
mod tls;
mod tokens;
mod upstream;
