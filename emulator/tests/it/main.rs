//! The emulator as its clients see it: a real HTTPS client, and no knowledge of what is inside.

mod assertions;
mod azure;
mod cache_rules;
mod data;
mod entra;
mod faults;
mod identity;
mod limits;
mod oauth;
mod program;
mod pull;
mod revisions;
mod storage;
