//! `[aliases]` of a `registries.conf`, as `shortnames` of containers/image takes them: names without a registry, and what each stands for.

use toml::{Table, Value};

use crate::client_config::text;

/// The first alias that makes the file be refused, and why.
pub(super) fn wrong_alias(table: &Table) -> Option<(String, &'static str)> {
    let aliases = text::table(table, &["aliases"]).into_iter().flatten();
    let mut wrong =
        aliases.filter_map(|(name, value)| Some((name.clone(), wrong_name(name).or_else(|| wrong_value(value))?)));
    wrong.next()
}

fn wrong_name(name: &str) -> Option<&'static str> {
    match name.split_once('/') {
        _ if name.is_empty() => Some("an alias has a name"),
        Some((host, _)) if is_registry(host) => Some("the name of an alias has no registry"),
        _ => wrong_reference(
            name,
            "the name of an alias has no tag and no digest",
            "the name of an alias is in small letters",
        ),
    }
}

fn wrong_value(value: &Value) -> Option<&'static str> {
    const WHOLE: &str = "an alias stands for a registry and a repository";
    let Some(value) = value.as_str() else { return Some("an alias stands for a text") };
    match value.split_once('/') {
        // It takes back what another file says.
        None if value.is_empty() => None,
        Some((host, _)) if is_registry(host) => {
            wrong_reference(value, "an alias stands for no tag and no digest", "a repository is in small letters")
        }
        _ => Some(WHOLE),
    }
}

fn is_registry(host: &str) -> bool {
    host.contains(['.', ':']) || host == "localhost"
}

/// What stands before the first `/` may have capital letters.
fn wrong_reference(text: &str, tagged: &'static str, capital: &'static str) -> Option<&'static str> {
    let path = text.split_once('/').map_or(text, |(_, path)| path);
    if path.contains([':', '@']) {
        return Some(tagged);
    }
    path.contains(|c: char| c.is_ascii_uppercase()).then_some(capital)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_that_podman_refuses_is_told() {
        for (name, value, is_right) in [
            ("busybox", "\"docker.io/library/busybox\"", true),
            // As the packages of distributions have them.
            ("ubi8/podman", "\"registry.access.redhat.com/ubi8/podman\"", true),
            ("a.b", "\"localhost/a\"", true),
            ("x", "\"host:5000/a/b\"", true),
            ("x", "\"\"", true),
            ("x", "\"nope\"", false),
            ("x", "\"org/app\"", false),
            ("x", "\"quay.io/org/app:1\"", false),
            ("x", "\"quay.io/org/app@sha256:0\"", false),
            ("x", "\"quay.io/Org/app\"", false),
            ("x", "1", false),
            ("docker.io/x", "\"quay.io/org/app\"", false),
            ("localhost/x", "\"quay.io/org/app\"", false),
            ("X", "\"quay.io/org/app\"", false),
            ("x:1", "\"quay.io/org/app\"", false),
            ("", "\"quay.io/org/app\"", false),
        ] {
            let text = format!("[aliases]\n\"{name}\" = {value}\n");
            let wrong = wrong_alias(&text::toml(&text).expect("TOML"));
            assert_eq!(wrong.is_none(), is_right, "{text}: {wrong:?}");
        }
    }
}
