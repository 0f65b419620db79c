//! Completions of shells: of what `--help` shows, and nothing else.

use std::fs;
use std::io;
use std::path::Path;

use clap::builder::PossibleValuesParser;
use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate, generate_to};
use oci::route::Blobs;

use super::{Program, warm};
use crate::client_config::Client;
use crate::init::Step;
use crate::logger::LEVELS;

const NAME: &str = env!("CARGO_PKG_NAME");

/// Writes a script for bash, fish and zsh each.
pub(super) fn write(directory: &Path) -> io::Result<()> {
    generate_to(Shell::Zsh, &mut completed(), NAME, directory)?;
    fs::write(directory.join(format!("{NAME}.fish")), for_fish())?;
    fs::write(directory.join(format!("{NAME}.bash")), for_bash())
}

/// The completions of bash. For a program with a hyphen in its name clap_complete 4.6 looks for each subcommand by another name
/// than it has set before, and completes nothing behind one (clap issue 6421).
fn for_bash() -> String {
    let mut script = Vec::new();
    generate(Shell::Bash, &mut completed(), NAME, &mut script);
    String::from_utf8_lossy(&script).replace(&NAME.replace('-', "__subcmd__"), &NAME.replace('-', "__"))
}

/// The completions of fish. clap_complete has none there for a word that is no flag, so the clients are added.
fn for_fish() -> String {
    let mut script = Vec::new();
    generate(Shell::Fish, &mut completed(), NAME, &mut script);
    let (helper, clients) = (NAME.replace('-', "_"), values("client-config", "client").join(" "));
    let line =
        format!("complete -c {NAME} -n \"__fish_{helper}_using_subcommand client-config\" -f -a \"{clients}\"\n");
    String::from_utf8_lossy(&script).into_owned() + &line
}

/// The command line as it is completed.
fn completed() -> Command {
    shown(&Program::command()).version(env!("CARGO_PKG_VERSION")).propagate_version(true)
}

/// A command without what is hidden, which clap_complete offers as well, and with the values of flags that have few. The parser itself does
/// not know those: it would have words of its own for a wrong one.
fn shown(command: &Command) -> Command {
    // clap wants a name that lasts; the program ends when the scripts are written.
    let name: &'static str = command.get_name().to_owned().leak();
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set()).cloned();
    let arguments = arguments.map(|argument| match values(command.get_name(), argument.get_id().as_str()) {
        values if values.is_empty() => argument,
        values => argument.value_parser(PossibleValuesParser::new(values)),
    });
    let below = command.get_subcommands().filter(|command| !command.is_hide_set()).map(shown);
    let shown = Command::new(name).args(arguments).subcommands(below);
    match command.get_about() {
        Some(about) => shown.about(about.clone()),
        None => shown,
    }
}

/// All values of an argument, if they are few.
fn values(command: &str, argument: &str) -> Vec<&'static str> {
    match (command, argument) {
        ("client-config", "client") => Client::NAMES.split(", ").flat_map(|names| names.split(" or ")).collect(),
        ("init", "skips") => Step::ALL.map(Step::name).to_vec(),
        #[cfg(feature = "bench")]
        ("bench", "layers") => acr_bench::Layers::ALL.map(acr_bench::Layers::key).to_vec(),
        (_, "log") => LEVELS.to_vec(),
        ("bench", "blobs") => Blobs::ALL.map(Blobs::name).to_vec(),
        ("warm", "layers") => warm::LAYERS.map(|(name, _)| name).to_vec(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_that_are_completed_are_taken() {
        let (clients, steps) = (values("client-config", "client"), values("init", "skips"));
        assert!(clients.len() > 10 && clients.iter().all(|name| Client::parse(name).is_ok()), "{clients:?}");
        assert!(steps.iter().all(|name| Step::parse_skipped(name).is_ok()), "{steps:?}");
        let said = Step::parse_skipped("x").expect_err("no step");
        assert!(steps.iter().all(|name| said.contains(name)), "{said}");
    }

    /// Directories were, in their place.
    #[test]
    fn fish_offered_neither_clients_nor_levels_nor_layers() {
        let script = for_fish();
        let helper = "function __fish_acr_cache_proxy_using_subcommand";
        assert!(script.contains(helper), "{script}");
        for (of, has) in [
            ("using_subcommand client-config\" -f -a", "containerd"),
            ("using_subcommand bench\" -l layers", "head"),
            ("needs_command\" -l log", "warn"),
        ] {
            // The bare build has no bench.
            if of.contains(" bench") && cfg!(not(feature = "bench")) {
                continue;
            }
            let lines: Vec<_> = script.lines().skip_while(|line| !line.contains(of)).take(8).collect();
            assert!(lines.concat().contains(has), "{of}: {lines:?}");
        }
    }

    /// No client and no value was offered, but files, hidden flags and `generate` were.
    #[test]
    fn bash_completes_the_flags_of_each_subcommand() {
        let script = r#"
            eval "$1"
            for words in "$NAME do" "$NAME client-config --mer" "$NAME init --sk" "$NAME doctor --fi" "$NAME client-config --masq" \
                "$NAME check --exit" "$NAME check --variables" "$NAME g" "$NAME client-config d" "$NAME init --skip s" "$NAME warm --layers h"; do
                read -ra COMP_WORDS <<< "$words"
                COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
                COMPREPLY=()
                _acr__cache__proxy "$NAME" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
                echo "${COMPREPLY[@]}"
            done"#;
        let mut bash = std::process::Command::new("bash");
        bash.args(["--norc", "-c", script, "bash"]).arg(for_bash()).env("NAME", NAME);
        let output = bash.output().expect("bash runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            said, "doctor\n--merge\n--skip\n--fix\n\n\n\n\ndocker docker-desktop\nservice\nhead\n",
            "{output:?}"
        );
    }
}
