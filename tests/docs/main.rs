//! The documentation, compared with the program: every fenced block is checked by what its language stands for, and paths
//! and commands that are named exist.
//!
//! What the checks leave out is said in `shell::UNCHECKED` and `terraform`.

mod architecture;
mod block;
mod files;
mod log;
mod messages;
mod paths;
mod release;
mod shell;
mod terraform;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use block::Block;

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Markdown files that people read: those at the top, and `docs/`.
fn pages() -> Vec<PathBuf> {
    let files = |directory: &str| std::fs::read_dir(root().join(directory)).expect("a directory");
    let paths = ["", "docs"].into_iter().flat_map(files).map(|entry| entry.expect("an entry").path());
    let mut pages: Vec<_> = paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    pages.sort_unstable();
    assert!(pages.len() > 10, "README, CONTRIBUTING and the pages: {pages:?}");
    pages
}

fn blocks() -> Vec<Block> {
    pages().iter().flat_map(|page| block::read(page, &std::fs::read_to_string(page).expect("a text"))).collect()
}

/// The program, without the variables of whoever runs the test.
fn program(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
    command.env_clear().env("HOME", "/home/user").args(arguments).output().expect("it runs")
}

/// The check of a block, by its language and, for settings, its content. None is an error: a block that nothing checks.
fn check(block: &Block) -> Option<Result<(), String>> {
    Some(match block.language.as_str() {
        "sh" => shell::check(block),
        "yaml" if block.text.contains("config:\n") => files::values(block),
        "yaml" if ["docker:\n", "machine:\n", "# /etc/rancher/"].iter().any(|begin| block.text.starts_with(begin)) => {
            files::client(block)
        }
        "yaml" => files::settings(block),
        "json" if block.text.starts_with("{\"time\"") => log::check_objects(block),
        "toml" | "json" => files::client(block),
        "ini" => files::unit(block),
        "hcl" => terraform::check(block),
        "text" if block.text.starts_with('[') => log::check(block),
        "text" if block.text.starts_with("--registry-mirror=") => files::client(block),
        "text" if block.text.contains("\ndoctor: ") => files::report(block),
        // A diagram; there is nothing in it that a program could judge.
        "text" if block.text.contains(" v\n") => Ok(()),
        "text" if architecture::is_made_from_the_source(block) => Ok(()),
        _ => return None,
    })
}

#[test]
fn every_block_is_what_the_program_and_its_clients_take() {
    let blocks = blocks();
    assert!(blocks.len() > 20, "{}", blocks.len());
    let wrong = blocks.iter().filter_map(|block| match check(block) {
        Some(Ok(())) => None,
        Some(Err(wrong)) => Some(format!("{}: {wrong}", block.place)),
        None => Some(format!("{}: nothing checks a block of {:?}: add a check for it", block.place, block.language)),
    });
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_wrong_block_is_found() {
    for (language, text) in [
        ("python", "print()"),
        ("text", "no diagram"),
        ("sh", "acr-cache-proxy --upstream-domian example.azurecr.io"),
        ("sh", "acr-cache-proxy bench --image busybox --rtt 20x"),
        ("sh", "acr-cache-proxy warm --file images.txt --layers all"),
        ("sh", "acr-cache-proxy init --yes --registry example --prefix hub"),
        ("sh", "scripts/none"),
        ("sh", "cat <conf/none.yaml"),
        ("sh", "unknown-program --flag"),
        ("sh", "echo 'open"),
        ("yaml", "lisden: 127.0.0.1:8080"),
        ("yaml", "docker:\n  \"127.0.0.1:8081\":\n"),
        ("yaml", "mode: DaemonSet\nconfig:\n  upstream: {domian: example.azurecr.io}\n"),
        ("yaml", "mood: DaemonSet\nconfig:\n  upstream: {domain: example.azurecr.io}\n"),
        ("toml", "# /etc/docker/hosts.toml\nserver = \"http://127.0.0.1:8080\"\n"),
        ("json", "{}"),
        ("ini", "Restart=always"),
        ("hcl", "resource \"a\" \"b\" {\n  c = var.none\n}\n"),
        ("hcl", "resource \"a\" \"b\" {\n"),
        ("text", "[2026-11-24T17:03:11.340Z INFO  none] a line\n"),
        ("text", "[2026-11-24T17:03:11.382Z INFO  access] GET /v2/ 200 0B 11ms nobody=1\n"),
    ] {
        let block = Block { place: "a test".to_owned(), language: language.to_owned(), text: text.to_owned() };
        assert!(!matches!(check(&block), Some(Ok(()))), "{language}: {text}");
    }
}
