//! The machine's identity: an Entra ID token, from whichever source this host has.
//!
//! A kind of source has a file, named as configuration names the kind; the default chain asks several in order.

mod azure;
mod azure_arc;
mod azure_cli;
mod chain;
mod client_certificate;
mod client_secret;
mod inputs;
mod managed_identity;
mod remedy;
mod source;
mod transport;
mod variables;
mod workload_identity;

pub(crate) use chain::{Chain, EntraToken, IdentityError};
pub(crate) use inputs::{of_unit, unreadable};
pub(crate) use variables::{ALL as VARIABLES, SECRETS, is_set, is_told, passed_over};
