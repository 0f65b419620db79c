//! Blobs through the proxy (`blobs: proxy`), for clients that cannot reach the storage.
//!
//! ```text
//! locate     follows a redirect that is kept or that a flight has brought; without the cache, asks the registry for it, and answers the
//!            client if the registry has something else to say
//! redirect   the registry's redirect, and the storage that it leads to
//! hosts      which hosts may be storage
//! range      which parts of it a client asks for, and whether an answer is one of them
//! storage    the request to storage, and its response
//! ```
//!
//! The registry's token goes to no storage: what signs the request there is in the redirect's address.

pub(crate) mod hosts;
pub(crate) mod locate;
pub(crate) mod range;
pub(crate) mod redirect;
pub(crate) mod storage;
