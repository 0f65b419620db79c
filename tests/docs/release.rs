//! What makes a release: the text of its section in the changelog, and the workflow that builds it.

use std::process::Command;

use serde_yaml::Value;

use crate::root;

const CHANGELOG: &str = "\
# Changelog

## [Unreleased]

- Not yet.

## [1.2.0] - 2026-11-26

### Added

- A thing: [install](docs/install.md#a), [below](#fixed), [site](https://example.com/a).

## [1.1.0-rc.1] - 2026-10-01

- Old.

## [1.0.0]

- Without a date.

## [0.9.0] - 2026-01-01

[1.2.0]: https://example.com
";

/// Status, and what is printed to standard output.
fn notes(version: &str, links: &str) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let changelog = directory.path().join("CHANGELOG.md");
    std::fs::write(&changelog, CHANGELOG).expect("written");
    let mut command = Command::new(root().join("scripts/release-notes"));
    let output = command.arg(version).env("CHANGELOG", changelog).env("LINKS", links).output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn the_text_of_a_release_is_its_section_of_the_changelog() {
    let added =
        "### Added\n\n- A thing: [install](docs/install.md#a), [below](#fixed), [site](https://example.com/a).\n";
    let linked = added.replace("docs/install.md", "https://host/blob/v1.2.0/docs/install.md");
    for (version, links, status, text) in [
        ("1.2.0", "", 0, added),
        ("1.2.0", "https://host/blob/v1.2.0/", 0, &linked),
        ("1.1.0-rc.1", "", 0, "- Old.\n"),
        // Without a date, without a change, without a section, and in place of a version.
        ("1.0.0", "", 1, ""),
        ("0.9.0", "", 1, ""),
        ("1.2", "", 2, ""),
        ("9.9.9", "", 1, ""),
        ("Unreleased", "", 2, ""),
    ] {
        assert_eq!(notes(version, links), (Some(status), text.to_owned()), "{version} {links}");
    }
}

/// actionlint looks at the workflow in scripts/deploy-check; here is what it knows nothing of.
#[test]
fn the_workflow_builds_both_architectures_by_the_scripts_of_this_repository() {
    let text = std::fs::read_to_string(root().join(".github/workflows/release.yml")).expect("a workflow");
    let workflow: Value = serde_yaml::from_str(&text).expect("YAML");
    let jobs = workflow["jobs"].as_mapping().expect("jobs");
    let included = workflow["jobs"]["packages"]["strategy"]["matrix"]["include"].as_sequence().expect("a matrix");
    let machines: Vec<_> = included.iter().filter_map(|row| row["machine"].as_str()).collect();
    assert_eq!(machines, ["x86_64", "aarch64"]);
    let mut scripts = 0;
    for (name, job) in jobs {
        assert!(job["timeout-minutes"].is_u64(), "{name:?}: nothing bounds its time");
        for step in job["steps"].as_sequence().expect("steps") {
            let run = step["run"].as_str().unwrap_or_default();
            // What an outsider names, such as a branch, is no part of a command.
            assert!(!run.contains("${{"), "{name:?}: an expression in a command: {run}");
            for word in run.split(|c: char| c.is_whitespace() || "'\"()".contains(c)) {
                if word.starts_with("scripts/") {
                    scripts += 1;
                    assert!(root().join(word).exists(), "{word}: {run}");
                }
            }
        }
    }
    assert!(scripts > 1, "it goes by the scripts");
    let checks = workflow["jobs"]["macos"]["steps"].as_sequence().expect("steps");
    let is_check = |step: &Value| step["run"].as_str().is_some_and(|run| run.starts_with("cargo check --locked"));
    assert!(checks.iter().any(is_check), "macOS is compiled for");
    let writes = |job: &Value| job["permissions"]["contents"].as_str() == Some("write");
    let writing: Vec<_> = jobs.iter().filter(|(_, job)| writes(job)).filter_map(|(name, _)| name.as_str()).collect();
    assert_eq!((writing, workflow["permissions"]["contents"].as_str()), (vec!["draft"], Some("read")));
}
