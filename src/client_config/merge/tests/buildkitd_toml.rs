//! `buildkitd.toml`.

use toml::{Table, Value};

use super::{merged, refused, stands};
use crate::client_config::merge::Addition;

const MIRROR: &str = "127.0.0.1:8080";

fn addition() -> Addition {
    let registries = ["docker.io", "ghcr.io"].map(str::to_owned).to_vec();
    Addition::BuildkitdToml { mirror: MIRROR.to_owned(), http: true, registries }
}

/// What was added is taken from the new file, and with it the tables that the old one did not have.
fn without(new: &str, old: &Table) -> Table {
    let mut value: Table = new.parse().expect("TOML");
    let had = |name: &str, key: &str| {
        let table = old.get("registry").and_then(|tables| tables.get(name));
        (table.is_some(), table.and_then(|table| table.get(key)).is_some())
    };
    let tables = value.get_mut("registry").and_then(Value::as_table_mut).expect("tables");
    for name in ["docker.io", "ghcr.io"] {
        let table = tables.get_mut(name).and_then(Value::as_table_mut).expect("a table");
        let list = table.get_mut("mirrors").and_then(Value::as_array_mut).expect("a list");
        assert_eq!(list[0].as_str(), Some(MIRROR));
        let (had_table, had_list) = had(name, "mirrors");
        if had_list && old["registry"][name]["mirrors"].get(0) == Some(&list[0]) {
            continue;
        }
        list.remove(0);
        if !had_list {
            assert!(table.remove("mirrors").is_some_and(|list| list.as_array().is_some_and(Vec::is_empty)));
        }
        if !had_table {
            assert!(tables.remove(name).is_some_and(|table| table.as_table().is_some_and(Table::is_empty)));
        }
    }
    let table = tables.get_mut(MIRROR).and_then(Value::as_table_mut).expect("a table");
    assert_eq!(table.get("http").and_then(Value::as_bool), Some(true));
    let (had_table, had_http) = had(MIRROR, "http");
    if !had_http {
        table.remove("http");
    }
    if !had_table {
        tables.remove(MIRROR);
    }
    if !old.contains_key("registry") {
        assert!(value.remove("registry").is_some_and(|tables| tables.as_table().is_some_and(Table::is_empty)));
    }
    value
}

#[rustfmt::skip]
const FOUND: &[(&str, usize)] = &[
    ("", 0),
    ("\n\n", 0),
    ("# nothing yet", 0),
    ("debug = true", 0),
    ("debug = true\n", 0),
    ("root = \"/var/lib/buildkit\"\n\n[worker.oci]\n  max-parallelism = 4\n", 0),
    // The manual's own example, in short.
    ("# debug enables additional debug logging\ndebug = true\ninsecure-entitlements = [ \"network.host\", \"security.insecure\" ]\n\n[log]\n  # log formatter: json or text\n  format = \"text\"\n\n[grpc]\n  address = [ \"tcp://0.0.0.0:1234\" ]\n  uid = 0\n  [grpc.tls]\n    cert = \"/etc/buildkit/tls.crt\"\n\n[worker.oci]\n  enabled = true\n  [worker.oci.labels]\n    \"foo\" = \"bar\"\n  [[worker.oci.gcpolicy]]\n    reservedSpace = \"512MB\"\n    filters = [ \"type==source.local\", \"type==exec.cachemount\" ]\n  [[worker.oci.gcpolicy]]\n    all = true\n\n[registry.\"docker.io\"]\n  # behind a path\n  mirrors = [\"yourmirror.example:5000\", \"core.harbor.example/proxy.docker.io\"]\n  http = true\n  insecure = true\n  ca=[\"/etc/config/myca.pem\"]\n  [[registry.\"docker.io\".keypair]]\n    key=\"/etc/config/key.pem\"\n    cert=\"/etc/config/cert.pem\"\n\n[registry.\"yourmirror.example:5000\"]\n  http = true\n\n[frontend.\"dockerfile.v0\"]\n  enabled = true\n", 1),
    // One mirror, as buildx's guide has it.
    ("debug = true\n[registry.\"docker.io\"]\n  mirrors = [\"mirror.example\"]\n", 1),
    ("[registry.\"docker.io\"]\n  mirrors = [\n    \"mirror.example\",\n    \"second.example\",\n  ]\n", 0),
    ("[registry.\"docker.io\"]\n  mirrors = [\n    # the team's\n    \"mirror.example\", # keep\n  ]\n", 0),
    ("[registry.\"docker.io\"]\n  mirrors = []\n\n[registry.\"ghcr.io\"]\n  mirrors = [ ]\n", 2),
    ("[registry.\"docker.io\"]\n", 0),
    ("[registry.\"docker.io\"]", 0),
    ("[registry.\"docker.io\"] # Hub\n  insecure = false\n[worker.containerd]\nnamespace = \"buildkit\"\n", 0),
    ("[registry.\"registry.example:5000\"]\n  http = true\n  insecure = true\n", 0),
    ("[registry]\n  [registry.\"docker.io\"]\n    mirrors = [\"mirror.example\"]\n  [registry.\"ghcr.io\"]\n    insecure = true\n", 1),
    ("[registry]\n\n[registry.'docker.io']\nmirrors = ['mirror.example']\n", 1),
    ("[ registry . \"docker.io\" ]\nmirrors=[\"mirror.example\"]\n", 1),
    // The proxy has a table already, with and without what counts.
    ("[registry.\"127.0.0.1:8080\"]\n  http = true\n\n[worker.oci]\n  snapshotter = \"overlayfs\"\n", 0),
    ("[registry.\"127.0.0.1:8080\"]\n  insecure = true\n", 0),
    ("[registry.\"docker.io\"]\n  mirrors = [\"127.0.0.1:8080\"]\n", 0),
    ("[registry.\"docker.io\"]\r\n  mirrors = [\"mirror.example\"]\r\n\r\n[worker.oci]\r\n  gc = true\r\n", 1),
    ("[registry.\"docker.io\"]\r\n  insecure = true", 0),
    // A table below comes first, and its own table nowhere.
    ("[[registry.\"docker.io\".keypair]]\n  key = \"/k\"\n  cert = \"/c\"\n", 0),
    // Tabs, texts over several lines, a date.
    ("[registry.\"docker.io\"]\n\tmirrors = [\"mirror.example\"]\n\tca = [\"/a.pem\"]\n\n[otel]\n\tsocketPath = '''\n[registry.\"ghcr.io\"]\n'''\n", 1),
    ("since = 2024-05-01T07:32:00Z\nkeys = {\"docker.io\" = 1}\n[history]\n  maxAge = 172800\n  maxEntries = 50", 0),
    // No line of its own for a table that only has a table below it.
    ("[registry.\"docker.io\".extra]\nkey = 1\n\n[registry.\"ghcr.io\"]\n  mirrors = [\"mirror.example\"]\n", 1),
    // Keys with dots.
    ("[registry]\n\"docker.io\".mirrors = [\"mirror.example\"]\n", 1),
];

#[test]
fn a_file_keeps_what_it_has_and_gets_the_tables() {
    for (old, changed) in FOUND {
        let new = merged(&addition(), old, *changed);
        let was: Table = old.parse().expect("TOML");
        assert_eq!(without(&new, &was), was, "{new}");
    }
}

#[test]
fn what_is_added_is_where_a_person_would_have_put_it() {
    for (old, new) in [
        (
            "debug = true\n\n[registry.\"docker.io\"] # Hub\n  insecure = false\n",
            "debug = true\n\n[registry.\"docker.io\"] # Hub\n  mirrors = [\"127.0.0.1:8080\"]\n  insecure = false\n\n[registry.\"ghcr.io\"]\n  mirrors = [\"127.0.0.1:8080\"]\n\n[registry.\"127.0.0.1:8080\"]\n  http = true\n",
        ),
        (
            "",
            "[registry.\"docker.io\"]\n  mirrors = [\"127.0.0.1:8080\"]\n\n[registry.\"ghcr.io\"]\n  mirrors = [\"127.0.0.1:8080\"]\n\n[registry.\"127.0.0.1:8080\"]\n  http = true\n",
        ),
    ] {
        assert_eq!(addition().merge(old, &|_, _| false).expect("merged").text, new);
    }
}

#[test]
fn what_says_it_already_stays_and_other_mirrors_are_told() {
    let said = "[registry.\"127.0.0.1:8080\"]\nhttp = true\n[registry.\"ghcr.io\"]\nmirrors = [\"127.0.0.1:8080\"]\n[registry.\"docker.io\"]\n";
    stands(&addition(), &format!("{said}mirrors = [\"127.0.0.1:8080\"]\n"), &[]);
    let other = "mirror.example is asked for docker.io when the proxy fails";
    stands(&addition(), &format!("{said}mirrors = [\"127.0.0.1:8080\", \"mirror.example\"]\n"), &[other]);
    let tls = Addition::BuildkitdToml { mirror: "mirror.internal".to_owned(), http: false, registries: Vec::new() };
    stands(&tls, "debug = true\n", &[]);
    stands(&tls, "[registry.\"mirror.internal\"]\nhttp = false\n", &[]);
}

#[test]
fn a_broken_file_or_one_that_contradicts_is_refused() {
    for (old, why) in [
        ("debug = true\n[registry", "is no TOML: line 2: "),
        ("debug = true\ndebug = false\n", "is no TOML: line 2: duplicate key"),
        ("[worker]\n[worker]\n", "is no TOML: line 2: "),
        ("a = \"\n", "is no TOML: line 1: "),
        ("\u{feff}debug = true\n", "begins with a byte order mark"),
        ("registry = 1\n", "has \"registry\", but not as a table"),
        ("[registry]\n\"docker.io\" = \"mirror.example\"\n", "has \"docker.io\", but not as a table"),
        ("[[registry.\"docker.io\"]]\nmirrors = []\n", "has \"docker.io\", but not as a table"),
        (
            "[registry.\"docker.io\"]\nmirrors = \"mirror.example\"\n",
            "has mirrors for docker.io, but not as a list of texts",
        ),
        ("[registry.\"docker.io\"]\nmirrors = [1]\n", "has mirrors for docker.io, but not as a list of texts"),
        (
            "[registry.\"docker.io\"]\nmirrors = [\"a\", \"127.0.0.1:8080\"]\n",
            "has 127.0.0.1:8080 in mirrors of docker.io, but asks a before it",
        ),
        ("[registry.\"127.0.0.1:8080\"]\nhttp = false\n", "has another http for 127.0.0.1:8080 than true"),
        ("registry = {\"docker.io\" = {insecure = true}}\n", "is written in a way that cannot be added to in place"),
        ("[registry]\n\"docker.io\" = {insecure = true}\n", "is written in a way that cannot be added to in place"),
        ("registry.\"docker.io\".insecure = true\n", "is written in a way that cannot be added to in place"),
    ] {
        refused(&addition(), old, why);
    }
    assert!(addition().merge(&format!("a = {}", "[".repeat(100_000)), &|_, _| false).is_err());
}
