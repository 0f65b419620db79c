//! `daemon.json`.

use serde_json::{Value, json};

use super::{merged, refused, stands};
use crate::client_config::merge::Addition;

const URL: &str = "http://127.0.0.1:8080";

fn addition() -> Addition {
    Addition::DaemonJson(URL.to_owned())
}

/// Without what was added; a file that says nothing is an empty object.
fn without(text: &str, had_list: bool) -> Value {
    let mut value: Value = serde_json::from_str(text).expect("JSON");
    let object = value.as_object_mut().expect("an object");
    let list = object.get_mut("registry-mirrors").and_then(Value::as_array_mut).expect("mirrors");
    assert_eq!(list.remove(0), json!(URL));
    if !had_list {
        assert!(list.is_empty());
        object.remove("registry-mirrors");
    }
    value
}

#[test]
fn the_password_of_another_mirror_is_not_told() {
    let other = "https://u:hunter2@m.example";
    let with = |first: &str, last: &str| json!({"registry-mirrors": [first, last]}).to_string();
    stands(&addition(), &with(URL, other), &["https://***@m.example is asked when the proxy fails"]);
    refused(
        &addition(),
        &with(other, URL),
        "has http://127.0.0.1:8080 in registry-mirrors, but asks https://***@m.example before it",
    );
}

/// Each with how many of its lines cannot stay as they are.
#[rustfmt::skip]
const FOUND: &[(&str, usize)] = &[
    ("", 0),
    ("\n", 0),
    (" \t\r\n", 0),
    ("{}", 1),
    ("{}\n", 1),
    ("{ }", 1),
    ("{\n}\n", 0),
    ("{\n\n}", 0),
    ("{\"debug\":true}", 1),
    ("{ \"debug\": true }\n", 1),
    // As kubeadm's guides have it.
    ("{\n  \"exec-opts\": [\"native.cgroupdriver=systemd\"],\n  \"log-driver\": \"json-file\",\n  \"log-opts\": {\n    \"max-size\": \"100m\"\n  },\n  \"storage-driver\": \"overlay2\"\n}\n", 0),
    // nvidia-ctk, four blanks, no end of the last line.
    ("{\n    \"default-runtime\": \"nvidia\",\n    \"runtimes\": {\n        \"nvidia\": {\n            \"args\": [],\n            \"path\": \"nvidia-container-runtime\"\n        }\n    }\n}", 0),
    // Tabs.
    ("{\n\t\"data-root\": \"/srv/docker\",\n\t\"live-restore\": true\n}\n", 0),
    // Windows.
    ("{\r\n  \"experimental\": false,\r\n  \"features\": {\r\n    \"buildkit\": true\r\n  }\r\n}\r\n", 0),
    ("{\r\n  \"registry-mirrors\": [\r\n    \"https://mirror.example\"\r\n  ]\r\n}\r\n", 0),
    // One mirror, several, none, on one line and on many.
    ("{\n  \"registry-mirrors\": [\"https://mirror.example\"]\n}\n", 1),
    ("{\n  \"registry-mirrors\": [ \"https://mirror.example\", \"https://second.example\" ],\n  \"debug\": true\n}\n", 1),
    ("{\n  \"registry-mirrors\": [\n    \"https://mirror.example\",\n    \"https://second.example\"\n  ],\n  \"debug\": true\n}\n", 0),
    ("{\n   \"dns\": [\"10.0.0.2\"],\n   \"log-opts\": {\n     \"max-size\":  \"100m\"\n    },\n   \"registry-mirrors\": [\n    \"https://mirror.example\"\n  ]\n }\n", 0),
    ("{\"registry-mirrors\" : [], \"insecure-registries\" : [\"registry.example:5000\"]}\n", 1),
    ("{\n  \"registry-mirrors\":\n  [\n    \"https://mirror.example\"\n  ]\n}\n", 0),
    ("{\n  \"registry-mirrors\": [\n  ]\n}\n", 1),
    ("{ \"debug\": true,\n  \"hosts\": [\"unix:///var/run/docker.sock\"]\n}\n", 1),
    // The opening bracket stands with the first key, and keys to the left.
    ("{\n\"bip\": \"172.20.0.1/16\",\n\"mtu\": 1450\n}\n", 0),
    // The key is elsewhere, too, and so are brackets in texts.
    ("{\n  \"labels\": [\"registry-mirrors=[{\"],\n  \"log-opts\": {\"tag\": \"{{.Name}}\", \"registry-mirrors\": \"no\"}\n}\n", 0),
    // Not ASCII, escaped and as it is; large and small numbers.
    ("{\n  \"labels\": [\"ort=K\\u00f6ln\", \"straße=ä\"],\n  \"max-concurrent-downloads\": 10,\n  \"shutdown-timeout\": 1e2\n}\n", 0),
    // Blank lines, and a list of pools.
    ("{\n\n  \"default-address-pools\": [\n    {\"base\": \"172.30.0.0/16\", \"size\": 24}\n  ],\n\n  \"ipv6\": true,\n  \"fixed-cidr-v6\": \"fd00::/80\"\n\n}\n\n", 0),
    // Everything that the daemon's manual shows, in short.
    ("{\n  \"authorization-plugins\": [],\n  \"cgroup-parent\": \"\",\n  \"default-ulimits\": {\n    \"nofile\": {\n      \"Hard\": 64000,\n      \"Name\": \"nofile\",\n      \"Soft\": 64000\n    }\n  },\n  \"proxies\": {\n    \"http-proxy\": \"http://proxy.example:80\",\n    \"no-proxy\": \"*.test.example,.example.org\"\n  },\n  \"registry-mirrors\": [],\n  \"seccomp-profile\": \"\",\n  \"tls\": true,\n  \"tlsverify\": true\n}\n", 1),
];

#[test]
fn a_file_keeps_what_it_has_and_gets_the_mirror() {
    for (old, changed) in FOUND {
        let new = merged(&addition(), old, *changed);
        let was: Value = if old.trim().is_empty() { json!({}) } else { serde_json::from_str(old).expect("JSON") };
        assert_eq!(without(&new, was.get("registry-mirrors").is_some()), was, "{new}");
    }
}

#[test]
fn what_is_added_looks_like_what_is_there() {
    for (old, new) in [
        (
            "{\n  \"debug\": true\n}\n",
            "{\n  \"registry-mirrors\": [\n    \"http://127.0.0.1:8080\"\n  ],\n  \"debug\": true\n}\n",
        ),
        (
            "{\n\t\"debug\": true\n}",
            "{\n\t\"registry-mirrors\": [\n\t\t\"http://127.0.0.1:8080\"\n\t],\n\t\"debug\": true\n}",
        ),
        ("{\"debug\":true}", "{\"registry-mirrors\": [\"http://127.0.0.1:8080\"], \"debug\":true}"),
        ("{}", "{\n  \"registry-mirrors\": [\n    \"http://127.0.0.1:8080\"\n  ]\n}"),
        // The bracket at the end was indented by the blank.
        ("{ }\n", "{ \"registry-mirrors\": [\"http://127.0.0.1:8080\"] }\n"),
        ("{\"registry-mirrors\":[\"https://a\"]}", "{\"registry-mirrors\":[\"http://127.0.0.1:8080\", \"https://a\"]}"),
        (
            "{\n  \"registry-mirrors\": [\n    \"https://a\"\n  ]\n}",
            "{\n  \"registry-mirrors\": [\n    \"http://127.0.0.1:8080\",\n    \"https://a\"\n  ]\n}",
        ),
    ] {
        assert_eq!(addition().merge(old, &|_, _| false).expect("merged").text, new);
    }
}

#[test]
fn what_says_it_already_stays_and_other_mirrors_are_told() {
    stands(&addition(), "{\"registry-mirrors\":[\"http://127.0.0.1:8080\"]}", &[]);
    stands(&addition(), "{\"registry-mirrors\":[\"http://127.0.0.1:8080/\"]}", &[]);
    let second = "https://mirror.example is asked when the proxy fails";
    stands(&addition(), "{\"registry-mirrors\":[\"http://127.0.0.1:8080\",\"https://mirror.example\"]}", &[second]);
    let merged =
        addition().merge("{\"registry-mirrors\":[\"https://mirror.example\"]}", &|_, _| false).expect("merged");
    assert_eq!((merged.lacks, merged.beside), (vec![format!("{URL} in registry-mirrors")], vec![second.to_owned()]));
}

/// The page had it that such a file is left, and dockerd takes it.
#[test]
fn a_file_with_another_key_twice_is_merged_since_dockerd_takes_the_last_of_them() {
    for old in
        ["{\n  \"debug\": true,\n  \"debug\": false\n}\n", "{\n  \"log-opts\": {\"a\": \"1\", \"a\": \"2\"}\n}\n"]
    {
        let was: Value = serde_json::from_str(old).expect("JSON");
        assert_eq!(without(&merged(&addition(), old, 0), false), was);
    }
}

#[test]
fn a_broken_file_or_one_that_contradicts_is_refused() {
    for (old, why) in [
        ("{", "is no JSON: EOF while parsing an object at line 1 column 1"),
        ("{\n  \"debug\": true,\n}\n", "is no JSON: trailing comma at line 3 column 1"),
        ("// a comment\n{}", "is no JSON: expected value at line 1 column 1"),
        ("{\n  \"debug\": true\n  \"mtu\": 1\n}", "is no JSON: expected `,` or `}` at line 3 column 3"),
        ("{}{}", "is no JSON: trailing characters at line 1 column 3"),
        // White space of Unicode that is none of JSON's.
        ("\u{b}", "is no JSON: expected value at line 1 column 1"),
        ("\u{a0}\n", "is no JSON: expected value at line 1 column 1"),
        ("[]", "is no JSON object"),
        ("\"registry-mirrors\"", "is no JSON object"),
        ("null", "is no JSON object"),
        ("\u{feff}{}", "begins with a byte order mark"),
        ("{\"registry-mirrors\": null}", "has \"registry-mirrors\", but not as a list of texts"),
        ("{\"registry-mirrors\": \"http://127.0.0.1:8080\"}", "has \"registry-mirrors\", but not as a list of texts"),
        ("{\"registry-mirrors\": [1]}", "has \"registry-mirrors\", but not as a list of texts"),
        (
            "{\"registry-mirrors\": [], \"registry-mirrors\": []}",
            "has \"registry-mirrors\" twice, of which dockerd takes the last: take one out",
        ),
        (
            "{\"registry-mirrors\": [\"https://a\", \"https://b\", \"http://127.0.0.1:8080\"]}",
            "has http://127.0.0.1:8080 in registry-mirrors, but asks https://a, https://b before it: put http://127.0.0.1:8080 first",
        ),
    ] {
        refused(&addition(), old, why);
    }
    refused(&addition(), &"[".repeat(100_000), "is no JSON: recursion limit exceeded");
}

/// A registry of this host's that was stopped at the moment lost its place in the list, without a word.
#[test]
fn a_mirror_on_loopback_where_nothing_listens_stays_in_its_place() {
    let old = "{\n  \"registry-mirrors\": [\n    \"http://127.0.0.1:5000\",\n    \"http://127.0.0.1:9\"\n  ]\n}\n";
    let new = old.replacen("    \"", &format!("    \"{URL}\",\n    \""), 1);
    let found = addition().merge(old, &|_, _| false).expect("merged");
    assert_eq!(found.text, new);
    assert_eq!(found.lacks, [format!("{URL} in registry-mirrors")]);
}
