//! `conf/full.yaml` and the generated parts of `docs/configuration.md` are what the rows of the settings say.
//! `UPDATE_REFERENCE=1 cargo test --lib reference` writes them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::super::egress::EgressTable;
use super::super::kind::KindName;
use super::super::proxy_protocol::ProxyProtocolTable;
use super::super::setting::{
    AccessTable, CacheTable, DrainTable, IdentityTable, LimitsTable, ListenTable, LogTable, NotifyTable, RouteTable,
};
use super::super::table::Default as DefaultValue;
use super::super::tls::TlsTable;
use super::*;

const COMMAND: &str = "UPDATE_REFERENCE=1 cargo test --lib reference";
/// Of a comment in the YAML file, its indentation included.
const WIDTH: usize = 118;

fn path(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// Compares the file with what it has to be, or writes it.
fn check(relative: &str, found: &str, expected: &str) {
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(path(relative), expected).expect("written");
        return;
    }
    let differs = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
    let line = differs.unwrap_or(found.lines().count().min(expected.lines().count())) + 1;
    assert!(found == expected, "{relative}:{line} is not what src/config/setting.rs says; write it anew: {COMMAND}");
}

fn comment(indent: &str, text: &str) -> String {
    let mut lines = vec![format!("{indent}#")];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("one");
        if last.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(format!("{indent}# {word}"));
        } else {
            let _ = write!(last, " {word}");
        }
    }
    lines.join("\n") + "\n"
}

fn sentences(row: &Row) -> String {
    format!("{}. {}", row.help, row.more).trim_end().to_owned()
}

fn default(row: &Row, code: &str) -> String {
    match row.default {
        DefaultValue::Required => "none, it has to be set".to_owned(),
        DefaultValue::Text("") => "empty".to_owned(),
        DefaultValue::Text(text) => format!("{code}{text}{code}"),
        DefaultValue::Unless(text, exception) => format!("{code}{text}{code}, or {exception}"),
        DefaultValue::Words(words) => words.to_owned(),
    }
}

fn example(row: &Row) -> &str {
    match row.default {
        DefaultValue::Text(text) | DefaultValue::Unless(text, _) if row.example.is_empty() => text,
        _ => row.example,
    }
}

fn words(row: &Row, indent: &str) -> String {
    let names: Vec<_> =
        row.flag.map(|flag| format!("--{flag}")).into_iter().chain(row.variable.map(str::to_owned)).collect();
    let names = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
    let words = format!("{}{names}. {} Default: {}.", row.help, row.more, default(row, ""));
    comment(indent, &words.replace("`\"", "\"").replace("\"`", "\"").replace('`', "\""))
}

/// Tables that are only a comment as a whole.
fn commented(entries: Vec<Entry>, indent: &str, text: &mut String) {
    for Entry { row, holds } in entries {
        text.push_str(&words(row, indent));
        match holds {
            Holds::Table(below) => {
                let _ = writeln!(text, "{indent}{}:", row.key);
                commented(below, &format!("{indent}  "), text);
            }
            _ => {
                let _ = writeln!(text, "{indent}{}: {}", row.key, example(row));
            }
        }
    }
}

fn yaml(entries: Vec<Entry>, indent: &str, text: &mut String) {
    for Entry { row, holds } in entries {
        text.push_str(&words(row, indent));
        match holds {
            Holds::ValueOrTables(below) => {
                let _ = writeln!(text, "{0}: {1}\n# Or a list:\n# {0}:\n#   -", row.key, example(row));
                commented(below, "#     ", text);
            }
            Holds::Table(below) if indent.is_empty() => {
                let _ = writeln!(text, "{indent}{}:", row.key);
                yaml(below, "  ", text);
            }
            _ => {
                // An identity of the default kind takes few keys.
                let fits = row.key == "kind" || KindName::Default.keys().contains(&row.key);
                let of_identity = IdentityTable::entries().iter().any(|entry| std::ptr::eq(entry.row, row));
                let is_set = match row.default {
                    DefaultValue::Required => true,
                    DefaultValue::Text(_) => fits || !of_identity,
                    DefaultValue::Words(_) | DefaultValue::Unless(..) => false,
                };
                // The default of a list is the list without items.
                let value = if matches!(holds, Holds::List) { "[]" } else { example(row) };
                let _ = writeln!(text, "{indent}{}{}: {value}", if is_set { "" } else { "# " }, row.key);
            }
        }
        if indent.is_empty() {
            text.push('\n');
        }
    }
}

#[test]
fn the_full_configuration_file_is_made_of_the_settings() {
    let mut expected = format!(
        "# yaml-language-server: $schema=/usr/share/acr-cache-proxy/config.schema.json\n\
         # Every setting, with its default where it has one; the others are comments. Flags win over this file.\n\
         # Made from src/config/setting.rs by: {COMMAND}\n\n"
    );
    yaml(FileTable::entries(), "", &mut expected);
    let expected = expected.trim_end().to_owned() + "\n";
    let found = std::fs::read_to_string(path("conf/full.yaml")).expect("a file");
    check("conf/full.yaml", &found, &expected);
}

#[test]
fn the_schema_in_conf_is_the_one_that_the_program_writes() {
    let file = "conf/config.schema.json";
    let found = std::fs::read_to_string(path(file)).unwrap_or_default();
    check(file, &found, &format!("{:#}\n", schema()));
}

/// A row whose words are one sentence lost them.
#[test]
fn the_full_configuration_file_names_every_flag_and_every_variable() {
    let file = std::fs::read_to_string(path("conf/full.yaml")).expect("a file");
    for (_, _, table) in tables() {
        for Entry { row, .. } in table {
            let flag = row.flag.map(|flag| format!("--{flag}"));
            for name in flag.into_iter().chain(row.variable.map(str::to_owned)) {
                assert!(file.contains(&name), "{}: {name}", row.key);
            }
        }
    }
}

/// A row of the overview, and the section that it links to.
fn section(table: &str, row: &Row, overview: &mut String, sections: &mut String) {
    let key = format!("{table}{}", row.key);
    let code = |text: Option<String>| text.map(|text| format!("`{text}`")).unwrap_or_default();
    let (flag, variable) = (code(row.flag.map(|flag| format!("--{flag}"))), code(row.variable.map(str::to_owned)));
    let anchor = key.replace('.', "");
    let default = default(row, "`");
    let _ = writeln!(overview, "| [`{key}`](#{anchor}) | {flag} | {variable} | {default} |");
    let _ = writeln!(sections, "#### `{key}`\n\n{}\n", sentences(row));
    let _ = writeln!(sections, "- Value: `{}`. Default: {default}.", row.value);
    if let Some(flag) = row.flag {
        let _ = writeln!(sections, "- Flag: `--{flag} {}`.", row.value);
    }
    if let Some(variable) = row.variable {
        let _ = writeln!(sections, "- Variable: `{variable}`.");
    }
    if !example(row).is_empty() {
        let _ = writeln!(sections, "- Example: `{}: {}`", row.key, example(row));
    }
    sections.push('\n');
}

/// Every table, with its title and what stands in front of its keys.
fn tables() -> [(&'static str, &'static str, Vec<Entry>); 13] {
    [
        ("The file", "", FileTable::entries()),
        ("Keys of each item of `listen`, where that is a list", "listen.", ListenTable::entries()),
        ("Keys of a listener's `tls`", "listen.tls.", TlsTable::entries()),
        ("Keys of a listener's `proxy_protocol`", "listen.proxy_protocol.", ProxyProtocolTable::entries()),
        ("Keys of `upstream`, and of each item of `routes`", "upstream.", RouteTable::entries()),
        ("Keys of `drain`", "drain.", DrainTable::entries()),
        ("Keys of `notify`", "notify.", NotifyTable::entries()),
        ("Keys of `cache`", "cache.", CacheTable::entries()),
        ("Keys of `access`", "access.", AccessTable::entries()),
        ("Keys of `limits`", "limits.", LimitsTable::entries()),
        ("Keys of `egress`", "egress.", EgressTable::entries()),
        ("Keys of `log`", "log.", LogTable::entries()),
        ("Keys of `identity`", "identity.", IdentityTable::entries()),
    ]
}

fn settings() -> String {
    let mut overview = "| Key | Flag | Variable | Default |\n|---|---|---|---|\n".to_owned();
    let mut sections = String::new();
    for (title, table, entries) in tables() {
        let _ = writeln!(sections, "### {title}\n");
        for entry in entries {
            section(table, entry.row, &mut overview, &mut sections);
        }
    }
    format!("{overview}\n{sections}")
}

fn kinds() -> String {
    let mut table = "| `identity.kind` | Where it works | Its keys |\n|---|---|---|\n".to_owned();
    for kind in KindName::ALL {
        let keys: Vec<_> = kind.keys().iter().map(|key| format!("[`{key}`](#identity{key})")).collect();
        let keys = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
        let _ = writeln!(table, "| `{}` | {} | {keys} |", kind.name(), kind.works());
    }
    table
}

#[test]
fn the_reference_page_is_made_of_the_settings() {
    let page = "docs/configuration.md";
    let found = std::fs::read_to_string(path(page)).expect("a file");
    let mut expected = found.clone();
    for (name, made) in [("settings", settings()), ("kinds", kinds())] {
        let begin = format!("<!-- {name}: made from src/config by {COMMAND} -->\n");
        let end = format!("<!-- end of {name} -->\n");
        let (before, rest) = expected.split_once(&begin).unwrap_or_else(|| panic!("{page} has no line {begin}"));
        let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{page} has no line {end}"));
        expected = format!("{before}{begin}\n{}\n\n{end}{after}", made.trim_end());
    }
    check(page, &found, &expected);
}

/// The keys of a schema's table and of those below it, as the page writes them: what stands in two places has one name.
fn keys(table: &Value, above: &str, found: &mut BTreeSet<String>) {
    let either = table["anyOf"].as_array().into_iter().flatten();
    either.chain(table.get("items")).for_each(|table| keys(table, above, found));
    for (key, setting) in table["properties"].as_object().into_iter().flatten() {
        let path = format!("{above}{key}");
        let below = match path.as_str() {
            "routes" => "upstream.".to_owned(),
            "upstream.cache" | "upstream.identity" => format!("{key}."),
            path => format!("{path}."),
        };
        found.insert(path);
        keys(setting, &below, found);
    }
}

/// The page is made of a list of tables, from which one can be missing.
#[test]
fn every_key_of_the_schema_has_its_section_in_the_reference_and_the_reverse() {
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        // Another test writes the page meanwhile.
        return;
    }
    let mut known = BTreeSet::new();
    keys(&schema(), "", &mut known);
    let page = std::fs::read_to_string(path("docs/configuration.md")).expect("a file");
    let titles = page.lines().filter_map(|line| line.strip_prefix("#### `")?.strip_suffix('`'));
    let documented: BTreeSet<_> = titles.map(str::to_owned).collect();
    let only = |one: &BTreeSet<String>, other| one.difference(other).cloned().collect::<Vec<_>>().join(", ");
    let (missing, unknown) = (only(&known, &documented), only(&documented, &known));
    assert!(known.len() > 60 && missing.is_empty() && unknown.is_empty(), "no section: {missing}; no key: {unknown}");
}

#[test]
fn every_default_and_every_example_of_a_setting_is_right() {
    // What a kind of identity takes is tested below.
    for (_, table, entries) in tables().into_iter().filter(|(_, table, _)| *table != "identity.") {
        for Entry { row, holds } in entries {
            let texts = match row.default {
                DefaultValue::Text(text) | DefaultValue::Unless(text, _) => vec![text, example(row)],
                DefaultValue::Required | DefaultValue::Words(_) => vec![example(row)],
            };
            for value in texts {
                let value = match holds {
                    Holds::Value | Holds::ValueOrTable(_) => format!("'{value}'"),
                    _ if value.is_empty() => continue,
                    _ => value.to_owned(),
                };
                let value = format!("{}: {value}", row.key);
                let mut route = vec!["source: docker.io".to_owned()];
                route.extend((row.key != "domain").then(|| "domain: a.azurecr.io".to_owned()));
                route.extend((row.key == "blob_hosts").then(|| "blobs: proxy".to_owned()));
                let needed =
                    if row.key == "request_burst_per_client" { "requests_per_second_per_client: 1, " } else { "" };
                let top = match table {
                    "upstream." => {
                        route.retain(|known| !known.starts_with(&format!("{}:", row.key)));
                        route.push(value);
                        String::new()
                    }
                    "" => value,
                    "listen." => {
                        let place = match row.key {
                            "address" | "unix" => "",
                            "mode" => "unix: /run/clients.sock, ",
                            _ => "address: ':8443', ",
                        };
                        format!("listen: [{{{place}{value}}}]")
                    }
                    "listen.tls." => {
                        let mut tls = vec!["certificate: /c", "key: /k", "client_ca: /a"];
                        tls.retain(|known| !known.starts_with(&format!("{}:", row.key)));
                        tls.push(&value);
                        format!("listen: [{{address: ':8443', tls: {{{}}}}}]", tls.join(", "))
                    }
                    "listen.proxy_protocol." => {
                        format!("listen: [{{address: ':8080', proxy_protocol: {{{value}}}}}]")
                    }
                    "access." if row.key == "certificates" => {
                        let tls = "{certificate: /c, key: /k, client_ca: /a}";
                        format!("listen: [{{address: ':8443', tls: {tls}}}]\naccess: {{{value}}}")
                    }
                    table => format!("{} {{{needed}{value}}}", table.replace('.', ":")),
                };
                let upstream =
                    if row.key == "routes" { String::new() } else { format!("upstream: {{{}}}", route.join(", ")) };
                let text = format!("{top}\n{upstream}\n");
                load(&text, Flags::default()).unwrap_or_else(|mistakes| panic!("{text}: {mistakes:?}"));
            }
        }
    }
}

/// The schema took `threads: 10000`. What it says of a number is a second time there, and has to be what the parser says.
#[test]
fn the_range_of_a_number_in_the_schema_is_the_parsers() {
    let mut seen = 0;
    for (_, table, entries) in tables() {
        for (row, range) in entries.iter().filter_map(|entry| Some((entry.row, entry.row.range?))) {
            seen += 1;
            let (least, greatest) = range;
            for (number, is_taken) in [(least - 1, false), (least, true), (greatest, true), (greatest + 1, false)] {
                let needed =
                    if row.key == "request_burst_per_client" { "requests_per_second_per_client: 1, " } else { "" };
                let setting = format!("{needed}{}: {number}", row.key);
                let setting = match table {
                    "" => setting,
                    table => format!("{} {{{setting}}}", table.replace('.', ":")),
                };
                let found = load(&format!("{setting}\nupstream: {{domain: a.azurecr.io}}\n"), Flags::default());
                assert_eq!(found.is_ok(), is_taken, "{setting}: {found:?}");
            }
        }
    }
    let numbers = tables().into_iter().flat_map(|(_, _, entries)| entries);
    assert_eq!(seen, numbers.filter(|entry| entry.row.value.starts_with("NUMBER")).count(), "a number without a range");
}

/// The schema took `admin: ""`.
#[test]
fn no_text_but_the_prefix_may_be_empty() {
    for (_, table, entries) in tables().into_iter().filter(|(_, table, _)| ["", "upstream."].contains(table)) {
        for Entry { row, .. } in entries.iter().filter(|entry| matches!(entry.holds, Holds::Value)) {
            let domain = if row.key == "domain" { "" } else { "domain: a.azurecr.io, " };
            let text = match table {
                "" => format!("{}: ''\nupstream: {{domain: a.azurecr.io}}\n", row.key),
                _ => format!("upstream: {{{domain}{}: ''}}\n", row.key),
            };
            assert_eq!(load(&text, Flags::default()).is_ok(), row.default == DefaultValue::Text(""), "{text}");
        }
    }
}

/// A key that a kind lists and nothing reads would be accepted in silence.
#[test]
fn every_key_of_a_kind_changes_the_identity() {
    let identity = |text: String| {
        let text = format!("upstream: {{domain: a.azurecr.io}}\nidentity: {{{text}}}\n");
        load(&text, Flags::default()).unwrap_or_else(|mistakes| panic!("{text}: {mistakes:?}")).upstreams()[0]
            .identity()
            .clone()
    };
    for kind in KindName::ALL {
        let name = kind.name();
        let without = identity(format!("kind: {name}"));
        for key in kind.keys() {
            let entry = IdentityTable::entries().into_iter().find(|entry| entry.row.key == *key);
            let row = entry.unwrap_or_else(|| panic!("{name} lists {key}, which is no key of identity")).row;
            let value = match *key {
                "audience" => "https://own.example",
                "authority" => "https://login.example",
                "key_directory" => "/elsewhere",
                _ => row.example,
            };
            let (kind, second) =
                (format!("kind: {name}, {key}: '{value}'"), *key == "cloud" && !kind.keys().contains(&"authority"));
            // Without an authority of its own, a cloud decides about the resource manager's audience.
            let (with, without) = if second {
                (identity(format!("{kind}, audience: arm")), identity(format!("kind: {name}, audience: arm")))
            } else {
                (identity(kind), without.clone())
            };
            assert_ne!(with, without, "{name} takes {key}, and nothing reads it");
        }
    }
}
