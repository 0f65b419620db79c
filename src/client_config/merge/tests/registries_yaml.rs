//! `registries.yaml`.

use serde_yaml::{Mapping, Value};

use super::{merged, refused, stands};
use crate::client_config::merge::Addition;

const URL: &str = "http://127.0.0.1:8080";

fn addition() -> Addition {
    let registries = ["docker.io", "registry.example:5000"].map(str::to_owned).to_vec();
    Addition::RegistriesYaml { url: URL.to_owned(), registries }
}

/// What was added is taken from the new file, and with it the tables that the old one did not have.
fn without(new: &str, old: &Value) -> Value {
    let mut value: Value = serde_yaml::from_str(new).expect("YAML");
    let root = value.as_mapping_mut().expect("a table");
    let old_mirrors = old.get("mirrors");
    let mirrors = root.get_mut("mirrors").and_then(Value::as_mapping_mut).expect("mirrors");
    for name in ["docker.io", "registry.example:5000"] {
        let old_entry = old_mirrors.and_then(|mirrors| mirrors.get(name));
        let entry = mirrors.get_mut(name).and_then(Value::as_mapping_mut).expect("an entry");
        let list = entry.get_mut("endpoint").and_then(Value::as_sequence_mut).expect("a list");
        assert_eq!(list.remove(0), Value::from(URL));
        match old_entry.and_then(|entry| entry.get("endpoint")) {
            Some(Value::Null) => drop(entry.insert("endpoint".into(), Value::Null)),
            None => drop(entry.remove("endpoint")),
            Some(_) => {}
        }
        match old_entry {
            Some(Value::Null) => drop(mirrors.insert(name.into(), Value::Null)),
            None => assert_eq!(mirrors.remove(name), Some(Value::Mapping(Mapping::new()))),
            Some(_) => {}
        }
    }
    match old_mirrors {
        Some(Value::Null) => drop(root.insert("mirrors".into(), Value::Null)),
        None => assert_eq!(root.remove("mirrors"), Some(Value::Mapping(Mapping::new()))),
        Some(_) => {}
    }
    if old.is_null() { Value::Null } else { value }
}

#[rustfmt::skip]
const FOUND: &[(&str, usize)] = &[
    ("", 0),
    ("\n", 0),
    ("# nothing yet", 0),
    ("# nothing yet\n\n", 0),
    ("---\n", 0),
    ("---\n# nothing yet\n", 0),
    ("mirrors:\n", 0),
    ("mirrors:", 0),
    ("mirrors: # later\n", 0),
    // The guide's mirror.
    ("mirrors:\n  docker.io:\n    endpoint:\n      - \"https://registry.example:5000\"\n", 0),
    ("mirrors:\n  \"docker.io\":\n    endpoint:\n      - https://one.example\n      - https://two.example\n  'image.registry':\n    endpoint:\n      - 'http://image.registry'\nconfigs:\n  \"image.registry\":\n    auth:\n      username: user # not root\n      password: \"a: b # c\"\n", 0),
    // Lists to the left, deeper keys.
    ("mirrors:\n  docker.io:\n      endpoint:\n      - \"https://registry.example\"\n\nconfigs:\n  \"registry.example\":\n    auth:\n      username: user\n      password: pass\n", 0),
    ("mirrors:\n    docker.io:\n        endpoint:\n            - https://one.example\n    ghcr.io:\n        endpoint:\n            - https://two.example", 0),
    ("mirrors:\n docker.io:\n  endpoint:\n  - https://one.example\n", 0),
    // Credentials only.
    ("configs:\n  registry.example:\n    auth:\n      username: user\n      password: pass\n", 0),
    ("---\n# the site's registries\nconfigs:\n  \"registry.example:5000\":\n    tls:\n      ca_file: /etc/ssl/ca.pem\n      insecure_skip_verify: true\n", 0),
    ("# Managed by Ansible\n---\nconfigs:\n  registry.example:\n    auth: {username: user, password: pass}\n", 0),
    // credentials first, mirrors last.
    ("configs:\n  registry.example:\n    auth:\n      username: user\n      password: pass\nmirrors:\n  quay.io:\n    endpoint: [\"https://quay.example\"]\n", 0),
    // Lists on one line.
    ("mirrors:\n  docker.io:\n    endpoint: [\"https://one.example\", https://two.example]\n", 1),
    ("mirrors:\n  docker.io:\n    endpoint: []\n", 1),
    ("mirrors:\n  docker.io:\n    endpoint: [ # all of them\n      https://one.example,\n      https://two.example\n    ]\n", 1),
    // An entry for all others, and empty ones for the embedded registry.
    ("mirrors:\n  \"*\":\n    endpoint:\n      - https://all.example\n", 0),
    ("mirrors:\n  docker.io:\n  registry.k8s.io:\n", 0),
    ("mirrors:\n  docker.io:\n    endpoint:\n  registry.k8s.io:\n    endpoint:\n", 0),
    ("mirrors:\n  registry.k8s.io:\n  docker.io:", 0),
    // Names with ports; a rewrite elsewhere, an empty one here.
    ("mirrors:\n  registry.example:5000:\n    endpoint:\n      - http://registry.example:5000\n  quay.io:\n    endpoint:\n      - https://harbor.example\n    rewrite:\n      \"^(.*)$\": \"quay/$1\"\n", 0),
    ("mirrors:\n  docker.io:\n    rewrite: {}\n    endpoint:\n      - https://one.example\n", 0),
    // Comments everywhere, blank lines, the end of a document.
    ("# top\n\nmirrors: # all\n  # of Hub\n  docker.io: # Hub\n    # in turn\n    endpoint: # list\n      # first\n      - https://one.example # one\n\n      - https://two.example\n# end\n", 0),
    ("mirrors:\n  docker.io:\n    endpoint:\n\n      - https://one.example\n...\n", 0),
    // Windows.
    ("mirrors:\r\n  docker.io:\r\n    endpoint:\r\n      - https://one.example\r\nconfigs:\r\n", 0),
    ("configs:\r\n  a.example:\r\n    tls:\r\n      insecure_skip_verify: true", 0),
    // What looks like the key in a text.
    ("configs:\n  a.example:\n    auth:\n      password: |\n        mirrors:\n          docker.io:\nmirrors:\n  ghcr.io:\n    endpoint:\n      - https://one.example\n", 0),
];

#[test]
fn a_file_keeps_what_it_has_and_gets_the_endpoints() {
    for (old, changed) in FOUND {
        let new = merged(&addition(), old, *changed);
        let was: Value = serde_yaml::from_str(old).expect("YAML");
        assert_eq!(without(&new, &was), was, "{new}");
    }
}

#[test]
fn what_is_added_is_where_a_person_would_have_put_it() {
    for (old, new) in [
        (
            "# site\nmirrors:\n  # Hub\n  docker.io:\n    endpoint:\n      - https://one.example\nconfigs:\n",
            "# site\nmirrors:\n  \"registry.example:5000\":\n    endpoint:\n      - \"http://127.0.0.1:8080\"\n  # Hub\n  docker.io:\n    endpoint:\n      - \"http://127.0.0.1:8080\"\n      - https://one.example\nconfigs:\n",
        ),
        (
            "# site\nconfigs:\n  a.example:\n    auth: {password: secret}\n",
            "# site\nmirrors:\n  \"docker.io\":\n    endpoint:\n      - \"http://127.0.0.1:8080\"\n  \"registry.example:5000\":\n    endpoint:\n      - \"http://127.0.0.1:8080\"\nconfigs:\n  a.example:\n    auth: {password: secret}\n",
        ),
    ] {
        assert_eq!(addition().merge(old, &|_, _| false).expect("merged").text, new);
    }
}

#[test]
fn what_says_it_already_stays_and_other_endpoints_are_told() {
    let said = "mirrors:\n  registry.example:5000: {endpoint: ['http://127.0.0.1:8080']}\n  docker.io:\n    endpoint:\n    - http://127.0.0.1:8080\n";
    stands(&addition(), said, &[]);
    let other = "https://one.example is asked for docker.io when the proxy fails";
    stands(&addition(), &format!("{said}    - https://one.example\n"), &[other]);
    let merged =
        addition().merge("mirrors:\n  '*':\n    endpoint: [a]\n  docker.io:\n", &|_, _| false).expect("merged");
    let wildcard = "what stands for \"*\" does not count for registry.example:5000, which gets an entry of its own";
    assert_eq!(merged.beside, [wildcard]);
}

/// It was called a mirror that is asked when the proxy fails, and got the proxy before it.
#[test]
fn an_endpoint_with_the_path_that_is_asked_for_anyway_is_the_proxy() {
    let of = |url: &str| {
        let entry = |name: &str| format!("  {name}:\n    endpoint: ['{url}']\n");
        format!("mirrors:\n{}{}", entry("docker.io"), entry("registry.example:5000"))
    };
    stands(&addition(), &of("http://127.0.0.1:8080/v2"), &[]);
    // They ask for that path alone, and the proxy has nothing there.
    for other in ["http://127.0.0.1:8080/v2/hub", "http://127.0.0.1:8080/hub", "http://127.0.0.1:8081/v2"] {
        let found = addition().merge(&of(other), &|_, _| false).expect("merged");
        assert_eq!((found.lacks.len(), found.beside.len()), (2, 2), "{other}: {found:?}");
    }
}

#[test]
fn a_broken_file_or_one_that_contradicts_is_refused() {
    for (old, why) in [
        ("mirrors:\n\tdocker.io:\n", "is no YAML: "),
        ("mirrors: [\n", "is no YAML: "),
        ("mirrors:\n  docker.io:\n  docker.io:\n", "is no YAML: mirrors: duplicate entry with key \"docker.io\""),
        ("mirrors:\nmirrors:\n", "is no YAML: duplicate entry with key \"mirrors\""),
        ("a: 1\n---\nb: 2\n", "is no YAML: "),
        ("a: &a [*a]\n", "is no YAML: "),
        ("\u{feff}mirrors:\n", "begins with a byte order mark"),
        ("- mirrors\n", "is no YAML table"),
        ("mirrors: []\n", "has mirrors, but not as a table"),
        ("mirrors:\n  docker.io: https://one.example\n", "has docker.io, but not as a table"),
        (
            "mirrors:\n  docker.io:\n    endpoint: https://one.example\n",
            "has the endpoints of docker.io, but not as a list",
        ),
        ("mirrors:\n  docker.io:\n    endpoint: [1]\n", "has the endpoints of docker.io, but not as a list of texts"),
        (
            "mirrors:\n  docker.io:\n    endpoint: [https://one.example, 'http://127.0.0.1:8080']\n",
            "has http://127.0.0.1:8080 in the endpoints of docker.io, but asks https://one.example before it",
        ),
        (
            "mirrors:\n  docker.io:\n    endpoint: [https://one.example]\n    rewrite: {'^(.*)$': 'hub/$1'}\n",
            "has a rewrite for docker.io, which would also change the names",
        ),
        ("{}\n", "is written in a way that cannot be added to in place"),
        ("mirrors: {}\n", "is written in a way that cannot be added to in place"),
        ("mirrors: null\n", "is written in a way that cannot be added to in place"),
        ("{mirrors: {docker.io: {endpoint: [a]}}}\n", "is written in a way that cannot be added to in place"),
        ("mirrors:\n  docker.io: {endpoint: [a]}\n", "is written in a way that cannot be added to in place"),
        (
            "mirrors:\n  docker.io: &hub\n    endpoint: [a]\n  b: *hub\n",
            "is written in a way that cannot be added to in place",
        ),
        (
            "mirrors:\n  \"docker\\u002eio\":\n    endpoint: [a]\n",
            "is written in a way that cannot be added to in place",
        ),
        ("mirrors:\n  ? docker.io\n  : endpoint: [a]\n", "is written in a way that cannot be added to in place"),
        (
            "mirrors:\n  docker.io:\n    endpoint: &list\n      - a\n  b:\n    endpoint: *list\n",
            "is written in a way that cannot be added to in place",
        ),
    ] {
        refused(&addition(), old, why);
    }
    assert!(addition().merge(&"[".repeat(100_000), &|_, _| false).is_err());
    refused(&addition(), &"a: {".repeat(100_000), "is no YAML: it opens more than 20000 brackets");
}
