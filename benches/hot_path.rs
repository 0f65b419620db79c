//! What every request passes through in our own code: `cargo bench --bench hot_path`.

use std::hint::black_box;

use acr_cache_proxy::hot_path::{Kept, Store, pull, routes};
use criterion::{Criterion, criterion_group, criterion_main};
use http::Method;
use oci::rename::Renaming;
use oci::request::Request;

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
    let routes = routes();
    let mut group = criterion.benchmark_group("route and rewrite");
    for (name, path) in paths() {
        let pull = pull(&path);
        group.bench_function(name, |bencher| {
            bencher.iter(|| routes.choose(&pull, None).map(|choice| pull.upstream_target(&choice.repository)).is_ok());
        });
    }
    group.finish();
}

fn tags(criterion: &mut Criterion) {
    let tags: Vec<_> = (0..1000).map(|tag| format!("\"1.{tag}-alpine\"")).collect();
    let body = format!("{{\"name\":\"hub/library/nginx\",\"tags\":[{}]}}", tags.join(","));
    let names =
        Renaming { from: "hub/library/nginx", to: "library/nginx", namespace: None, authority: "example.azurecr.io" };
    criterion.bench_function("tag list of 1,000 in the client's name", |bencher| {
        bencher.iter(|| names.tags(black_box(body.as_bytes())));
    });
}

fn token(criterion: &mut Criterion) {
    let store = Store::warm(false);
    criterion
        .bench_function("token, with the runtime's entry", |bencher| bencher.iter(|| black_box(store.authorization())));
}

fn hit(criterion: &mut Criterion) {
    let kept = Kept::warm();
    let mut group = criterion.benchmark_group("hit");
    group.bench_function("look-up", |bencher| bencher.iter(|| black_box(kept.is_hit())));
    group.bench_function("look-up and answer", |bencher| bencher.iter(|| black_box(kept.answer())));
    group.finish();
}

criterion_group!(hot_path, parse, rewrite, token, tags, hit);
criterion_main!(hot_path);
