//! Everything behind a token fails in every way, and clients are asked what they saw.

/// Whose clock counts, and whose lifetime.
mod clocks;
/// A DNS server of the tests' own, and addresses from which nothing comes back.
mod dns;
/// The metadata service at its real address.
mod imds;
/// A client's connection, kept from request to request.
mod kept;
/// Hop by fault by moment, as the table in `matrix.md` has it.
mod matrix;
/// Names that DNS gives late, wrongly or not at all, and addresses that are dead.
mod names;
/// What the log reports of a failure that lasts.
mod report;
/// A token that ends before its time while nobody gives a new one.
mod revoked;
/// One cell of the table: sets the fault, pulls, and compares what the client saw.
mod run_cell;
/// What no log may hold.
mod secrets;
/// Connections whose packets nobody answers any more.
mod silence;
/// Full load while tokens turn over and faults come and go.
mod soak;
/// What a start needs of its host.
mod start;
/// Tokens stay with the host that they are for.
mod token_leak;
