//! Clients' connections: accepted, read within bounds, handed to Pingora request by request, and drained at the end.

pub(crate) mod connection;
pub(crate) mod descriptors;
pub(crate) mod frames;
pub(crate) mod h2;
pub(crate) mod header;
pub(crate) mod http;
pub(crate) mod listener;
pub(crate) mod refusal;
pub(crate) mod signal;
pub(crate) mod socket;

use std::time::Duration;

/// A request's header ends within this, from its first byte on, and the first of a connection from when that is accepted.
/// It comes in a packet or two; packets that are lost three times over come in 15 s.
const HEADER_LIMIT: Duration = Duration::from_secs(20);
