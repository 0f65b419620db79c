//! Whatever a client sends is refused, or reaches a path below the prefix of its route, and its names find back.
//!
//! The input is the path and query of a request, a line break, and the host that it is sent to.

#![no_main]
#![allow(dead_code, reason = "the modules are whole, and this uses a part of them")]

mod oci;
#[path = "../../src/route.rs"]
mod route;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use oci::name::{Name, Prefix};
use oci::rename::Renaming;
use oci::request::{Request, Resource};
use route::{Blobs, OnFailure, Route, Routes, Source};

/// Paths within paths, a registry with a port, an empty prefix and a host: every way in which routes are chosen.
static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
    let route = |(source, prefix, host): (&str, &str, &str)| Route {
        source: Source::parse(source).expect("a source"),
        prefix: Prefix::parse(prefix).expect("a prefix"),
        upstream: 0,
        hosts: Vec::from([host.to_owned()]),
        on_failure: OnFailure::Fallback,
        blobs: Blobs::Redirect,
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
    let Ok(Request::Pull(pull)) = Request::parse(&http::Method::GET, path, query) else {
        return;
    };
    let Ok(choice) = ROUTES.choose(&pull, Some(host)) else {
        return;
    };
    let prefix = ROUTES.get(choice.index).expect("the route that was chosen").prefix.as_str();
    let mut repository = String::new();
    choice.repository.push_to(&mut repository);
    assert!(Name::parse(&repository).is_some() || repository.len() > 255, "{repository}");
    assert!(prefix.is_empty() || repository == prefix || repository.starts_with(&format!("{prefix}/")), "{repository}");

    let there = pull.upstream_target(&choice.repository);
    let (there_path, there_query) = there.split_once('?').unwrap_or((&there, ""));
    assert!(there_path.starts_with(&format!("/v2/{repository}/")), "{there}");
    assert!(there_path.split('/').all(|segment| segment != "." && segment != ".."), "{there}");
    assert!(!there_path.contains("//") && !there_path.contains(['%', '\\']), "{there}");
    assert!(there.bytes().all(|byte| byte.is_ascii_graphic()), "{there}");
    assert!(there_query.split('&').all(|pair| !pair.starts_with("ns=")), "{there}");

    let renaming = Renaming { from: &repository, to: pull.name.as_str(), namespace: None };
    let back = renaming.target(&there, "example.azurecr.io").expect("this repository's own path");
    let Ok(Request::Pull(again)) = Request::parse(&http::Method::GET, back.split('?').next().unwrap_or(""), None) else {
        panic!("{back} is no request");
    };
    assert_eq!(again.name, pull.name);
    match (&again.resource, &pull.resource) {
        (Resource::Tags(_), Resource::Tags(_)) => {}
        (Resource::Referrers(again, _), Resource::Referrers(pull, _)) => assert_eq!(again.to_string(), pull.to_string()),
        (Resource::Blob(again), Resource::Blob(pull)) => assert_eq!(again.to_string(), pull.to_string()),
        (Resource::Manifest(_), Resource::Manifest(_)) => {}
        (again, pull) => panic!("{pull:?} became {again:?}"),
    }
});
