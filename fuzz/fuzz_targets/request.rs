//! Whatever a client sends is refused, or reaches a path below the prefix of its route, and its names find back.
//!
//! The input is the path and query of a request, a line break, and the host that it is sent to.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use oci::name::Prefix;
use oci::route::{Route, Routes, Source, round_trip};

/// Paths within paths, a registry with a port, an empty prefix and a host: every way in which routes are chosen.
static ROUTES: LazyLock<Routes<()>> = LazyLock::new(|| {
    let route = |(source, prefix, host): (&str, &str, &str)| Route {
        source: Source::parse(source).expect("a source"),
        prefix: Prefix::parse(prefix).expect("a prefix"),
        hosts: Vec::from([host.to_owned()]),
        destination: (),
    };
    let routes = [
        ("docker.io", "hub", "a"),
        ("docker.io/library/nginx", "pinned/nginx", "b"),
        ("docker.io/library", "official", "c"),
        ("ghcr.io", "ghcr", "ghcr.mirror"),
        ("quay.io/org", "org", "quay.mirror:8080"),
        ("registry.example:5000", "", "d"),
    ];
    Routes::new(routes.map(route).into(), Some("docker.io".to_owned()))
});

fuzz_target!(|input: &str| {
    let (target, host) = input.split_once('\n').unwrap_or((input, ""));
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    round_trip::check(&ROUTES, path, query, Some(host));
});
