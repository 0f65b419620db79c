//! Fixed batches of work for `scripts/instructions`, which counts the instructions of each.

use std::hint::black_box;

use acr_cache_proxy::hot_path::Served;
use http::Method;
use mimalloc::MiMalloc;
use oci::name::Prefix;
use oci::quote::{Sent, Sieve, registry_error};
use oci::rename::Renaming;
use oci::request::{Pull, Request};
use oci::route::{Route, Routes, Source};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Of each thing that a batch does.
const TIMES: usize = 2000;

fn main() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let by_tag = "/v2/library/nginx/manifests/1.27".to_owned();
    let by_digest = format!("/v2/library/nginx/manifests/{digest}");
    let blob = format!("/v2/library/nginx/blobs/{digest}");
    let paths = [by_tag, by_digest, blob];
    let token = token();
    let sieve = Sieve::of(&token);
    let batch = std::env::args().nth(1).unwrap_or_default();
    let mut served = match batch.as_str() {
        "hit" | "no-hit" => Some(Served::warm()),
        "guarded" | "no-guarded" => Some(Served::guarded()),
        _ => None,
    };
    for _ in 0..TIMES {
        match batch.as_str() {
            "parse" => paths.iter().for_each(|path| drop(black_box(pull(black_box(path))))),
            "route" => {
                let routes = routes();
                for path in &paths {
                    let pull = pull(path);
                    let choice = routes.choose(&pull, None).expect("a route");
                    drop(black_box(pull.upstream_target(&choice.repository)));
                }
            }
            "tags" => {
                let body = br#"{"name":"hub/library/nginx","tags":["1.25","1.26","1.27","latest","stable","alpine"]}"#;
                drop(black_box(names().tags(black_box(body))));
            }
            "errors" => {
                let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest tagged by \"x\" is not found","detail":{"name":"hub/library/nginx"}}]}"#;
                drop(black_box(names().errors(black_box(body))));
            }
            // What the log says of an error, which may have parts of the token.
            "quoted" => {
                let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest tagged by \"x\" is not found"}]}"#;
                drop(black_box(registry_error(black_box(body), &[Sent::often(&token, &sieve)])));
            }
            "hit" | "guarded" => served.iter_mut().for_each(Served::hit),
            "nothing" | "no-hit" | "no-guarded" => {}
            other => panic!("{other:?} is no batch"),
        }
    }
}

fn pull(path: &str) -> Pull<'_> {
    match Request::parse(&Method::GET, path, Some("ns=docker.io")) {
        Ok(Request::Pull(pull)) => pull,
        other => panic!("{other:?}"),
    }
}

fn routes() -> Routes<()> {
    let route = |(source, prefix): (&str, &str)| Route {
        source: Source::parse(source).expect("a source"),
        prefix: Prefix::parse(prefix).expect("a prefix"),
        hosts: Vec::new(),
        destination: (),
    };
    Routes::new([("ghcr.io", "ghcr"), ("docker.io", "hub")].map(route).into(), Some("docker.io".to_owned()))
}

/// As long as ACR's, in the same letters.
fn token() -> String {
    let mut number = 1u32;
    let digit = |_| {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[(number >> 26) as usize]
    };
    (0..1500).map(digit).map(char::from).collect()
}

fn names() -> Renaming<'static> {
    Renaming { from: "hub/library/nginx", to: "library/nginx", namespace: None, authority: "example.azurecr.io" }
}
