//! The rows of what is kept, and how long.

use std::time::Duration;

use crate::config::file::{Document, Node};
use crate::config::mistake::Place;
use crate::config::parse::{
    MAX_LISTS, MAX_MANIFESTS, MAX_MISSING, MAX_REDIRECTS, MAX_STALE, MAX_TAGS, parse_lifetime, parse_memory,
};
use crate::config::table::{Default, Entry, List, ROW, Row, Shape, Table, Value, table};
use oci::platform::Platform;

/// A time that may be none, and of milliseconds.
const LIFETIME: &str = "^[0-9]+(ms|s|m|h)$";

table! {
    /// What is kept, and how long.
    CACHE: CacheRows, CacheTable {
        memory: Value<usize> {
            value: "SIZE",
            default: Default::Text("64MiB"),
            help: "The most memory that it takes, 1MiB to 64GiB",
            more: "It is a hard bound on all that is kept, names and headers included: what was not asked for lately makes \
                   room for what is new. A manifest takes a few KiB. The units are KiB, MiB and GiB, or kB, MB and GB."
        } parse parse_memory;

        tags: Value<Duration> {
            value: "TIME",
            default: Default::Unless("30s", "0s where the prefix is empty"),
            pattern: LIFETIME,
            help: "How long a tag is served without asking the registry again, 0s to 24h",
            more: "With `0s` the registry is asked each time, once for all that ask at the same time."
        } parse parse_lifetime::<MAX_TAGS>;

        manifests: Value<Duration> {
            value: "TIME",
            default: Default::Text("1h"),
            pattern: LIFETIME,
            help: "How long a manifest is served by its digest without asking the registry again, 0s to 24h",
            more: "Its content cannot change, but the right to pull it can end."
        } parse parse_lifetime::<MAX_MANIFESTS>;

        missing: Value<Duration> {
            value: "TIME",
            default: Default::Unless("5s", "0s where the prefix is empty"),
            pattern: LIFETIME,
            help: "How long a 404 of the registry is served without asking again, 0s to 10m",
            more: ""
        } parse parse_lifetime::<MAX_MISSING>;

        redirects: Value<Duration> {
            value: "TIME",
            default: Default::Text("10m"),
            pattern: LIFETIME,
            help: "How long a redirect to a blob in Azure's storage is served again, 0s to 15m",
            more: "Never in the last five minutes before its own end, which comes 20 minutes after Azure gave it."
        } parse parse_lifetime::<MAX_REDIRECTS>;

        lists: Value<Duration> {
            value: "TIME",
            default: Default::Unless("10s", "0s where the prefix is empty"),
            pattern: LIFETIME,
            help: "How long a list of tags or referrers is served without asking the registry again, 0s to 1h",
            more: ""
        } parse parse_lifetime::<MAX_LISTS>;

        stale: Value<Duration> {
            value: "TIME",
            default: Default::Text("1h"),
            pattern: LIFETIME,
            help: "How long after these times an answer may still be served while the registry fails, 0s to 24h",
            more: "It fails when it cannot be reached, is too slow, throttles or answers with 5xx, or when the sign-in \
                   fails. A 404 is no failure, and counts at once; one that is kept is served in trouble only where it says that \
                   an image has no signature: for the tags that clients make of its digest, such as `sha256-<hex>.sig`. \
                   Of an image that is kept and whose signature nobody has asked for, it is said that it has none while the registry or the sign-in does not work at all."
        } parse parse_lifetime::<MAX_STALE>;

        prefetch: List<Platform> {
            value: "[OS/ARCHITECTURE, ...]",
            default: Default::Text("[]"),
            example: "[linux/amd64]",
            help: "Platforms for which an image's manifest and configuration are fetched once its index was served",
            more: "They are then there when the client asks for them. A variant may follow, as in `linux/arm/v6`. Names are \
                   taken as containerd takes them: `linux/arm64/v8` is `linux/arm64`, `linux/arm` is `linux/arm/v7`, and \
                   `x86_64` is `amd64`. Of one index 8 manifests are fetched at most."
        } parse Platform::parse;
    }
}
