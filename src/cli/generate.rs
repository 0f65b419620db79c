//! `generate`: what a package has besides the program: manual pages, completions of shells, and the schema of the configuration.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::roff::{Roff, bold, roman};

use super::Program;
use crate::config::{self, DefaultValue, Row};

const NAME: &str = env!("CARGO_PKG_NAME");
/// The page of the configuration file, which stands in section 5.
const FILE_PAGE: &str = "acr-cache-proxy.yaml";

/// The flags of `generate`.
#[derive(Args)]
pub(super) struct GenerateFlags {
    /// Where to write them; it is made if it is not there
    #[arg(value_name = "DIRECTORY")]
    pub(super) directory: PathBuf,
}

/// Writes `man/*.1` and `.5`, `completions/*`, and `config.schema.json`. The error names the file.
pub(crate) fn generate(directory: &Path) -> Result<(), String> {
    let (man, completions) = (directory.join("man"), directory.join("completions"));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |cause: io::Error| format!("{}: {cause}", path.display())
    };
    for directory in [&man, &completions] {
        fs::create_dir_all(directory).map_err(failed(directory))?;
    }
    // The long version, with commit and features, has no room in the last line of a page.
    let program = Program::command().version(env!("CARGO_PKG_VERSION"));
    clap_mangen::generate_to(program, &man).map_err(failed(&man))?;
    let page = man.join(format!("{FILE_PAGE}.5"));
    fs::write(&page, file_page()).map_err(failed(&page))?;
    for shell in [Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut Program::command(), NAME, &completions).map_err(failed(&completions))?;
    }
    let bash = completions.join(format!("{NAME}.bash"));
    fs::write(&bash, for_bash()).map_err(failed(&bash))?;
    let schema = directory.join("config.schema.json");
    fs::write(&schema, format!("{:#}\n", config::schema())).map_err(failed(&schema))
}

/// The completions of bash. For a program with a hyphen in its name clap_complete 4.6 looks for each subcommand by another name
/// than it has set before, and completes nothing behind one (clap issue 6421).
fn for_bash() -> String {
    let mut script = Vec::new();
    clap_complete::generate(Shell::Bash, &mut Program::command(), NAME, &mut script);
    String::from_utf8_lossy(&script).replace(&NAME.replace('-', "__subcmd__"), &NAME.replace('-', "__"))
}

/// acr-cache-proxy.yaml(5): the reference of `docs/configuration.md`, without the things around it.
fn file_page() -> String {
    let mut page = Roff::new();
    page.control("TH", [FILE_PAGE, "5", "", concat!("acr-cache-proxy ", env!("CARGO_PKG_VERSION")), NAME]);
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{FILE_PAGE} - the configuration file of acr-cache-proxy"))]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "A YAML file, by default /etc/acr-cache-proxy/config.yaml where a package has installed the proxy. Two settings have to be \
         set: the registry, and the target of its cache rule.",
    )]);
    page.control("PP", []);
    page.control("nf", []);
    page.text([roman("upstream:")]);
    page.text([roman("  domain: example.azurecr.io")]);
    page.text([roman("  prefix: hub")]);
    page.control("fi", []);
    page.control("PP", []);
    page.text([roman(
        "A flag wins over its variable, and the variable over the file. All mistakes of a file are told at once, by the proxy \
         when it starts and by acr-cache-proxy reload.",
    )]);
    page.control("SH", ["SETTINGS"]);
    for (key, row) in config::all() {
        page.control("TP", []);
        page.text([bold(key), roman(format!(" ({})", row.value))]);
        page.text([roman(about(row))]);
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([bold(NAME), roman("(1)")]);
    page.render()
}

/// A setting in a paragraph.
fn about(row: &Row) -> String {
    let default = match row.default {
        DefaultValue::Required => "It has to be set".to_owned(),
        DefaultValue::Text("") => "Default: empty".to_owned(),
        DefaultValue::Text(text) => format!("Default: {text}"),
        DefaultValue::Unless(text, exception) => format!("Default: {text}, or {exception}"),
        DefaultValue::Words(words) => format!("Default: {words}"),
    };
    let flag = row.flag.map(|flag| format!(" Flag: --{flag}.")).unwrap_or_default();
    let variable = row.variable.map(|variable| format!(" Variable: {variable}.")).unwrap_or_default();
    let more = if row.more.is_empty() { String::new() } else { format!(" {}", row.more) };
    plain(&format!("{}.{more} {default}.{flag}{variable}", row.help))
}

/// Without the marks of Markdown: code, and links, whose pages are elsewhere here.
fn plain(markdown: &str) -> String {
    let mut text = String::with_capacity(markdown.len());
    let mut rest = markdown;
    while let Some((before, target)) = rest.split_once("](") {
        let name = before.rfind('[').unwrap_or(0);
        text.push_str(&before[..name]);
        text.push_str(before[name..].trim_start_matches('['));
        rest = target.split_once(')').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    text.replace('`', "")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn bash_completes_the_flags_of_each_subcommand() {
        let script = r#"
            eval "$1"
            for words in "$NAME d" "$NAME client-config --mer" "$NAME init --sk" "$NAME doctor --fi"; do
                read -ra COMP_WORDS <<< "$words"
                COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
                COMPREPLY=()
                _acr__cache__proxy "$NAME" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
                echo "${COMPREPLY[@]}"
            done"#;
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", script, "bash"]).arg(for_bash()).env("NAME", NAME);
        let output = bash.output().expect("bash runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, "doctor demo\n--merge\n--skip\n--fix\n", "{output:?}");
    }
}
