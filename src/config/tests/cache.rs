//! What is kept, how long, and which of several settings counts.

use std::time::Duration;

use super::*;
use crate::config::cache::Lifetimes;
use crate::config::setting::LimitsTable;
use oci::platform::Platform;

const DEFAULTS: Lifetimes = Lifetimes {
    tags: Duration::from_secs(30),
    manifests: Duration::from_secs(3600),
    missing: Duration::from_secs(5),
    redirects: Duration::from_secs(600),
    lists: Duration::from_secs(10),
    stale: Duration::from_secs(3600),
};
/// Those of a route with an empty prefix.
const PUSHED: Lifetimes =
    Lifetimes { tags: Duration::ZERO, missing: Duration::ZERO, lists: Duration::ZERO, ..DEFAULTS };

/// The lifetimes of each route of a file, in the order of the file.
fn lifetimes(text: &str) -> Vec<Option<Lifetimes>> {
    let config = load(text, Flags::default()).unwrap_or_else(|mistakes| panic!("{text}: {mistakes:?}"));
    config.routes().iter().map(|route| route.destination.lifetimes).collect()
}

#[test]
fn a_routes_own_time_wins_over_the_files_then_an_empty_prefix_then_the_default() {
    let seconds = Duration::from_secs;
    for (file, own, behind_a_rule, whole_registry) in [
        ("{}", "{}", DEFAULTS, PUSHED),
        ("{tags: 1m}", "{}", Lifetimes { tags: seconds(60), ..DEFAULTS }, Lifetimes { tags: seconds(60), ..PUSHED }),
        (
            "{tags: 1m, stale: 0s}",
            "{tags: 2000ms, redirects: 15m}",
            Lifetimes { tags: seconds(2), redirects: seconds(900), stale: seconds(0), ..DEFAULTS },
            Lifetimes { tags: seconds(2), redirects: seconds(900), stale: seconds(0), ..PUSHED },
        ),
        (
            "{lists: 0s, manifests: 24h}",
            "{lists: 1h, missing: 10m}",
            Lifetimes { lists: seconds(3600), missing: seconds(600), manifests: seconds(86400), ..DEFAULTS },
            Lifetimes { lists: seconds(3600), missing: seconds(600), manifests: seconds(86400), ..PUSHED },
        ),
    ] {
        for (prefix, expected) in [("hub", behind_a_rule), ("''", whole_registry)] {
            let text = format!("cache: {file}\nupstream: {{domain: a.io, prefix: {prefix}, cache: {own}}}");
            assert_eq!(lifetimes(&text), [Some(expected)], "{text}");
        }
    }
    assert_eq!(lifetimes("upstream: {domain: a.io, prefix: hub}"), [Some(DEFAULTS)]);
    assert_eq!(lifetimes("upstream: {domain: a.io}"), [Some(PUSHED)]);
    let flags = Flags::default().with_upstream("a.io", "hub");
    let config = load("upstream: {prefix: ''}", flags).expect("valid");
    let route = config.routes().iter().next().expect("one");
    assert_eq!(route.destination.lifetimes, Some(DEFAULTS), "the flag's prefix counts");
}

#[test]
fn off_keeps_nothing_of_one_route_or_of_all() {
    // `false` is what YAML 1.1 makes of `off`.
    for off in ["off", "'off'", "\"off\"", "false"] {
        let config = load(&format!("upstream: {{domain: a.io}}\ncache: {off}"), Flags::default()).expect(off);
        assert_eq!(config.cache(), None, "{off}");
        assert_eq!(config.routes().iter().next().expect("one").destination.lifetimes, None, "{off}");
        let text = format!(
            "routes:\n  - {{source: ghcr.io, domain: a.io, prefix: ghcr, cache: {off}}}\n  - {{source: quay.io, domain: a.io, prefix: quay}}"
        );
        assert_eq!(lifetimes(&text), [None, Some(DEFAULTS)], "{off}");
        let config = load(&text, Flags::default()).expect(off);
        assert!(config.cache().is_some(), "{off}");
        assert_eq!(config.upstreams().len(), 1, "routes to one registry share it, whatever they keep");
        assert_eq!(lifetimes(&format!("cache: {off}\nupstream: {{domain: a.io, cache: {off}}}")), [None], "{off}");
    }
}

#[test]
fn the_caches_own_settings_are_a_size_and_platforms() {
    let settings = |text: &str| {
        let config = load(&format!("upstream: {{domain: a.io}}\ncache: {text}"), Flags::default()).expect(text);
        config.cache().cloned().expect("not off")
    };
    for (text, bytes) in [
        ("64MiB", 64 << 20),
        ("1MiB", 1 << 20),
        ("1024KiB", 1 << 20),
        ("2GiB", 2 << 30),
        ("64GiB", 64 << 30),
        ("2000kB", 2_000_000),
        ("100MB", 100_000_000),
        ("1GB", 1_000_000_000),
    ] {
        assert_eq!(settings(&format!("{{memory: {text}}}")).memory, bytes, "{text}");
    }
    let prefetch = settings("{prefetch: [linux/amd64, linux/arm64/v8]}").prefetch;
    assert_eq!(prefetch, ["linux/amd64", "linux/arm64/v8"].map(|text| Platform::parse(text).expect(text)));
    assert_eq!(settings("{}"), CacheSettings { memory: 64 << 20, prefetch: Vec::new() });
}

#[test]
fn a_limit_of_reads_is_a_number_or_off() {
    for (text, expected) in
        [("off", None), ("false", None), ("60", Some(60)), ("'4000'", Some(4000)), ("100000", Some(100_000))]
    {
        let text = format!("upstream: {{domain: a.io}}\nlimits: {{registry_reads_per_minute: {text}}}");
        let config = load(&text, Flags::default()).expect("valid");
        assert_eq!(config.registry_reads_per_minute().map(NonZeroU32::get), expected, "{text}");
    }
}

#[test]
fn configurations_come_from_here_only_if_they_are_kept() {
    let blobs = |text: &str| {
        let config = load(text, Flags::default())?;
        Ok::<_, Vec<String>>(config.routes().iter().map(|route| route.destination.blobs).collect::<Vec<_>>())
    };
    assert_eq!(blobs("upstream: {domain: a.io, blobs: proxy_config}"), Ok(vec![Blobs::ProxyConfig]));
    let hosts = "upstream: {domain: a.io, blobs: proxy_config, blob_hosts: [.blob.internal]}";
    assert_eq!(blobs(hosts), Ok(vec![Blobs::ProxyConfig]));
    assert_eq!(blobs("cache: off\nupstream: {domain: a.io, blobs: proxy}"), Ok(vec![Blobs::Proxy]));
    for text in [
        "cache: off\nupstream: {domain: a.io, blobs: proxy_config}",
        "\nupstream: {domain: a.io, blobs: proxy_config, cache: off}",
    ] {
        let says = "config.yaml:2: upstream.blobs: proxy_config needs the cache, which tells configurations from layers: use redirect or proxy, or remove cache: off";
        assert_eq!(blobs(text), Err(vec![says.to_owned()]), "{text}");
    }
}

/// The keys of `limits`.
fn limits() -> String {
    LimitsTable::entries().iter().map(|entry| entry.row.key).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_wrong_value_is_told_with_all_that_would_be_right() {
    const TIME: &str = "a whole number of s, m or h, such as";
    const SIZE: &str = "a whole number of KiB, MiB or GiB, such as 64MiB";
    const SWITCH: &str = "use off, or a table of its keys, or remove the key";
    const PLATFORM: &str = "use system and architecture as an index names them, such as linux/amd64 or linux/arm64/v8";
    let time = |key: &str, given: &str, last: &str, right: &str| {
        format!("cache.{key}: {given:?} is not a time from 0s to {last}: use {right}")
    };
    let such = |last: &str| format!("{TIME} {last}");
    let size =
        |given: &str, right: &str| format!("cache.memory: {given:?} is not a size from 1MiB to 64GiB: use {right}");
    let reads = |given: &str| {
        format!(
            "limits.registry_reads_per_minute: {given:?} is not a number of reads a minute: use off, or a number from 60 to 100000"
        )
    };
    for (setting, says) in [
        ("cache: on", format!("cache: unknown value \"on\": {SWITCH}")),
        ("cache: true", format!("cache: unknown value \"true\": {SWITCH}")),
        ("cache: Off", format!("cache: unknown value \"Off\": {SWITCH}")),
        ("cache: 64MiB", format!("cache: unknown value \"64MiB\": {SWITCH}")),
        (
            "cache: [tags]",
            "cache: must be a table of memory, tags, manifests, missing, redirects, lists, stale, prefetch".to_owned(),
        ),
        ("cache: {tag: 30s}", "cache.tag: unknown setting: did you mean tags?".to_owned()),
        ("cache: {tags: 30}", time("tags", "30", "24h", "30s")),
        ("cache: {tags: 30 sec}", time("tags", "30 sec", "24h", "30s")),
        ("cache: {tags: 5min}", time("tags", "5min", "24h", "5m")),
        ("cache: {tags: 1d}", time("tags", "1d", "24h", "24h")),
        ("cache: {tags: 2d}", time("tags", "2d", "24h", &such("24h"))),
        ("cache: {tags: 90000s}", time("tags", "90000s", "24h", &such("24h"))),
        ("cache: {tags: -1s}", time("tags", "-1s", "24h", &such("24h"))),
        ("cache: {tags: 1.5h}", time("tags", "1.5h", "24h", &such("24h"))),
        ("cache: {tags: 1m30s}", time("tags", "1m30s", "24h", &such("24h"))),
        ("cache: {tags: s}", time("tags", "s", "24h", &such("24h"))),
        ("cache: {tags: off}", time("tags", "off", "24h", &such("24h"))),
        ("cache: {tags: 18446744073709551615h}", time("tags", "18446744073709551615h", "24h", &such("24h"))),
        ("cache: {tags: 99999999999999999999s}", time("tags", "99999999999999999999s", "24h", &such("24h"))),
        ("cache: {manifests: 25h}", time("manifests", "25h", "24h", &such("24h"))),
        ("cache: {missing: 600001ms}", time("missing", "600001ms", "10m", &such("10m"))),
        ("cache: {missing: 11m}", time("missing", "11m", "10m", &such("10m"))),
        ("cache: {redirects: 1h}", time("redirects", "1h", "15m", &such("15m"))),
        ("cache: {lists: 2h}", time("lists", "2h", "1h", &such("1h"))),
        ("cache: {stale: 1w}", time("stale", "1w", "24h", &such("24h"))),
        ("cache: {memory: 64}", size("64", "64MiB")),
        ("cache: {memory: 64M}", size("64M", "64MiB")),
        ("cache: {memory: 64Mi}", size("64Mi", "64MiB")),
        ("cache: {memory: 64 MiB}", size("64 MiB", "64MiB")),
        ("cache: {memory: 64mb}", size("64mb", "64MB")),
        ("cache: {memory: 1g}", size("1g", "1GiB")),
        ("cache: {memory: 512KiB}", size("512KiB", SIZE)),
        ("cache: {memory: 65GiB}", size("65GiB", SIZE)),
        ("cache: {memory: 0}", size("0", SIZE)),
        ("cache: {memory: 0.5GiB}", size("0.5GiB", SIZE)),
        ("cache: {memory: 18446744073709551615GiB}", size("18446744073709551615GiB", SIZE)),
        ("cache: {memory: much}", size("much", SIZE)),
        ("cache: {prefetch: linux/amd64}", "cache.prefetch: must be a list: such as [linux/amd64]".to_owned()),
        ("cache: {prefetch: [amd64]}", format!("cache.prefetch[0]: \"amd64\" is not a platform: {PLATFORM}")),
        (
            "cache: {prefetch: [linux/amd64, linux/arm64, linux/amd64]}",
            "cache.prefetch[2]: linux/amd64 is in the list already: remove one of the two".to_owned(),
        ),
        (
            "cache: {prefetch: [a/a, a/b, a/c, a/d, a/e, a/f, a/g, a/h, a/i, a/j]}",
            "cache.prefetch[8]: is one too many: list 8 platforms at most".to_owned(),
        ),
        ("limits: {registry_reads_per_minute: 59}", reads("59")),
        ("limits: {registry_reads_per_minute: 100001}", reads("100001")),
        ("limits: {registry_reads_per_minute: 0}", reads("0")),
        ("limits: {registry_reads_per_minute: 4k}", reads("4k")),
        ("limits: {registry_reads_per_minute: -1}", reads("-1")),
        ("limits: off", format!("limits: must be a table of {}", limits())),
        ("limits: {reads: 1}", format!("limits.reads: unknown setting: use one of {}", limits())),
    ] {
        let text = format!("upstream: {{domain: a.io}}\n{setting}\n");
        let mistakes = load(&text, Flags::default()).expect_err(setting);
        assert_eq!(mistakes, [format!("config.yaml:2: {says}")]);
    }
}

#[test]
fn a_routes_cache_sets_times_and_nothing_that_is_for_all_routes() {
    for (file, own, says) in [
        ("", "on", &["unknown value \"on\": use off, or a table of its keys, or remove the key"][..]),
        ("cache: off", "{tags: 1m}", &["has no effect, because the file has cache: off: remove one of the two"]),
        ("cache: {tags: 1h}", "{memory: 1GiB}", &["memory: is one for all routes: set it in the cache of the file"]),
        ("", "{prefetch: [linux/amd64]}", &["prefetch[0]: is one for all routes: set it in the cache of the file"]),
        ("", "{tags: 30}", &["tags: \"30\" is not a time from 0s to 24h: use 30s"]),
        ("", "{tag: 30s}", &["tag: unknown setting: did you mean tags?"]),
    ] {
        for (route, key) in [
            ("upstream: {domain: a.io, cache: ", "upstream.cache"),
            ("routes: [{source: ghcr.io, domain: a.io, cache: ", "routes[0].cache"),
        ] {
            let end = if key.starts_with("routes") { "}]" } else { "}" };
            let text = format!("{file}\n{route}{own}{end}\n");
            let mistakes = load(&text, Flags::default()).expect_err(&text);
            let is_said = |(mistake, says): (&String, &&str)| {
                mistake.starts_with(&format!("config.yaml:2: {key}")) && mistake.ends_with(says)
            };
            assert!(mistakes.len() == says.len() && mistakes.iter().zip(says).all(is_said), "{text}: {mistakes:?}");
        }
    }
}
