//! `generate`: what a package has besides the program: manual pages, completions of shells, and the schema of the configuration.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

use super::{Program, completions};
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
    write_pages(program, &man).map_err(failed(&man))?;
    let page = man.join(format!("{FILE_PAGE}.5"));
    fs::write(&page, file_page()).map_err(failed(&page))?;
    completions::write(&completions).map_err(failed(&completions))?;
    let schema = directory.join("config.schema.json");
    fs::write(&schema, format!("{:#}\n", config::schema())).map_err(failed(&schema))
}

/// A page for the program and each command. Where clap_mangen has all that follows the flags under EXTRA, and filled as one paragraph, the
/// pages have sections of their own, and the synopsis says what a flag takes.
fn write_pages(program: Command, directory: &Path) -> io::Result<()> {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    for command in commands.collect::<Vec<_>>().into_iter().chain([program]) {
        let man = Man::new(command.clone());
        let mut page = Vec::new();
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        synopsis(&command).to_writer(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        if command.get_subcommands().any(|below| !below.is_hide_set()) {
            man.render_subcommands_section(&mut page)?;
        }
        after_flags(&command).to_writer(&mut page)?;
        man.render_version_section(&mut page)?;
        fs::write(directory.join(man.get_filename()), page)?;
    }
    Ok(())
}

/// The command line, with the values of its flags.
fn synopsis(command: &Command) -> Roff {
    let mut words = vec![bold(command.get_bin_name().unwrap_or_else(|| command.get_name()))];
    let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let (positional, flags): (Vec<_>, Vec<_>) = shown.partition(|argument| argument.is_positional());
    for argument in flags.into_iter().chain(positional) {
        let value = argument.get_value_names().and_then(|names| names.first()).map(|name| italic(name.as_str()));
        let value = value.filter(|_| argument.get_action().takes_values());
        let many = matches!(argument.get_action(), ArgAction::Append) && argument.is_positional();
        let is_required = argument.is_required_set();
        words.push(roman(if is_required { " " } else { " [" }));
        words.extend(argument.get_long().map(|name| bold(format!("--{name}"))));
        if let Some(value) = value {
            words.extend(argument.get_long().map(|_| roman(" ")));
            words.push(value);
        }
        words.push(roman(match (is_required, many) {
            (true, _) => "",
            (false, true) => "]...",
            (false, false) => "]",
        }));
    }
    if command.has_subcommands() {
        words.push(roman(" [COMMAND]"));
    }
    let mut page = Roff::new();
    page.control("SH", ["SYNOPSIS"]);
    page.text(words);
    page
}

/// What `--help` says below the flags: examples as they are, the exit status, and notes.
fn after_flags(command: &Command) -> Roff {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut page = Roff::new();
    let (mut notes, mut status) = (Vec::new(), None);
    for paragraph in text.split("\n\n") {
        if let Some(examples) = paragraph.strip_prefix("Examples:\n") {
            page.control("SH", ["EXAMPLES"]);
            page.control("nf", []);
            for line in examples.lines() {
                page.text([roman(line)]);
            }
            page.control("fi", []);
        } else if let Some(words) = paragraph.strip_prefix("Exit status: ") {
            status = Some(words);
        } else if !paragraph.trim().is_empty() {
            notes.push(paragraph);
        }
    }
    for (number, note) in notes.into_iter().enumerate() {
        if number == 0 {
            page.control("SH", ["NOTES"]);
        } else {
            page.control("PP", []);
        }
        page.text([roman(note.replace('\n', " "))]);
    }
    if let Some(words) = status {
        page.control("SH", ["EXIT STATUS"]);
        page.text([roman(words.replace('\n', " "))]);
    }
    page
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
        "A flag wins over its variable, and the variable over the file; but in the tables egress and identity the file wins over \
         its variable. All mistakes of a file are told at once, by the proxy \
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
    use super::*;

    /// The heading was EXTRA, and the examples one paragraph.
    #[test]
    fn what_follows_the_flags_has_sections_of_its_own_and_the_synopsis_has_values() {
        let folder = tempfile::tempdir().expect("a folder");
        write_pages(Program::command(), folder.path()).expect("written");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("a page");
        for entry in fs::read_dir(folder.path()).expect("a folder") {
            let name = entry.expect("one").file_name().to_string_lossy().into_owned();
            let page = read(&name);
            assert!(!page.contains("EXTRA") && page.contains(".SH SYNOPSIS\n"), "{name}: {page}");
        }
        let page = read("acr-cache-proxy-check.1");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "NOTES", "\"EXIT STATUS\"", "VERSION"]
        {
            assert_eq!(page.matches(&format!(".SH {section}\n")).count(), 1, "{section}: {page}");
        }
        let synopsis =
            page.split(".SH SYNOPSIS\n").nth(1).and_then(|rest| rest.split(".SH").next()).expect("it is there");
        assert!(
            synopsis.contains("\\fI") && synopsis.contains("IMAGE") && !synopsis.contains("variables"),
            "{synopsis}"
        );
    }
}
