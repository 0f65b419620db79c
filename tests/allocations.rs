//! How often a request allocates on its way through our own code. This target has one test only: the counter sees
//! the allocations of all threads.

use std::alloc::System;
use std::hint::black_box;

use acr_cache_proxy::hot_path::{self, Kept, Store};
use http::Method;
use oci::request::Request;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Another thread of the test program may allocate meanwhile, so the least of some tries is what the code does.
const TRIES: usize = 20;

/// Of the answer of a hit.
const HIT: usize = 4;

fn allocations<T>(mut run: impl FnMut() -> T) -> usize {
    let count = |run: &mut dyn FnMut() -> T| {
        let region = Region::new(COUNTED);
        let value = black_box(run());
        let change = region.change();
        drop(value);
        change.allocations + change.reallocations
    };
    (0..TRIES).map(|_| count(&mut run)).min().unwrap_or_default()
}

#[test]
fn a_request_allocates_its_target_and_a_hit_its_header() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let routes = hot_path::routes();
    for path in [
        "/v2/library/nginx/manifests/1.27".to_owned(),
        format!("/v2/library/nginx/manifests/{digest}"),
        format!("/v2/library/nginx/blobs/{digest}"),
    ] {
        let parse = || Request::parse(&Method::GET, &path, Some("ns=docker.io")).expect("a request");
        assert_eq!(allocations(parse), 0, "{path}: parsing borrows");
        let pull = hot_path::pull(&path);
        let choose = || routes.choose(&pull, Some("127.0.0.1:8080")).expect("a route");
        assert_eq!(allocations(choose), 0, "{path}: choosing borrows");
        let repository = choose().repository;
        assert_eq!(
            allocations(|| pull.upstream_target(&repository)),
            1,
            "{path}: the target, at its full size at once"
        );
    }
    for per_repository in [false, true] {
        let store = Store::warm(per_repository);
        assert_eq!(
            allocations(|| store.authorization()),
            0,
            "the header shares the store's buffer; per repository: {per_repository}"
        );
    }
    let kept = Kept::warm();
    assert!(kept.is_hit());
    assert_eq!(allocations(|| kept.is_hit()), 0, "a look-up borrows its key and shares the entry");
    assert_eq!(
        allocations(|| kept.answer()),
        HIT,
        "the map of the headers, in two pieces, and the values that are made, in one piece and its count of owners"
    );
}
