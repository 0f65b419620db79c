//! `/cache`: what is kept, and what that has saved the registries.

use serde_json::{Map, Value, json};

use super::State;
use crate::cache::{Cache, Kind, Reason};
use crate::proxy::{Trouble, Upstream, upstreams};

/// The counters since the start of the process. Every name is there whatever has happened, with the cache off as well, so
/// that whoever reads them needs to know none of the settings.
pub(super) fn report(State { routes, cache, .. }: &State) -> Value {
    let number = |read: &dyn Fn(&Cache<Trouble>) -> u64| cache.get().map_or(0, |cache| read(cache));
    let by_name = |all: &[(&'static str, u64)]| -> Value {
        all.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect::<Map<_, _>>().into()
    };
    let mut hits = Kind::ALL.map(|kind| (kind.name(), number(&|cache| cache.counters().hits(kind))));
    let mut passed = Reason::ALL.map(|reason| (reason.name(), number(&|cache| cache.counters().passes(reason))));
    hits.sort_unstable();
    passed.sort_unstable();
    let [misses, collapsed, stale] =
        [0, 1, 2].map(|at: usize| number(&|cache| cache.counters().rest().get(at).copied().unwrap_or_default()));
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
            "hits": by_name(&hits),
            "misses": misses,
            "passed": by_name(&passed),
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
