//! HTTP/1.1 to both sides and to blob storage, over connections that are opened and timed apart from their requests.
//!
//! - `connector`: name look-up, TCP and TLS; a new connection
//! - `pool`: kept connections, and a request sent on one of them
//! - `request`, `response`: what is sent, and what is read within limits

mod connector;
mod pool;
mod request;
mod response;

pub use connector::{Connector, Lookup};
pub use pool::{Exchange, Pool};
pub use request::Request;
pub use response::Response;
