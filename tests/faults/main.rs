//! Everything behind a token fails in every way, and clients are asked what they saw.

#[allow(dead_code, reason = "each test crate uses its part")]
#[path = "../harness/mod.rs"]
mod harness;

/// A client's connection, kept from request to request.
mod kept;
/// Hop by fault by moment, as the table in `matrix.md` has it.
mod matrix;
/// One cell of the table, played.
mod play;
/// What no log may hold.
mod secrets;
