//! `registries.d`, which says where signatures of images are looked for.

use std::collections::BTreeMap;

use serde_yaml::{Mapping, Value as Yaml};

use crate::config::parse_yaml;
use crate::doctor::expected::{Expected, edit, unreadable};
use crate::doctor::finding::{Code, Examined, Finding, Way};
use crate::host::Text;

/// Two files may not have an entry for the same address, even if it is the same entry.
pub(super) fn judge(files: &[Text], expected: &Expected<'_>, found: &mut Examined) {
    const WHY: &str = "podman, buildah, skopeo and CRI-O read none of these files then, and every pull fails";
    let mut known: BTreeMap<String, &str> = BTreeMap::new();
    let mut wrong = None;
    for Text { path, content } in files {
        let entries = match content.clone().and_then(|content| entries_of_signatures(&content)) {
            Ok(entries) => entries,
            Err(cause) => {
                wrong.get_or_insert_with(|| unreadable(path, &cause, WHY));
                continue;
            }
        };
        for entry in entries {
            let Some(other) = known.insert(entry.clone(), path) else { continue };
            wrong.get_or_insert_with(|| Finding {
                registries: Vec::new(),
                code: Code::Conflict,
                file: Some(path.clone()),
                text: format!("it has an entry for {entry}, and so has {other}"),
                why: WHY.to_owned(),
                fix: edit(path, &format!("  # take the entry for {entry} out")),
            });
        }
    }
    if let Some(finding) = wrong {
        found.find(finding);
        found.lead_all(expected.names(), Way::Nowhere);
    }
}

/// The addresses that a file has entries for, and `default-docker`.
fn entries_of_signatures(content: &str) -> Result<Vec<String>, String> {
    let parsed: Yaml = parse_yaml(content)?;
    let by_address = parsed.get("docker").and_then(Yaml::as_mapping).into_iter().flat_map(Mapping::keys);
    let by_address = by_address.filter_map(Yaml::as_str).map(str::to_owned);
    let default = parsed.get("default-docker").filter(|default| !default.is_null());
    Ok(by_address.chain(default.map(|_| "default-docker".to_owned())).collect())
}
