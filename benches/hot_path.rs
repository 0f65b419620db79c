//! What every request passes through in our own code: `cargo bench --bench hot_path`.

use std::hint::black_box;

use acr_cache_proxy::oci::name::Prefix;
use acr_cache_proxy::oci::request::Request;
use criterion::{Criterion, criterion_group, criterion_main};
use http::Method;

#[path = "../tests/allocations/issuer.rs"]
mod issuer;

fn paths() -> [(&'static str, String); 3] {
    let digest = format!("sha256:{}", "ab".repeat(32));
    [
        ("manifest by tag", "/v2/library/nginx/manifests/1.27".to_owned()),
        ("manifest by digest", format!("/v2/library/nginx/manifests/{digest}")),
        ("blob", format!("/v2/library/nginx/blobs/{digest}")),
    ]
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for (name, path) in paths() {
        group.bench_function(name, |bencher| {
            bencher.iter(|| Request::parse(&Method::GET, black_box(&path), Some("ns=docker.io")).is_ok());
        });
    }
    group.finish();
}

fn rewrite(criterion: &mut Criterion) {
    let prefix = Prefix::parse("hub").expect("a prefix");
    let mut group = criterion.benchmark_group("rewrite");
    for (name, path) in paths() {
        let request = Request::parse(&Method::GET, &path, None).expect("a request");
        group.bench_function(name, |bencher| bencher.iter(|| black_box(&request).upstream_target(&prefix)));
    }
    group.finish();
}

fn token(criterion: &mut Criterion) {
    let (runtime, tokens) = issuer::warm();
    criterion.bench_function("token, with the runtime's entry", |bencher| {
        bencher.iter(|| {
            runtime
                .block_on(async { tokens.bearer(black_box("hub/library/nginx")).await.map(|bearer| bearer.header()) })
        });
    });
}

criterion_group!(hot_path, parse, rewrite, token);
criterion_main!(hot_path);
