//! The emulator as its clients see it: a real HTTPS client, and no knowledge of what is inside.

mod assertions;
mod azure;
mod data;
mod entra;
mod faults;
mod identity;
mod oauth;
mod program;
mod pull;
mod storage;
