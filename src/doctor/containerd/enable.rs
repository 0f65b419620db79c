//! Whether containerd looks for `hosts.toml`, and the command that has it do so.

use super::super::expected::{by_hand, edit};
use super::super::finding::{Code, Finding, Fix};
use super::super::hosts_toml;
use super::{CERTS_D, Facts, RESTART, Settings};
use crate::host::Text;
use crate::shell::shell_word;

/// The directory that it reads, or why it reads none or another than the one with the files of client-config.
pub(super) fn not_enabled(
    facts: &Facts,
    settings: &Settings,
    file: &str,
    ours_is_used: bool,
) -> Result<String, Box<Finding>> {
    let section = settings.section();
    let finding = |code, text: String| {
        let (file, fix) = enable(facts, settings, file);
        Box::new(Finding {
            registries: Vec::new(),
            code,
            file: Some(file),
            text,
            why: "containerd finds no hosts.toml, and pulls of every registry go past the proxy, and nobody is told"
                .to_owned(),
            fix,
        })
    };
    let Some(path) = &settings.path else {
        let text = match settings.ignored {
            Some(ignored) if settings.version < 2 && facts.config.is_some() => {
                format!("it has no version = 2, so containerd does not know its {ignored}")
            }
            Some(ignored) if settings.release == Some(1) => {
                format!("config_path is in {ignored}, and containerd 1 has it in {section}")
            }
            Some(ignored) => {
                format!("config_path is in {ignored}, and a file of version {} has it in {section}", settings.version)
            }
            None if settings.replaced_by.is_some() => format!(
                "its {plugin} has no config_path, and containerd 1 takes it in place of the one in {file}",
                plugin = section.replace(".registry]", "]")
            ),
            None if facts.config.is_none() => "it is not there, so no config_path is set".to_owned(),
            None => format!("config_path is not set: {section} has none"),
        };
        return Err(finding(Code::NotEnabled, text));
    };
    if path.contains(':') {
        let text = format!("config_path is {path:?}: two directories, of which containerd then reads neither");
        return Err(finding(Code::NotEnabled, text));
    }
    let is_empty = facts.certs.iter().all(|(known, all)| known != path || !hosts_toml::have_files(all));
    if path != CERTS_D && is_empty {
        let ours = if ours_is_used { "the files of client-config are in" } else { "client-config writes into" };
        let text = format!("config_path is {path:?}, where no hosts.toml is, and {ours} {CERTS_D}");
        return Err(finding(Code::Directory, text));
    }
    Ok(path.clone())
}

/// Has containerd look into the directory of client-config: the file to be changed, and the command. What a command does to a file is tried
/// first, and where none leaves a file that containerd can read and that names the directory, it is for an editor.
fn enable(facts: &Facts, settings: &Settings, file: &str) -> (String, Fix) {
    /// A file has one for each plugin that pulls.
    const MAX_LINES: usize = 8;
    let section = settings.section();
    let lines = format!("{section}\n  config_path = \"{CERTS_D}\"\n");
    let command = |path: &str, begin: &str, end: &str| {
        (path.to_owned(), by_hand(format!("{begin} {end}{} && {RESTART}", shell_word(path))))
    };
    let append_to = |file: &str, before: &str, begin: &str| {
        let lines = format!("{begin}{lines}").replace('\n', "\\n");
        command(file, &format!("{before}printf"), &format!("'{lines}' >> "))
    };
    let append = |before: &str, begin: &str| append_to(file, before, begin);
    let Some(config) = &facts.config else {
        let directory = shell_word(file.rsplit_once('/').map_or("/", |(directory, _)| directory));
        return append(&format!("mkdir -p {directory} && "), "version = 2\n");
    };
    let is_right = |path: &str, content: &str| {
        let settings = Settings::with(facts, Some((path, content)));
        settings.is_ok_and(|settings| settings.path.as_deref() == Some(CERTS_D))
    };
    if let Some(path) = &settings.replaced_by {
        let import = facts.imports.iter().find(|text| text.path == *path);
        let content = import.and_then(|text| text.content.as_ref().ok()).map_or("", String::as_str);
        let begin = if content.ends_with('\n') { "" } else { "\n" };
        if is_right(path, &format!("{content}{begin}{lines}")) {
            return append_to(path, "", begin);
        }
        let then = format!("  # config_path = \"{CERTS_D}\" into {section}; then: {RESTART}");
        return (path.clone(), edit(path, &then));
    }
    for Text { path, content } in [config].into_iter().chain(&facts.imports) {
        let Ok(content) = content else { continue };
        let is_it = |line: &str| line.split_once('=').is_some_and(|(key, _)| key.contains("config_path"));
        let all: Vec<_> = content.split_inclusive('\n').collect();
        for (at, line) in all.iter().enumerate().filter(|(_, line)| is_it(line)).take(MAX_LINES) {
            let key = line.split('=').next().unwrap_or_default();
            let new = format!("{key}= \"{CERTS_D}\"\n");
            let changed: String =
                all[..at].iter().copied().chain([new.as_str()]).chain(all[at + 1..].iter().copied()).collect();
            if is_right(path, &changed) {
                return command(path, "sed", &format!("-i '{}s|=.*|= \"{CERTS_D}\"|' ", at + 1));
            }
        }
    }
    if let Ok(content) = &config.content {
        if settings.version < 2 && is_right(file, &format!("version = 2\n{content}")) {
            return command(file, "sed", "-i '1i version = 2' ");
        }
        let end = if content.is_empty() || content.ends_with('\n') { "" } else { "\n" };
        for begin in [end.to_owned(), format!("{end}version = 2\n")] {
            if is_right(file, &format!("{content}{begin}{lines}")) {
                return append("", &begin);
            }
        }
    }
    let version = if settings.version < 2 { "version = 2 goes to its top, and " } else { "" };
    let then = format!("  # {version}config_path = \"{CERTS_D}\" into {section}; then: {RESTART}");
    (file.to_owned(), edit(file, &then))
}
