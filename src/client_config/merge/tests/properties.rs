//! What holds of any file, be it one or not.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::lost;
use crate::client_config::merge::Addition;

fn additions() -> [Addition; 3] {
    let registries = || vec!["docker.io".to_owned(), "ghcr.io".to_owned()];
    [
        Addition::DaemonJson("http://m:80".to_owned()),
        Addition::BuildkitdToml { mirror: "m:80".to_owned(), http: true, registries: registries() },
        Addition::RegistriesYaml { url: "http://m:80".to_owned(), registries: registries() },
    ]
}

/// Pieces of such files, so that many of the texts are nearly one.
fn pieces() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "=",
        "\n",
        "\r\n",
        " ",
        "  ",
        "    ",
        "\t",
        "- ",
        "# x",
        "\"",
        "'",
        "|",
        "&a",
        "*a",
        "\"registry-mirrors\"",
        "\"http://m:80\"",
        "\"debug\": true",
        "mirrors",
        "mirrors:\n",
        "endpoint:",
        "docker.io",
        "  docker.io:\n",
        "    endpoint:\n",
        "      - a\n",
        "configs:\n",
        "rewrite:",
        "[registry.\"docker.io\"]\n",
        "[registry]\n",
        "mirrors = [\"a\"]\n",
        "http = true\n",
        "registry",
        "---\n",
        "...\n",
        "\u{feff}",
        "ä",
        "null",
        "1",
    ]);
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(".{0,6}", inner, 0..4).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// Registries with others that are asked for each.
fn mirrors() -> impl Strategy<Value = BTreeMap<&'static str, Vec<&'static str>>> {
    let name = select(vec!["docker.io", "ghcr.io", "a.example:5000", "*", "b.example"]);
    btree_map(name, vec(select(vec!["https://a", "http://b:5000", "c.example/x"]), 1..3), 0..5)
}

proptest! {
    /// A text is refused or added to, all of it is still there, and a second time changes nothing.
    #[test]
    fn any_text_is_refused_or_only_added_to(old in prop_oneof![pieces(), ".{0,60}"]) {
        for addition in additions() {
            let Ok(merged) = addition.merge(&old, &|_, _| false) else { continue };
            let mut rest = merged.text.chars();
            prop_assert!(old.chars().all(|c| rest.any(|other| other == c)), "{:?}", merged.text);
            // At most a line for each list, or the one of the whole file.
            prop_assert!(lost(&old, &merged.text) <= 3, "{:?}", merged.text);
            let again = addition.merge(&merged.text, &|_, _| false);
            prop_assert_eq!(again.map(|again| (again.text, again.lacks)), Ok((merged.text, Vec::new())));
        }
    }

    #[test]
    fn any_object_gets_the_mirror(members in btree_map("[a-z{\\[\"\\\\ä\n]{0,6}", json_value(), 0..5), pretty: bool) {
        let old: Value = members.into_iter().collect();
        let text = if pretty { format!("{old:#}") } else { old.to_string() };
        let [addition, ..] = additions();
        let mut new: Value = serde_json::from_str(&addition.merge(&text, &|_, _| false).expect("an object").text).expect("JSON");
        let list = new.as_object_mut().and_then(|object| object.remove("registry-mirrors"));
        prop_assert_eq!((list, new), (Some(json!(["http://m:80"])), old));
    }

    /// As a program writes such a file.
    #[test]
    fn any_mirrors_get_the_endpoint(mirrors in mirrors(), others: bool) {
        let mut old = json!({});
        if others {
            old["configs"] = json!({"a.example:5000": {"auth": {"username": "u", "password": "p"}}});
        }
        if !mirrors.is_empty() {
            let entry = |(name, list): (&&str, &Vec<_>)| ((*name).to_owned(), json!({"endpoint": list}));
            old["mirrors"] = mirrors.iter().map(entry).collect();
        }
        let text = if old == json!({}) { String::new() } else { serde_yaml::to_string(&old).expect("YAML") };
        let [.., addition] = additions();
        let new: Value = serde_yaml::from_str(&addition.merge(&text, &|_, _| false).expect("mirrors").text).expect("YAML");
        for name in ["docker.io", "ghcr.io"] {
            let list = old.get_mut("mirrors").and_then(|mirrors| mirrors.get_mut(name));
            match list.and_then(|entry| entry["endpoint"].as_array_mut()) {
                Some(list) => list.insert(0, json!("http://m:80")),
                None => old["mirrors"][name] = json!({"endpoint": ["http://m:80"]}),
            }
        }
        prop_assert_eq!(new, old);
    }

    #[test]
    fn any_tables_get_the_mirror(mirrors in mirrors(), plain in vec(any::<bool>(), 5)) {
        let mut text = "debug = true\n".to_owned();
        for ((name, list), is_plain) in mirrors.iter().zip(plain) {
            let list = if is_plain { "insecure = true".to_owned() } else { format!("mirrors = {list:?}") };
            text += &format!("\n[registry.{name:?}]\n  {list}\n");
        }
        let [_, addition, _] = additions();
        let new: toml::Table = addition.merge(&text, &|_, _| false).expect("tables").text.parse().expect("TOML");
        for name in ["docker.io", "ghcr.io"] {
            prop_assert_eq!(new["registry"][name]["mirrors"][0].as_str(), Some("m:80"));
        }
        let old: toml::Table = text.parse().expect("TOML");
        for (name, table) in old.get("registry").and_then(toml::Value::as_table).into_iter().flatten() {
            let count = |table: &toml::Value| table.get("mirrors").and_then(toml::Value::as_array).map_or(0, Vec::len);
            let ours = usize::from(["docker.io", "ghcr.io"].contains(&name.as_str()));
            prop_assert_eq!(count(&new["registry"][name]), count(table) + ours);
            prop_assert_eq!(new["registry"][name].get("insecure"), table.get("insecure"));
        }
    }
}
