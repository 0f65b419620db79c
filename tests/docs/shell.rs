//! Command lines.

use std::process::Command;

use crate::block::Block;
use crate::{program, root};

/// Words of programs that are not ours: only their syntax as shell is checked, and the paths of this repository in them.
const UNCHECKED: [(&str, &str); 22] = [
    ("az", "needs Azure"),
    ("cargo", "the tests are built by it"),
    ("curl", "needs a proxy with a registry"),
    ("docker", "tests/clients pulls by the files instead"),
    ("dpkg", "tests/clients installs and removes the packages"),
    ("echo", "prints"),
    ("getent", "asks DNS"),
    ("git", "needs a remote"),
    ("helm", "scripts/deploy-check installs the chart by it"),
    ("install", "writes below /usr and /etc"),
    ("journalctl", "needs systemd"),
    ("kill", "ends or replaces a process"),
    ("kubectl", "needs a cluster"),
    ("python3", "benches, run by scripts/bench"),
    ("read", "waits for a person"),
    ("rustup", "needs the network"),
    ("skopeo", "needs a registry"),
    ("sh", "a script that the tests of client-config run"),
    ("ss", "lists sockets"),
    ("sudoedit", "needs a person"),
    ("systemctl", "needs systemd"),
    ("systemd-run", "needs systemd"),
];

/// A block of command lines: `sh` can read it, each command is known, ours are taken by the program, and each path of this
/// repository exists.
pub(crate) fn check(block: &Block) -> Result<(), String> {
    let output = Command::new("sh").args(["-n", "-c", &block.text]).output().expect("sh runs");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    for line in block.text.replace("\\\n", " ").lines() {
        let line = without_comment(line).trim();
        if line.is_empty() {
            continue;
        }
        check_paths(line)?;
        // Of `name=$(command)` the command counts.
        let inner =
            line.split_once("=$(").filter(|(name, _)| is_assignment(&format!("{name}="))).map(|(_, inner)| inner);
        let words = words(inner.map_or(line, |inner| inner.trim_end_matches(')')));
        let mut words = words.iter().map(String::as_str).skip_while(|word| *word == "sudo").peekable();
        while words.peek().is_some_and(|word| is_assignment(word)) {
            words.next();
        }
        let Some(name) = words.next() else { continue };
        let arguments: Vec<_> = words.take_while(|word| ![">", "|"].contains(word)).collect();
        // That a script of this repository is there is seen by `check_paths`.
        let is_script = [".ci/", "scripts/"].iter().any(|directory| name.starts_with(directory));
        let last = name.rsplit('/').next().unwrap_or_default();
        if last == "acr-cache-proxy" {
            ours(&arguments).map_err(|wrong| format!("{line}: {wrong}"))?;
        } else if !is_script && !UNCHECKED.iter().any(|(known, _)| *known == name) {
            return Err(format!("{name}: a command that is in no list: {line}"));
        }
    }
    Ok(())
}

/// The program takes the words. It neither serves, measures nor pulls: settings are loaded by `client-config`, `check` stays offline, `doctor` ends
/// at a host that is not there, `bench` ends at
/// a report that it could not write and `warm` at a platform that is none, after they have looked at all the rest.
fn ours(arguments: &[&str]) -> Result<(), String> {
    let directory = tempfile::tempdir().expect("a directory");
    let mix = directory.path().join("images.txt");
    std::fs::write(&mix, "library/nginx:1.27\n").expect("written");
    let minimal = root().join("conf/minimal.yaml");
    let tree = directory.path().to_string_lossy().into_owned();
    let mut words: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    for at in 1..words.len() {
        match words[at - 1].as_str() {
            "--config" => words[at] = minimal.to_string_lossy().into_owned(),
            "--mix" | "--file" => words[at] = mix.to_string_lossy().into_owned(),
            _ => {}
        }
    }
    let (expected, lacking) = match arguments.first() {
        Some(&"bench") => {
            words.extend(["--json", "/nonexistent/report.json"].map(str::to_owned));
            (2, Some("/nonexistent/report.json"))
        }
        Some(&"warm") => {
            words.extend(["--platform", "nowhere"].map(str::to_owned));
            (2, Some("nowhere"))
        }
        Some(&"check") => {
            // Without the network, and so without what only that needs.
            let is_online = |word: &String| word.starts_with("--online");
            words.retain(|word| !is_online(word));
            if let Some(at) = words.iter().position(|word| word == "--image") {
                words.drain(at..at + 2);
            }
            (0, None)
        }
        Some(&"doctor") => {
            words.extend(["--root", "/nonexistent"].map(str::to_owned));
            (2, Some("/nonexistent"))
        }
        Some(&"reload") => {
            words.extend(["--pid", "nobody"].map(str::to_owned));
            (2, None)
        }
        Some(&"client-config") => {
            if ["--write", "--merge", "--check", "--prune", "--remove"].iter().any(|flag| arguments.contains(flag))
                && !arguments.contains(&"--root")
            {
                words.extend(["--root".to_owned(), tree]);
            }
            // In a tree without a file none of them stands.
            (i32::from(arguments.contains(&"--check")), None)
        }
        Some(&"init") => {
            // It writes to a tree of the test's, tries no way, and without --yes shows what it would do.
            words.extend(["--root", &tree, "--skip", "try"].map(str::to_owned));
            if arguments.contains(&"--yes") { (0, None) } else { (1, Some("nobody")) }
        }
        Some(&("--version" | "--help" | "demo")) => {
            words.push("--help".to_owned());
            (0, None)
        }
        _ => {
            let flags = words.split_off(usize::from(words.first().is_some_and(|word| word == "serve")));
            words = vec!["client-config".to_owned(), "containerd".to_owned()];
            words.extend(flags);
            (0, None)
        }
    };
    let output = program(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_as_expected = output.status.code() == Some(expected)
        && lacking.is_none_or(|lacking| said.lines().count() == 1 && said.contains(lacking));
    if is_as_expected { Ok(()) } else { Err(said) }
}

/// Whatever looks like a path of this repository is one.
fn check_paths(line: &str) -> Result<(), String> {
    let words = line.split(|c: char| c.is_whitespace() || "<>|;'\"()=".contains(c));
    for word in words.filter(|word| {
        [".ci/", "benches/", "charts/", "conf/", "docs/", "scripts/", "tests/"].iter().any(|top| word.starts_with(top))
    }) {
        if !root().join(word).exists() {
            return Err(format!("{word} does not exist: {line}"));
        }
    }
    Ok(())
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_alphabetic() || c == '_'))
}

fn without_comment(line: &str) -> &str {
    if line.starts_with('#') { "" } else { line.split(" #").next().unwrap_or_default() }
}

/// Words by blanks, quotes taken off.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in line.chars().chain([' ']) {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (' ' | '\t', None) if word.is_empty() => {}
            (' ' | '\t', None) => words.push(std::mem::take(&mut word)),
            (c, _) => word.push(c),
        }
    }
    words
}
