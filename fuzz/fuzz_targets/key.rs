//! Two requests have the same key in the cache if they mean the same object, and only then, however they are written.
//!
//! The key is the registry, the part of its API and the path there; see src/cache/key.rs. The input is two requests, each a
//! path and query, a line break, and the host that it is sent to.

#![no_main]

use std::sync::LazyLock;

use http::Method;
use libfuzzer_sys::fuzz_target;
use oci::name::Prefix;
use oci::request::{Pull, Reference, Request, Resource};
use oci::route::{Route, Routes, Source};

/// Which registry each leads to. Two share one, and each of the others has a repository of a name that another has.
static ROUTES: LazyLock<Routes<u64>> = LazyLock::new(|| {
    let route = |(source, prefix, host, registry): (&str, &str, &str, u64)| Route {
        source: Source::parse(source).expect("a source"),
        prefix: Prefix::parse(prefix).expect("a prefix"),
        hosts: Vec::from([host.to_owned()]),
        destination: registry,
    };
    let routes = [
        ("docker.io", "hub", "a", 1),
        ("docker.io/library/nginx", "hub/library/nginx", "b", 1),
        ("ghcr.io", "hub", "c", 2),
        ("quay.io/org", "org", "d:8080", 3),
        ("registry.example:5000", "", "e", 3),
    ];
    Routes::new(routes.map(route).into(), Some("docker.io".to_owned()))
});

/// What a request means, without the words that it uses.
struct Meant<'a> {
    registry: u64,
    repository: String,
    pull: Pull<'a>,
    key: (u64, u8, String),
}

fn meant<'a>(target: &'a str, host: &str) -> Option<Meant<'a>> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let Ok(Request::Pull(pull)) = Request::parse(&Method::GET, path, query) else { return None };
    let choice = ROUTES.choose(&pull, Some(host)).ok()?;
    let registry = choice.route.destination;
    let mut repository = String::new();
    choice.repository.push_to(&mut repository);
    let part = match pull.resource {
        Resource::Manifest(_) => 0,
        Resource::Blob(_) => 1,
        Resource::Tags(_) | Resource::Referrers(..) => 2,
    };
    let key = (registry, part, pull.upstream_target(&choice.repository));
    Some(Meant { registry, repository, pull, key })
}

/// A digest may be encoded; all else is compared as it is parsed.
fn is_same(a: &Resource<'_>, b: &Resource<'_>) -> bool {
    match (a, b) {
        (Resource::Manifest(Reference::Digest(a)), Resource::Manifest(Reference::Digest(b)))
        | (Resource::Blob(a), Resource::Blob(b)) => a.to_string() == b.to_string(),
        (Resource::Referrers(a, asked), Resource::Referrers(b, wanted)) => {
            a.to_string() == b.to_string() && asked == wanted
        }
        (a, b) => a == b,
    }
}

fn check(a: &Meant<'_>, b: &Meant<'_>) {
    let is_same_object =
        a.registry == b.registry && a.repository == b.repository && is_same(&a.pull.resource, &b.pull.resource);
    assert_eq!(a.key == b.key, is_same_object, "{:?} and {:?}", a.key, b.key);
}

fuzz_target!(|input: &str| {
    let mut lines = input.splitn(4, '\n');
    let (Some(first), Some(host), Some(second)) = (lines.next(), lines.next(), lines.next()) else { return };
    let other_host = lines.next().unwrap_or(host);
    let Some(a) = meant(first, host) else { return };
    if let Some(b) = meant(second, other_host) {
        check(&a, &b);
    }
    // Other spellings of the first.
    let spelled = |target: &str| {
        let again = meant(target, host).unwrap_or_else(|| panic!("{target} is not understood"));
        assert_eq!(again.key, a.key, "{first} and {target}");
    };
    let (path, query) = first.split_once('?').unwrap_or((first, ""));
    let (before, last) = path.rsplit_once('/').expect("a path of the API");
    if last.contains(':') {
        for colon in ["%3A", "%3a"] {
            spelled(&format!("{before}/{}?{query}", last.replacen(':', colon, 1)));
        }
    }
    if query.len() < 2000 {
        spelled(&format!("{path}?{query}&token=x"));
    }
    let name = a.pull.name.as_str();
    let is_short = a.repository == format!("hub/library/{name}") && a.registry == 1;
    // The longest names have no room for it.
    if is_short && name.len() < 240 {
        spelled(&first.replacen(&format!("/v2/{name}/"), &format!("/v2/library/{name}/"), 1));
    }
});
