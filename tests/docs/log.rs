//! Log lines.

use crate::block::Block;
use crate::root;

/// Log lines: a time, a level and a target of this program; of an access line every field is one that the table explains.
pub(crate) fn check(block: &Block) -> Result<(), String> {
    let page = std::fs::read_to_string(root().join("docs/operations.md")).expect("the page");
    for line in block.text.lines() {
        let wrong = |what: &str| Err(format!("{what}: {line}"));
        let Some((head, message)) = line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) else {
            return wrong("no head");
        };
        let head: Vec<_> = head.split_whitespace().collect();
        let [time, level, target] = head[..] else { return wrong("no time, level and target") };
        if time.len() != "2026-11-24T17:03:11.340Z".len() || !["ERROR", "WARN", "INFO"].contains(&level) {
            return wrong("no time or no level");
        }
        if target == "access" {
            let fields =
                message.split(" error=").next().unwrap_or_default().split(' ').filter_map(|word| word.split_once('='));
            for (field, _) in fields {
                if !page.lines().any(|row| row.starts_with('|') && row.contains(&format!("`{field}`"))) {
                    return wrong(field);
                }
            }
        } else if target != "acr_cache_proxy" && !target.starts_with("acr_cache_proxy::") {
            return wrong("no target of this program");
        } else if message.starts_with("acr-cache-proxy ") && !message.contains(env!("CARGO_PKG_VERSION")) {
            return wrong("another version");
        }
    }
    Ok(())
}

/// The same lines as JSON: each key of an access line is a field that the table explains, times without their unit.
pub(crate) fn check_objects(block: &Block) -> Result<(), String> {
    let page = std::fs::read_to_string(root().join("docs/operations.md")).expect("the page");
    for line in block.text.lines() {
        let object: serde_json::Value = serde_json::from_str(line).map_err(|wrong| format!("{wrong}: {line}"))?;
        for key in object.as_object().into_iter().flat_map(|object| object.keys()) {
            let name = key.trim_end_matches("_ms");
            let is_known = ["level", "target", "method", "path", "status", "bytes", "elapsed", "time"].contains(&name)
                || page.lines().any(|row| row.starts_with('|') && row.contains(&format!("`{name}`")));
            if !is_known {
                return Err(format!("{key}: {line}"));
            }
        }
    }
    Ok(())
}

/// The page with the first start shows the lines that a start has.
#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_a_start_are_those_of_the_documentation() {
    let azure = testkit::azure().await;
    let proxy = testkit::Setup::new(&azure).cache("{}").start();
    proxy.wait_for_log("entra: signed in");
    let log = proxy.log();
    let page = std::fs::read_to_string(root().join("docs/install.md")).expect("the page");
    let shown: Vec<_> =
        page.lines().filter(|line| line.starts_with('[') && line.contains(" acr_cache_proxy")).collect();
    assert!(shown.len() >= 3, "{shown:?}");
    for line in shown {
        // The registry, the address and the identity of the test are others.
        let (head, message) = line.split_once("] ").expect("a head");
        let level_and_target = head.split_once(' ').expect("a time").1;
        let words = ["http://", "example.azurecr.io", "managed identity"];
        let begin =
            words.iter().filter_map(|word| message.split_once(word)).map(|(begin, _)| begin).next().unwrap_or(message);
        assert!(log.contains(&format!("{level_and_target}] {begin}")), "{line}\n{log}");
    }
}
