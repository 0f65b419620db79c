//! `/cache`: what is kept, and what that has saved the registries.

use serde_json::{Value, json};

use super::State;
use crate::cache::{Cache, Kind, Reason};
use crate::proxy::{Trouble, Upstream, upstreams};

/// The counters since the start of the process. Every name is there whatever has happened, with the cache off as well, so
/// that whoever reads them needs to know none of the settings.
pub(super) fn report(State { routes, cache, .. }: &State) -> Value {
    let number = |read: &dyn Fn(&Cache<Trouble>) -> u64| cache.get().map_or(0, |cache| read(cache));
    let hits = Kind::ALL.map(|kind| (kind.name(), number(&|cache| cache.counters().hits(kind))));
    let passed = Reason::ALL.map(|reason| (reason.name(), number(&|cache| cache.counters().passes(reason))));
    let [misses, collapsed, stale] = cache.get().map_or([0; 3], |cache| cache.counters().rest());
    let mut registries = upstreams(routes);
    registries.sort_by_cached_key(|upstream| (upstream.domain.authority().to_owned(), upstream.number));
    let registries: Vec<_> = registries.iter().map(|upstream| registry(upstream)).collect();
    json!({
        "memory": {
            "bytes": number(&|cache| cache.size().1),
            "entries": number(&|cache| cache.size().0 as u64),
            "evicted_bytes": number(&|cache| cache.evicted().1),
            "evicted_entries": number(&|cache| cache.evicted().0),
            "max_bytes": number(&Cache::memory),
        },
        "reads_saved": number(&|cache| cache.counters().saved()),
        "registries": registries,
        "requests": {
            "collapsed": collapsed,
            "hits": hits.into_iter().collect::<Value>(),
            "misses": misses,
            "passed": passed.into_iter().collect::<Value>(),
            "stale": stale,
        },
        "under_way": number(&|cache| cache.flights() as u64),
    })
}

/// What is told of one registry.
fn registry(upstream: &Upstream) -> Value {
    let health = &upstream.health;
    json!({
        "domain": upstream.domain.authority(),
        "down": health.is_down(),
        "identity": super::health::identity(upstream),
        "pauses": health.pauses(),
        "reads": health.reads(),
        "stale": health.stale_answers(),
    })
}
