//! The cache: what is kept and for how long, what requests share, and what is served while the registry fails.
//!
//! - `cached`: what the tests have in common
//! - `pulls`: a thousand hosts at once, counted
//! - `kept`: the forms in which one kept manifest is served
//! - `lifetimes`: what ends, and when
//! - `apart`: no answer of another repository or registry
//! - `routes`: several to one registry, which is asked as one
//! - `flights`: clients that leave, and requests that fail for all who wait
//! - `whole`: answers that broke off on their way here
//! - `trouble`, `throttled`: a registry, a sign-in or a network that fails
//! - `off`: the proxy without it

mod apart;
mod cached;
mod flights;
mod kept;
mod lifetimes;
mod off;
mod pulls;
mod routes;
mod throttled;
mod trouble;
mod whole;
