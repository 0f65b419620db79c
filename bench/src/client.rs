//! HTTP/1.1 to both sides and to blob storage, over connections that are opened and timed apart from their requests.
//!
//! - `connector`: name look-up, TCP and TLS; a new connection
//! - `idle`: connections between requests
//! - `pool`: sends a request, on an idle connection or a new one
//! - `request`, `response`: what is sent, and what is read within limits

mod connector;
mod idle;
mod pool;
mod request;
mod response;

pub use connector::{Connector, Io, Lookup, Opening, Tunnels};
pub use idle::Exchange;
pub use pool::Pool;
pub(crate) use request::Request;
pub(crate) use response::Response;
