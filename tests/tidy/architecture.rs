//! What the documentation of `src/lib.rs` claims: a map of the modules, their layers, and invariants with their tests.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::source;

/// Test targets, each with its directory; a name of a test in the list of invariants begins with one of these, or with a
/// module of `src/`.
const TARGETS: &[(&str, &str)] = &[
    ("clients", "tests/clients"),
    ("conformance", "tests/conformance"),
    ("docs", "tests/docs"),
    ("emulator", "emulator/src"),
    ("faults", "tests/faults"),
    ("integration", "tests/integration"),
    ("oci", "oci/src"),
    ("tidy", "tests/tidy"),
    ("", "src"),
    ("", "tests"),
];

/// The lines of a section of `src/lib.rs`, without its heading and without blank ones.
pub(crate) fn section(heading: &str) -> Vec<String> {
    let lib = source::rust().iter().find(|file| file.path == "src/lib.rs").expect("src/lib.rs");
    let docs = lib.text.lines().map_while(|line| line.strip_prefix("//!"));
    let docs = docs.map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned());
    let section = docs.skip_while(|line| !line.starts_with(&format!("# {heading}"))).skip(1);
    let lines: Vec<_> = section.take_while(|line| !line.starts_with("# ")).filter(|line| !line.is_empty()).collect();
    assert!(!lines.is_empty(), "src/lib.rs has no section {heading:?}");
    lines
}

/// The modules that the map names, and the names in it that are no module. The first column of each line names them: a line
/// that is indented belongs to the last one that is indented less, so `lookup` below `net::addresses` is
/// `net::addresses::lookup`. A crate, such as `oci (a crate)`, and what belongs to it are left out.
pub(crate) fn map(modules: &BTreeSet<String>) -> (BTreeSet<String>, Vec<String>) {
    let (mut found, mut unknown) = (BTreeSet::new(), Vec::new());
    let mut above: Vec<(usize, String)> = Vec::new();
    for line in section("Map").iter().filter(|line| !line.starts_with("```")) {
        let indent = line.len() - line.trim_start().len();
        above.retain(|(outer, _)| *outer < indent);
        let column = line.trim_start().split("  ").next().unwrap_or_default();
        let (column, note) = column.split_once(" (").unwrap_or((column, ""));
        let mut first = None;
        for name in column.split(", ").flat_map(|names| names.split(" -> ")).map(str::trim) {
            let outer = above.iter().rev().map(|(_, outer)| format!("{outer}::{name}"));
            let module = outer.chain([name.to_owned()]).find(|path| modules.contains(path));
            let is_of_crate = note.starts_with("a crate") || above.iter().any(|(_, outer)| outer.is_empty());
            match &module {
                // And the modules that it is in.
                Some(module) => found.extend(module.match_indices("::").map(|(at, _)| module[..at].to_owned())),
                None if !is_of_crate => unknown.push(name.to_owned()),
                None => {}
            }
            found.extend(module.clone());
            first.get_or_insert(module.unwrap_or_default());
        }
        above.push((indent, first.unwrap_or_default()));
    }
    (found, unknown)
}

/// The layers from the top down, each a list of modules.
pub(crate) fn layers() -> Vec<Vec<String>> {
    let section = section("Layers");
    let lines = section.iter().skip_while(|line| !line.starts_with("```")).skip(1).take_while(|line| *line != "```");
    lines.map(|line| line.split(',').map(|name| name.trim().to_owned()).collect()).collect()
}

/// Each invariant, with the tests that it names.
pub(crate) fn invariants() -> Vec<(String, Vec<String>)> {
    let mut invariants: Vec<String> = Vec::new();
    for line in section("Invariants") {
        match (line.strip_prefix("- "), invariants.last_mut()) {
            (Some(first), _) => invariants.push(first.to_owned()),
            (None, Some(invariant)) => invariant.push_str(&format!(" {}", line.trim())),
            (None, None) => {}
        }
    }
    let named = |invariant: String| {
        let tests = invariant.split_once("Held by ").map(|(_, tests)| tests.to_owned()).unwrap_or_default();
        (invariant, tests.split('`').skip(1).step_by(2).map(str::to_owned).collect())
    };
    invariants.into_iter().map(named).collect()
}

/// Every test there is, as `<target>::<module>::<function>`; those of `src/` have no target.
pub(crate) fn tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for file in source::rust() {
        let target = TARGETS.iter().find(|(_, directory)| file.path.starts_with(&format!("{directory}/")));
        if let Some((target, directory)) = target {
            let module = file.path[directory.len() + 1..].trim_end_matches(".rs").replace('/', "::");
            let module = if matches!(module.as_str(), "main" | "lib") { String::new() } else { module };
            find(file.stream(), &joined(target, &module), &mut tests);
        }
    }
    tests
}

fn joined(path: &str, name: &str) -> String {
    [path, name].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("::")
}

fn find(stream: TokenStream, path: &str, tests: &mut BTreeSet<String>) {
    let trees: Vec<_> = stream.into_iter().collect();
    let mut is_test = false;
    let mut module = path.to_owned();
    for (at, tree) in trees.iter().enumerate() {
        // A macro may write a name that is no identifier yet.
        let name = || trees.get(at + 1).map(ToString::to_string).unwrap_or_default();
        match tree {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => {
                let attribute = group.stream().to_string().replace(' ', "");
                is_test |= attribute == "test" || attribute.starts_with("tokio::test");
            }
            TokenTree::Group(group) => {
                find(group.stream(), &module, tests);
                path.clone_into(&mut module);
            }
            TokenTree::Ident(ident) if ident == "mod" => module = joined(path, &name()),
            TokenTree::Ident(ident) if ident == "fn" && is_test => {
                tests.insert(joined(path, &name()));
                is_test = false;
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => path.clone_into(&mut module),
            _ => {}
        }
    }
}
