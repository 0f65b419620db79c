//! Real clients pull through the proxy: what they get, what the registry saw of it, and that nothing went around.
//!
//! They need root, and a network namespace with nothing but `lo`, since each of them falls back to Docker Hub when
//! its mirror fails. `scripts/test` gives them one.

mod balancers;
mod cache;
mod chunks;
mod churn;
mod client_config;
mod containerd;
mod containers;
mod daemon;
mod docker;
mod docker_hosts;
mod doctor;
mod egress;
mod failures;
mod home;
mod hub;
mod image;
mod kept_sockets;
mod links;
mod listeners;
mod mirror;
mod name;
mod namespace;
mod packages;
mod page;
mod program;
mod prometheus;
mod rate;
mod recovery;
mod registries;
mod scripts;
mod signatures;
mod stopped;
mod systemd;
mod tags;
mod tree;
mod unread;
mod versions;
