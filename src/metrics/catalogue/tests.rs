//! The catalogue follows Prometheus's conventions, and docs/metrics.md is made from it:
//! `UPDATE_REFERENCE=1 cargo test --lib reference` writes it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use super::*;
use crate::metrics::labels::Cause;

const COMMAND: &str = "UPDATE_REFERENCE=1 cargo test --lib reference";
const BEGIN: &str = "<!-- made from src/metrics/catalogue.rs -->\n";
const END: &str = "<!-- end -->\n";

/// Word by word what https://prometheus.io/docs/practices/naming/ asks for, as far as a name shows it.
#[test]
fn names_follow_the_conventions_of_prometheus() {
    let mut names = BTreeSet::new();
    for family in ALL {
        let Family { name, kind, labels, help } = family;
        assert!(names.insert(*name), "{name} is there twice");
        assert!(name.starts_with("acr_cache_proxy_") || name.starts_with("process_"), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert!(!name.ends_with("_total") && !name.contains("millis") && !name.contains("_ms"), "{name}");
        if *kind == Type::Histogram {
            assert!(name.ends_with("_seconds"), "{name}: a base unit");
        }
        let closed = [
            "route", "kind", "status", "cache", "cause", "registry", "hop", "result", "token", "call", "reason",
            "listener", "address",
        ];
        let known = |label: &&&str| closed.contains(*label) || *family.name == *BUILD_INFO.name;
        assert_eq!(labels.iter().filter(known).count(), labels.len(), "{name}: {labels:?}: is it a closed set?");
        assert!(
            !help.ends_with('.') && !help.contains('\n') && help.starts_with(|c: char| !c.is_whitespace()),
            "{name}: {help}"
        );
    }
}

/// The alert left out a cause `client`, which the reference did not have and which no request could be counted by.
#[test]
fn the_reference_and_the_alerts_name_each_cause_and_no_other() {
    let (_, causes) = REFUSED.help.split_once("by route and cause (").expect("the list");
    let (causes, _) = causes.split_once(')').expect("its end");
    // What a name means stands behind its colon.
    let named: BTreeSet<_> = causes
        .split("; ")
        .flat_map(|group| group.split(": ").next().unwrap_or_default().split(", "))
        .map(str::to_owned)
        .collect();
    assert_eq!(named, Cause::ALL.iter().map(|cause| cause.name().to_owned()).collect());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/alerts.yaml");
    let alerts = std::fs::read_to_string(path).expect("conf/alerts.yaml");
    for filter in alerts.split("cause").skip(1).filter_map(|rest| rest.strip_prefix(['=', '!'])) {
        let value = filter.split('"').nth(1).expect("a value");
        assert!(value.split('|').all(|name| named.contains(name)), "cause={filter}");
    }
}

/// The part of docs/metrics.md that is made from the catalogue.
fn reference() -> String {
    let mut text = "| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n".to_owned();
    for family in ALL {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let kind = match family.kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        writeln!(text, "| `{}` | {kind} | {} | {} |", family.series(), labels.join(", "), family.help)
            .expect("a string");
    }
    text
}

#[test]
fn the_reference_of_metrics_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(&path).expect("docs/metrics.md");
    let (before, rest) = page.split_once(BEGIN).expect("the beginning of the part");
    let (_, after) = rest.split_once(END).expect("its end");
    let current = format!("{before}{BEGIN}{}{END}{after}", reference());
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &current).expect("it is written");
    } else {
        assert!(page == current, "docs/metrics.md is not what the catalogue says: run {COMMAND}");
    }
}
