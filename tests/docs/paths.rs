//! Paths and sections that pages and templates name.

use crate::{pages, root};

/// The tops of this repository that a page may name in backticks.
const TOPS: [&str; 16] = [
    ".ci/",
    ".github/",
    "benches/",
    "charts/",
    "conf/",
    "docs/",
    "emulator/",
    "fuzz/",
    "oci/",
    "progress/",
    "proxy_protocol/",
    "scripts/",
    "src/",
    "testkit/",
    "tests/",
    "bench/",
];

/// Every path in backticks, in every page. A newcomer follows them.
#[test]
fn every_path_that_a_page_names_exists() {
    let mut missing = Vec::new();
    let mut found = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).expect("a text");
        let prose: String = text.split("```").step_by(2).collect();
        for span in prose.split('`').skip(1).step_by(2).filter(|span| TOPS.iter().any(|top| span.starts_with(top))) {
            // `src/config.rs: Row` names what is in the file.
            let path = span.split([':', ' ', '*', '<']).next().unwrap_or_default();
            found += 1;
            if !root().join(path).exists() {
                missing.push(format!("{}: {span}", page.display()));
            }
        }
    }
    assert!(missing.is_empty() && found > 20, "{found} paths, missing:\n{}", missing.join("\n"));
}

/// Readers of the templates and of the checklist follow these.
#[test]
fn the_templates_are_yaml_and_ask_for_the_version() {
    for name in ["bug.yml", "feature.yml", "config.yml"] {
        let path = root().join(".github/ISSUE_TEMPLATE").join(name);
        let template = std::fs::read_to_string(path).expect("a template");
        let parsed: serde_yaml::Value = serde_yaml::from_str(&template).expect("YAML");
        let ids: Vec<_> =
            parsed["body"].as_sequence().into_iter().flatten().filter_map(|field| field["id"].as_str()).collect();
        let asked: &[&str] = match name {
            "bug.yml" => &["version", "what", "config", "log"],
            "feature.yml" => &["problem"],
            _ => &[],
        };
        assert!(asked.iter().all(|id| ids.contains(id)), "{name}: {ids:?}");
    }
}

#[test]
fn the_changelog_has_a_section_for_this_version() {
    let changelog = std::fs::read_to_string(root().join("CHANGELOG.md")).expect("a text");
    assert!(changelog.contains("\n## [Unreleased]\n"), "what is not released yet has a place");
    assert!(changelog.contains(concat!("\n## [", env!("CARGO_PKG_VERSION"), "] - ")), "the version of Cargo.toml");
}

/// The table of crates in the page about the architecture has every member of the workspace, and no other.
#[test]
fn the_architecture_names_every_crate() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect("a text");
    let manifest = read("Cargo.toml");
    let members = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next()).expect("members");
    let directories = members.split('"').skip(1).step_by(2).map(|member| format!("{member}/Cargo.toml"));
    let manifests = directories.chain(["Cargo.toml".to_owned()]).map(|path| read(&path));
    let name = |manifest: String| {
        let line = manifest.lines().find_map(|line| line.strip_prefix("name = ").map(str::to_owned));
        line.expect("a name").trim_matches('"').to_owned()
    };
    let mut crates: Vec<_> = manifests.map(name).collect();
    let page = read("docs/architecture.md");
    let table = page.split("\n## Crates\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("the section");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut listed: Vec<_> = rows.map(str::to_owned).collect();
    crates.sort_unstable();
    listed.sort_unstable();
    assert_eq!(crates, listed);
}

/// What newcomers ask first. That the files are there is seen above.
#[test]
fn each_of_the_ten_changes_names_its_files_and_its_tests() {
    let guide = std::fs::read_to_string(root().join("CONTRIBUTING.md")).expect("a text");
    let table = guide.split("\n## Ten changes, and the files to touch\n").nth(1).expect("the section");
    let table = table.split("\n## ").next().unwrap_or_default();
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    assert_eq!(rows.len(), 10, "{rows:?}");
    for row in rows {
        let paths: Vec<_> =
            row.split('`').skip(1).step_by(2).filter(|span| span.contains(".rs") || span.contains(".md")).collect();
        let has_test = paths.iter().any(|path| path.contains("tests"));
        assert!(paths.len() > 2 && has_test, "{row}");
    }
}
