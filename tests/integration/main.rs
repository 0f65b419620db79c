//! The real binary in front of the emulator, by what clients and the registry see.

mod access;
mod admin;
mod azure;
#[cfg(feature = "bench")]
mod bench;
mod blobs;
mod bodies;
mod cache;
mod certificates;
mod check;
mod client_config;
mod configurations;
mod counters;
mod credentials;
mod deadline;
#[cfg(feature = "demo")]
mod demo;
mod downstream;
mod drain;
mod egress;
mod fixture;
mod flood;
mod frames;
mod h2c;
mod head;
mod http2;
mod identity;
mod interim;
mod limits;
mod listeners;
mod load;
mod located;
mod log;
mod manager;
mod memory;
mod metrics;
mod names;
mod negotiation;
mod process;
mod proxy_protocol;
mod pull;
mod redirects;
mod refuse;
mod reload;
mod repositories;
mod routes;
mod slow_reader;
mod sources;
mod status;
mod tls;
mod under_load;
mod upgrade;
mod upstream;
mod warm;

use testkit::wire;
