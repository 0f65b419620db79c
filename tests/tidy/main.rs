//! Rules of the repository that neither the compiler nor clippy knows, and the claims of `src/lib.rs` about its own
//! structure.

use std::collections::BTreeSet;

use source::{File, Token, rust};

mod architecture;
mod imports;
mod links;
mod source;

/// The crates, each with the file that is its root.
const CRATES: &[(&str, &str)] = &[
    ("src", "lib.rs"),
    ("oci/src", "lib.rs"),
    ("bench/src", "lib.rs"),
    ("emulator/src", "lib.rs"),
    ("progress/src", "lib.rs"),
    ("proxy_protocol/src", "lib.rs"),
    ("testkit/src", "lib.rs"),
    ("tests/integration", "main.rs"),
    ("tests/faults", "main.rs"),
    ("tests/clients", "main.rs"),
    ("tests/conformance", "main.rs"),
    ("tests/docs", "main.rs"),
];

/// A file of this many lines has a second idea.
const MAX_LINES: usize = 500;

/// Where the daemon sets `Authorization`: a registry token for the registry, and the key that Azure Arc's agent asks for,
/// which goes to the agent alone.
const SETS_AUTHORIZATION: [&str; 2] = ["src/proxy/forward.rs", "src/identity/azure_arc.rs"];

/// Names that were replaced by the field's own terms, and must not come back.
const FORMER_NAMES: &[(&str, &str)] = &[
    ("at_hand", "cached"),
    ("Arriving", "PendingConnections"),
    ("chance", "rng"),
    ("gist", "fingerprint"),
    ("let_go", "evict"),
    ("Lid", "Filter"),
    ("MustNotEnd", "ExitIfDropped"),
    ("news", "report"),
    ("spare", "time_left"),
    ("there_and_back", "round_trip"),
];

/// What does not follow a rule yet: the rule, the beginning of its finding, and why. An entry that is no longer needed fails
/// the test, so the list can only shrink.
const EXCEPTIONS: &[(&str, &str, &str)] =
    &[("Authorization is set in one place", "src/demo.rs", "it only looks for the header in what was recorded")];

/// Fails with all findings that no exception names, and with all exceptions that name no finding.
fn assert_none(rule: &str, findings: impl IntoIterator<Item = String>) {
    let findings: BTreeSet<_> = findings.into_iter().collect();
    let excepted = |finding: &&String| EXCEPTIONS.iter().any(|(of, what, _)| *of == rule && finding.starts_with(what));
    let left: Vec<_> = findings.iter().filter(|finding| !excepted(finding)).map(String::as_str).collect();
    assert!(left.is_empty(), "{rule}:\n{}", left.join("\n"));
    let done = EXCEPTIONS
        .iter()
        .filter(|(of, what, _)| *of == rule && !findings.iter().any(|finding| finding.starts_with(what)));
    let done: Vec<_> = done.map(|(_, what, _)| *what).collect();
    assert!(done.is_empty(), "{rule}: these exceptions can be removed: {done:?}");
}

/// `finding` for each file in which `is_found`.
fn in_files(is_found: impl Fn(&File) -> bool) -> Vec<String> {
    rust().iter().filter(|file| is_found(file)).map(|file| file.path.clone()).collect()
}

#[test]
fn imports_form_no_circle() {
    let circles = CRATES.iter().flat_map(|(directory, root)| {
        let graph = imports::Graph::of(directory, root);
        graph.circles().into_iter().map(|circle| circle.join(", ")).collect::<Vec<_>>()
    });
    assert_none("imports form no circle", circles);
}

#[test]
fn imports_point_from_upper_layers_to_lower_ones() {
    let layers = architecture::layers();
    let graph = imports::Graph::of("src", "lib.rs");
    let layer = |module: &str| layers.iter().position(|layer| layer.iter().any(|name| name == module));
    let listed: BTreeSet<_> = layers.iter().flatten().cloned().collect();
    let modules: BTreeSet<_> = graph.names().into_iter().filter(|name| !name.contains("::")).collect();
    let missing = modules.difference(&listed).map(|name| format!("{name}: in no layer"));
    let extra = listed.difference(&modules).map(|name| format!("{name}: in a layer, but no module"));
    let upwards = graph.between_top_level_modules().into_iter().filter(|(from, to, _)| layer(from) >= layer(to));
    let upwards = upwards.map(|(from, to, file)| format!("{file}: {from} imports {to}"));
    assert_none("imports point from upper layers to lower ones", missing.chain(extra).chain(upwards));
}

#[test]
fn the_map_names_every_module_and_no_other() {
    let mut modules = imports::Graph::of("src", "lib.rs").names();
    modules.insert("main".to_owned());
    let (map, unknown) = architecture::map(&modules);
    let missing = modules.difference(&map).map(|name| format!("{name}: not in the map"));
    let extra = unknown.into_iter().map(|name| format!("{name}: in the map, but no module"));
    assert_none("the map names every module and no other", missing.chain(extra));
}

#[test]
fn every_invariant_names_tests_that_exist() {
    let tests = architecture::tests();
    let wrong = architecture::invariants().into_iter().flat_map(|(invariant, named)| {
        let none = named.is_empty().then(|| format!("{invariant}: names no test"));
        let missing =
            named.into_iter().filter(|name| !tests.contains(name)).map(|name| format!("{name}: no such test"));
        none.into_iter().chain(missing).collect::<Vec<_>>()
    });
    assert_none("every invariant names tests that exist", wrong);
}

#[test]
fn oci_depends_on_no_network() {
    let manifest = std::fs::read_to_string(source::root().join("oci/Cargo.toml")).expect("a manifest");
    let network = ["pingora", "tokio", "hyper", "reqwest", "rustls"];
    let found = manifest.lines().filter(|line| network.iter().any(|name| line.trim_start().starts_with(name)));
    assert_none("oci depends on no network", found.map(str::to_owned));
}

#[test]
fn authorization_is_set_in_one_place() {
    let names_it = |token: &Token| match token {
        Token::Ident(name) => name == "AUTHORIZATION",
        Token::Literal(text) => text.trim_matches('"').eq_ignore_ascii_case("authorization"),
        _ => false,
    };
    let found = in_files(|file| file.path.starts_with("src/") && file.code().iter().any(names_it));
    assert_none(
        "Authorization is set in one place",
        found.into_iter().filter(|path| !SETS_AUTHORIZATION.contains(&path.as_str())),
    );
}

#[test]
fn every_file_begins_with_what_it_is() {
    assert_none("every file begins with what it is", in_files(|file| !file.text.starts_with("//! ")));
}

#[test]
fn files_have_one_idea() {
    let long = rust().iter().filter(|file| file.text.lines().count() >= MAX_LINES);
    assert_none("files have one idea", long.map(|file| format!("{}: {} lines", file.path, file.text.lines().count())));
}

#[test]
fn modules_are_where_the_compiler_looks_for_them() {
    let path = [Token::Punct('#'), Token::Open(proc_macro2::Delimiter::Bracket), Token::Ident("path".to_owned())];
    let found = in_files(|file| file.tokens().windows(path.len()).any(|tokens| tokens == path));
    assert_none("no #[path]", found);
}

/// clippy finds `unwrap`; an `expect` outside tests says in words why it cannot fail.
#[test]
fn expectations_are_explained() {
    let is_bare = |tokens: &[Token]| {
        let [Token::Punct('.'), Token::Ident(name), Token::Open(_), reason] = tokens else { return false };
        name == "expect" && !matches!(reason, Token::Literal(text) if text.contains(' '))
    };
    let programs = ["src/", "oci/src/", "emulator/src/", "bench/src/"];
    let found = in_files(|file| {
        programs.iter().any(|program| file.path.starts_with(program)) && file.code().windows(4).any(is_bare)
    });
    assert_none("expectations are explained", found);
}

#[test]
fn former_names_do_not_come_back() {
    let found = rust().iter().flat_map(|file| {
        let tokens = file.tokens();
        let found = FORMER_NAMES.iter().filter(|(name, _)| tokens.iter().any(|token| token.is(name)));
        found.map(|(name, term)| format!("{}: {name} is {term}", file.path)).collect::<Vec<_>>()
    });
    assert_none("former names do not come back", found);
}

#[test]
fn links_lead_somewhere() {
    assert_none("links lead somewhere", links::broken());
}
