//! What `--version` says besides the number: the commit and its date, and the features that are built in. And the modules, which a
//! log filter can name.
//!
//! The commit is that of the checkout, or what `ACR_CACHE_PROXY_COMMIT` says, for a build from an archive without `.git`.
//! The date is the commit's and not the build's, so two builds of one commit are the same.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Overrides the commit: any text of one line, such as `a0e496d1c2, 2026-11-26`.
const OVERRIDE: &str = "ACR_CACHE_PROXY_COMMIT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    let commit = match std::env::var(OVERRIDE).ok().filter(|text| !text.is_empty()) {
        Some(text) if text.chars().any(char::is_control) => {
            println!("cargo::error={OVERRIDE}: a control character: give one line, such as \"a0e496d1c2, 2026-11-26\"");
            return;
        }
        Some(text) => text,
        None => checkout().unwrap_or_else(|| "commit unknown".to_owned()),
    };
    println!("cargo::rustc-env=ACR_CACHE_PROXY_BUILD={commit}; features: {}", features());
    println!("cargo::rerun-if-changed=src");
    let mut modules = modules(Path::new("src"), "");
    modules.sort_unstable();
    println!("cargo::rustc-env=ACR_CACHE_PROXY_MODULES={}", modules.join(" "));
}

/// The modules of the crate, such as `listen::bind`: each is a file, and nothing is logged by those of tests.
fn modules(directory: &Path, above: &str) -> Vec<String> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
        if above.is_empty() && matches!(name, "lib" | "main") || name == "tests" {
            continue;
        }
        if path.is_dir() {
            found.extend(modules(&path, &format!("{above}{name}::")));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(format!("{above}{name}"));
        }
    }
    found
}

/// The commit that is checked out here, and its date. None without git, or without a repository of this project: an
/// archive that is unpacked in another repository must not get that one's commit.
fn checkout() -> Option<String> {
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from)?;
    if top.canonicalize().ok()? != here.canonicalize().ok()? {
        return None;
    }
    // HEAD's file changes when another branch is checked out, the branch's own file when a commit is made. Where that one is
    // packed, the log of HEAD tells. A path that does not exist would make cargo run this script at every build.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD"].into_iter().chain(branch.as_deref()) {
        let path = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let (commit, date) = git(&["show", "--no-patch", "--format=%H %cs", "HEAD"])?
        .split_once(' ')
        .map(|(commit, date)| (commit.get(..10).unwrap_or(commit).to_owned(), date.to_owned()))?;
    Some(format!("{commit}, {date}"))
}

/// The answer of git, in one line; none if there is no git or it fails.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// The cargo features of this build. Cargo tells them as `CARGO_FEATURE_NAME`.
fn features() -> String {
    let name = |(variable, _): (String, String)| {
        variable.strip_prefix("CARGO_FEATURE_").map(|name| name.to_lowercase().replace('_', "-"))
    };
    let mut names: Vec<_> = std::env::vars().filter_map(name).filter(|name| name != "default").collect();
    names.sort_unstable();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
