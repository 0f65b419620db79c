//! The versions that these tests run with are those of the table in docs/clients.md.

use std::process::Command;

use crate::containerd::Release;
use crate::home::Home;
use crate::namespace;
use crate::program::{installed, run};
use crate::tree::Tree;
use testkit::PATIENCE;

const PAGE: &str = include_str!("../../docs/clients.md");

/// The rows of the table: a program, and its version in each of the three releases, and the newest one; empty where it is not installed.
fn table() -> Vec<(&'static str, [&'static str; 4])> {
    let rows = PAGE.split("\n## Tested versions\n").nth(1).expect("the section").lines();
    let rows = rows.skip_while(|line| !line.starts_with("|---")).skip(1).take_while(|line| line.starts_with('|'));
    let row = |line: &'static str| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [program, versions @ ..] = &cells[..] else { panic!("{line}") };
        (*program, <[_; 4]>::try_from(versions).unwrap_or_else(|_| panic!("four versions: {line}")))
    };
    rows.map(row).collect()
}

/// The numbers of the first version in a text.
fn version(text: &str) -> Vec<u32> {
    let words = text.split(|c: char| c.is_whitespace() || ",/".contains(c));
    let mut versions = words.filter_map(|word| {
        let word = word.trim_start_matches('v').split(['~', '+', '-']).next()?;
        let numbers: Option<Vec<_>> = word.split('.').map(|part| part.parse().ok()).collect();
        numbers.filter(|numbers| numbers.len() > 1)
    });
    versions.next().unwrap_or_else(|| panic!("no version in {text:?}"))
}

/// Debian 12 and 13 are stable, and what is installed is what the table says. Debian 14 still moves, so what is installed
/// is that or newer, and so does experimental, of which the newest podman is.
#[test]
#[ignore = "run by scripts/test in a network namespace of its own"]
fn what_is_installed_is_what_the_documentation_says() {
    namespace::assert_isolated();
    let home = Home::new(&[]);
    let trees = ["13", "14", "experimental"].map(|release| Tree::mount(&home, release));
    let table = table();
    assert!(table.len() > 5, "{table:?}");
    for (program, versions) in table {
        for (release, told) in versions.into_iter().enumerate().filter(|(_, told)| !told.is_empty()) {
            // HAProxy 2.6 prints its version for `--version` too, but ends with status 1.
            let flag = if ["nginx", "haproxy"].contains(&program) { "-v" } else { "--version" };
            let said = match release.checked_sub(1) {
                None => run(Command::new(installed(program)).arg(flag)),
                Some(2) if program == "containerd" => run(Command::new(Release::newest(program)).arg(flag)),
                Some(tree) => run(&mut trees[tree].program(PATIENCE, &format!("{program} {flag}"))),
            };
            let (said, told) = (version(&said), version(told));
            let is_right = if release >= 2 { said >= told } else { said.starts_with(&told) };
            assert!(is_right, "{program} in column {release} is {said:?}: docs/clients.md says {told:?}");
        }
    }
}

#[test]
fn versions_are_read_as_programs_print_them() {
    for (text, expected) in [
        ("Docker version 20.10.24+dfsg1, build 5d6db84", vec![20, 10, 24]),
        ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", vec![1, 6, 20]),
        ("podman version 4.3.1", vec![4, 3, 1]),
        ("nginx version: nginx/1.22.1", vec![1, 22, 1]),
        ("HAProxy version 2.6.12-1+deb12u4 2026/10/17", vec![2, 6, 12]),
        ("28.5", vec![28, 5]),
    ] {
        assert_eq!(version(text), expected, "{text}");
    }
    assert!(!table().is_empty());
}
