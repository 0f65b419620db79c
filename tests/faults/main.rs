//! Everything behind a token fails in every way, and clients are asked what they saw.

mod cell;
mod client;
mod clocks;
mod dns;
mod down;
mod imds;
mod kept;
mod limited;
mod matrix;
mod names;
mod outage;
mod report;
mod revoked;
mod run_cell;
mod secrets;
mod silence;
mod soak;
mod start;
mod token_leak;
