//! What a program of a host is started with: its command line and its environment, by systemd's unit and its drop-ins, or by the
//! variable of an init script.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::environment_file::{self, Variables};
use crate::host::Host;
use crate::installed::{self, UNITS};

mod handed;
mod lines;
mod manager;
pub(crate) mod own;
mod specifier;

use lines::of_service;
use manager::Manager;

/// Programs that run what another command line says.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "ksh", "zsh", "busybox"];
/// A distribution may have a script by an engine's own name, which hands its words on.
const ENGINES: [&str; 6] = ["dockerd", "containerd", "crio", "buildkitd", "k3s", "rke2"];

/// A value, and the file that sets it.
type Variable = (String, String);

/// A unit, as it starts a program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unit {
    pub name: String,
    /// The words of `ExecStart`, the program first, with the values of variables.
    pub command: Vec<String>,
    /// The file that has it.
    file: String,
    /// The script that it starts, which starts the program.
    script: Option<String>,
    /// Of `Environment` and the files that it names, with the file that sets each.
    environment: BTreeMap<String, Variable>,
    /// Its file and its drop-ins with their contents, the one that counts most last.
    texts: Vec<(String, String)>,
    /// What the service manager gives to every service, and its own.
    manager: Manager,
    /// The files that `EnvironmentFile` names, with what they set.
    sets: Vec<(String, Vec<(String, String)>)>,
    /// An init script starts the program.
    is_script: bool,
    /// No file that is known has the flags of the process that runs.
    is_by_process: bool,
    /// Why the rest of this need not be all that the program is started with.
    pub unknown: Vec<Unknown>,
    /// Values that it hands over may be others than these.
    is_inexact: bool,
}

/// What may give the program flags and variables, and is not known. Displays as a clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// A file or a directory, and why.
    Unread { path: String, cause: String },
    /// `ExecStart` of this file runs a shell, or this script, and that the program.
    Shell { path: String, script: Option<String> },
    /// The path of a file of variables has a specifier whose value is not known.
    Specifier { path: String },
    /// `ExecStart` of this file has a variable that `PassEnvironment` takes from the service manager, which no file gives it.
    Passed { path: String, variable: String },
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unread { path, cause } => write!(f, "{path} could not be read: {cause}"),
            Self::Shell { path, script: None } => {
                write!(f, "ExecStart= in {path} runs a shell, whose commands are not followed")
            }
            Self::Shell { path, script: Some(script) } => {
                write!(f, "ExecStart= in {path} runs the script {script}, whose commands are not followed")
            }
            Self::Specifier { path } => write!(f, "EnvironmentFile={path} has a specifier that is not followed"),
            Self::Passed { path, variable } => write!(
                f,
                "ExecStart= in {path} has ${variable}, which PassEnvironment= takes from systemd, and no file has its value (systemctl show-environment may)"
            ),
        }
    }
}

/// What the files of a unit say, before it is put together.
#[derive(Default)]
struct Said {
    /// `Environment`, with the file that sets each.
    variables: BTreeMap<String, Variable>,
    /// `EnvironmentFile`, which counts more wherever it stands (systemd.exec(5)).
    files: Vec<String>,
    /// `PassEnvironment`: names of variables of the service manager, which count least but for those that it gives to every service.
    passed: Vec<String>,
    /// `UnsetEnvironment`, which counts last: names, or names with the value that they must have.
    unset: Vec<String>,
}

impl Unit {
    /// Reads a service; one that is nowhere has no words and no variables.
    pub(crate) fn read(host: &Host, name: &str) -> Self {
        let mut unit = Self { name: name.to_owned(), ..Self::default() };
        let paths = unit.paths(host);
        let is_here = !paths.is_empty();
        for path in paths {
            match host.read(&path) {
                None => {}
                Some(text) => match text.content {
                    Ok(content) => unit.texts.push((path, content)),
                    Err(_) if host.is_masked(&path) => unit.texts.push((path, String::new())),
                    Err(cause) => unit.unknown.push(Unknown::Unread { path, cause }),
                },
            }
        }
        unit.manager = if is_here { Manager::read(host) } else { Manager::default() };
        let said = unit.take_texts();
        for pattern in &said.files {
            if specifier::is_left(pattern) {
                unit.unknown.push(Unknown::Specifier { path: pattern.clone() });
                continue;
            }
            let files = host.glob(pattern).unwrap_or_else(|(path, cause)| {
                unit.unknown.push(Unknown::Unread { path, cause });
                Vec::new()
            });
            for file in files {
                let variables = Variables::parse(&unit.read_variables(host, &file));
                let variables = variables.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
                unit.sets.push((file, variables.collect()));
            }
        }
        let asked = said.passed.clone();
        unit.environment = unit.put_together(said);
        let of_nobody = asked.iter().filter(|name| !unit.environment.contains_key(*name) && unit.names(name));
        let passed =
            of_nobody.map(|variable| Unknown::Passed { path: unit.main_file().to_owned(), variable: variable.clone() });
        let passed: Vec<_> = passed.collect();
        unit.unknown.extend(passed);
        unit.command = unit.command.iter().flat_map(|word| unit.expanded(word)).collect();
        unit.script = unit.command.first().filter(|program| is_script(host, program)).cloned();
        if unit.script.is_some() || unit.command.first().is_some_and(|program| is_shell(program)) {
            let path = unit.main_file().to_owned();
            unit.unknown.push(Unknown::Shell { path, script: unit.script.clone() });
        }
        unit
    }

    /// What all its texts say; `ExecStart` goes into the unit itself.
    fn take_texts(&mut self) -> Said {
        let mut said = Said::default();
        for (path, content) in self.texts.clone() {
            self.take(&path, &content, &mut said);
        }
        said
    }

    /// The environment that comes of this, of the service manager and of the files of variables.
    fn put_together(&self, said: Said) -> BTreeMap<String, Variable> {
        let mut environment = self.manager.default.clone();
        let own = self.manager.own.iter().filter(|(name, _)| said.passed.contains(name));
        environment.extend(own.map(|(name, variable)| (name.clone(), variable.clone())));
        environment.extend(said.variables);
        for (path, variables) in &self.sets {
            let of_path = |(name, value): &(String, String)| (name.clone(), (value.clone(), path.clone()));
            environment.extend(variables.iter().map(of_path));
        }
        for word in &said.unset {
            let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
            if environment.get(name).is_some_and(|(is, _)| value.is_none_or(|value| value == is)) {
                environment.remove(name);
            }
        }
        environment
    }

    /// The same with this drop-in, in place of one at its path. It may say all but which files have variables.
    pub(crate) fn with_drop_in(&self, path: &str, content: &str) -> Self {
        let mut unit = self.clone();
        unit.texts.retain(|(known, _)| known != path);
        let counts_more = |(known, _): &(String, String)| known.contains(".d/") && name_of(known) > name_of(path);
        let at = unit.texts.iter().position(counts_more).unwrap_or(unit.texts.len());
        unit.texts.insert(at, (path.to_owned(), content.to_owned()));
        let said = Self { command: Vec::new(), ..unit.clone() }.take_texts();
        unit.environment = unit.put_together(said);
        unit
    }

    /// The content of its file or drop-in at this path.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.texts.iter().find(|(known, _)| known == path).map(|(_, content)| content.as_str())
    }

    /// The drop-in by this name that counts, wherever it is.
    pub(crate) fn drop_in(&self, name: &str) -> Option<&str> {
        self.texts.iter().map(|(path, _)| path.as_str()).find(|path| path.contains(".d/") && name_of(path) == name)
    }

    /// The files of a unit, the one that counts most last. Of drop-ins with one name the first directory's counts, and all of them come in
    /// the order of their names: those of the unit and of the beginnings of its name that end in a dash, then those of all services
    /// (systemd.unit(5)).
    fn paths(&mut self, host: &Host) -> Vec<String> {
        let main = UNITS.iter().map(|directory| format!("{directory}/{}", self.name));
        let main = main.filter(|path| host.has(path)).take(1);
        let mut names = Vec::new();
        for name in [self.name.clone()].into_iter().chain(self.aliases(host)) {
            let stem = name.trim_end_matches(".service");
            let dashes: Vec<_> = stem.match_indices('-').map(|(at, _)| format!("{}.service", &stem[..=at])).collect();
            names.extend([name].into_iter().chain(dashes.into_iter().rev()));
        }
        let own = UNITS.iter().flat_map(|directory| names.iter().map(move |name| format!("{directory}/{name}.d")));
        let directories: Vec<_> = own.chain(UNITS.map(|directory| format!("{directory}/service.d"))).collect();
        let drop_ins = drop_ins(host, directories, |path, cause| self.unknown.push(Unknown::Unread { path, cause }));
        main.chain(drop_ins).collect()
    }

    /// Its other names: links to it beside it, and what its own name is a link to. Their drop-ins count as well.
    fn aliases(&self, host: &Host) -> BTreeSet<String> {
        let links = UNITS.iter().flat_map(|directory| host.links(directory));
        let links: Vec<_> = links.filter(|(_, target)| target.ends_with(".service")).collect();
        let own = links.iter().find(|(name, _)| *name == self.name).map_or(&self.name, |(_, target)| target);
        let mut all: BTreeSet<String> =
            links.iter().filter(|(_, target)| target == own).map(|(name, _)| name.clone()).collect();
        all.insert(own.clone());
        all.remove(&self.name);
        all
    }

    /// Whether a word of `ExecStart` has this variable.
    fn names(&self, variable: &str) -> bool {
        let (alone, within) = (format!("${variable}"), format!("${{{variable}}}"));
        self.command.iter().any(|word| *word == alone || word.contains(&within))
    }

    /// Takes the command line of the process that runs: whatever has started it, this is how.
    pub(crate) fn runs_as(&mut self, command: Vec<String>) {
        if self.is_script && self.command != command {
            self.is_by_process = true;
        }
        self.command = command;
        self.unknown.retain(|unknown| matches!(unknown, Unknown::Unread { .. }));
    }

    /// The same of a process with flags that the files do not explain.
    pub(crate) fn runs_unexplained_as(&mut self, command: Vec<String>) {
        self.runs_as(command);
        self.is_by_process = true;
    }

    /// Whether no file that is known has the flags of the process that runs.
    pub(crate) fn is_by_process(&self) -> bool {
        self.is_by_process
    }

    /// No file says what the program is started with, which its process does.
    pub(crate) fn is_for_its_process(&self) -> bool {
        self.command.is_empty() || self.unknown.iter().any(|unknown| !matches!(unknown, Unknown::Unread { .. }))
    }

    /// Whether a process with this command line was started with other values of a flag than the unit has by now. Of a unit that is nowhere,
    /// or not known, nobody can say.
    pub(crate) fn differs_from(&self, command: &[String], name: &str) -> bool {
        !self.command.is_empty() && self.unknown.is_empty() && flag(command, name) != self.flag(name)
    }

    /// What is not known of how the program is started, as one clause; `None` if all is known.
    pub(crate) fn doubt(&self) -> Option<String> {
        let all: Vec<_> = self.unknown.iter().map(ToString::to_string).collect();
        (!all.is_empty()).then(|| all.join(", and "))
    }

    /// The content of a file of variables; empty if there is none, or it is not known.
    fn read_variables(&mut self, host: &Host, path: &str) -> String {
        match host.read(path).map(|text| text.content) {
            Some(Ok(content)) => content,
            Some(Err(cause)) if !host.is_masked(path) => {
                self.unknown.push(Unknown::Unread { path: path.to_owned(), cause });
                String::new()
            }
            None | Some(Err(_)) => String::new(),
        }
    }

    /// The same where an init script may start the program, with the flags that a variable of one of these files has: on a host without
    /// the unit, or without systemd.
    pub(crate) fn read_or_script(host: &Host, name: &str, files: &[&str], variable: &str) -> Self {
        let unit = Self::read(host, name);
        let is_elsewhere = host.is_this() && !installed::runs_systemd();
        let is_here = !unit.command.is_empty() || !unit.unknown.is_empty();
        if is_here && !is_elsewhere {
            return unit;
        }
        let mut script = Self { name: name.to_owned(), is_script: true, ..Self::default() };
        for file in files {
            for (name, value) in environment_file::of_script(&script.read_variables(host, file)) {
                script.environment.insert(name, (value, (*file).to_owned()));
            }
        }
        script.command = [String::new()].into_iter().chain(script.expanded(&format!("${variable}"))).collect();
        script
    }

    /// Has the program started anew, with what its unit says by now.
    pub(crate) fn restart(&self) -> String {
        let service = self.name.trim_end_matches(".service");
        match self.is_script {
            true => format!("service {service} restart"),
            false => format!("systemctl daemon-reload && systemctl restart {service}"),
        }
    }

    /// Whether an init script starts it, which knows no drop-ins.
    pub(crate) fn is_script(&self) -> bool {
        self.is_script
    }

    /// A word with the values of variables, as systemd puts them in: `$NAME` alone is as many words as its value has, and
    /// `${NAME}` is part of its word (systemd.service(5)).
    fn expanded(&self, word: &str) -> Vec<String> {
        let value = |name: &str| self.environment.get(name).map_or("", |(value, _)| value.as_str());
        if let Some(name) = word.strip_prefix('$').filter(|name| !name.starts_with(['{', '$'])) {
            return words(value(name));
        }
        let (mut text, mut rest) = (String::new(), word);
        while let Some((before, (name, after))) =
            rest.split_once("${").and_then(|(before, behind)| Some((before, behind.split_once('}')?)))
        {
            text += before;
            text += value(name);
            rest = after;
        }
        vec![text + rest]
    }

    /// The file that gives the program a flag: the unit's, the script's that it starts, or that of a variable in `ExecStart`. Of a flag that
    /// is in none, a few words for one.
    pub(crate) fn file_of(&self, name: &str) -> String {
        let has = |value: &str| !flag(&words(value), name).is_empty();
        let by_variable = self.environment.values().find(|(value, _)| has(value));
        if let Some((_, file)) = by_variable {
            return file.clone();
        }
        if self.is_by_process {
            return format!("what starts {}", self.name.trim_end_matches(".service"));
        }
        self.script.as_deref().unwrap_or(self.main_file()).to_owned()
    }

    /// The file that has its `ExecStart`; its name where none has.
    fn main_file(&self) -> &str {
        if self.file.is_empty() { &self.name } else { &self.file }
    }

    /// Whether an administrator may edit this file of its: a package replaces its own units.
    pub(crate) fn is_edited(&self, file: &str) -> bool {
        file.starts_with("/etc/") || self.script.as_deref() == Some(file)
    }

    fn take(&mut self, path: &str, content: &str, said: &mut Said) {
        for (key, value) in of_service(content) {
            self.is_inexact |= !handed::is_exact(&key, &value);
            let value = &specifier::expanded(&value, &self.name);
            match key.as_str() {
                "ExecStart" => {
                    self.command = words(value.trim_start_matches(['-', '@', ':', '+', '!']));
                    path.clone_into(&mut self.file);
                }
                "Environment" if value.is_empty() => said.variables.clear(),
                "Environment" => {
                    for word in words(value) {
                        if let Some((name, value)) = word.split_once('=') {
                            said.variables.insert(name.to_owned(), (value.to_owned(), path.to_owned()));
                        }
                    }
                }
                "EnvironmentFile" if value.is_empty() => said.files.clear(),
                "EnvironmentFile" => said.files.push(value.trim_start_matches('-').to_owned()),
                "PassEnvironment" if value.is_empty() => said.passed.clear(),
                "PassEnvironment" => said.passed.extend(words(value)),
                "UnsetEnvironment" if value.is_empty() => said.unset.clear(),
                "UnsetEnvironment" => said.unset.extend(words(value)),
                _ => {}
            }
        }
    }

    /// A variable in capitals or not, and the file that sets it.
    pub(crate) fn variable(&self, name: &str) -> Option<&Variable> {
        let of = |name: &str| self.environment.get(name).filter(|(value, _)| !value.is_empty());
        of(name).or_else(|| of(&name.to_ascii_lowercase()))
    }

    /// The values of a flag that may be given several times: `--name value`, `--name=value`.
    pub(crate) fn flag(&self, name: &str) -> Vec<String> {
        flag(&self.command, name)
    }

    /// The value of a flag that needs none, `--name` or `--name=value`, where it is given last.
    pub(crate) fn switch(&self, name: &str) -> Option<String> {
        let value = |word: &String| {
            let rest = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?.strip_prefix(name)?;
            if rest.is_empty() { Some("true".to_owned()) } else { rest.strip_prefix('=').map(str::to_owned) }
        };
        self.command.iter().rev().find_map(value)
    }
}

/// The drop-ins of these directories in the order of their names, of two with one name that of the first directory. `unread` is told of each
/// directory that cannot be read, and why.
fn drop_ins(
    host: &Host,
    directories: impl IntoIterator<Item = String>,
    mut unread: impl FnMut(String, String),
) -> impl Iterator<Item = String> {
    let mut found = BTreeMap::new();
    for directory in directories {
        match host.list(&directory) {
            Ok(files) => {
                for file in files.into_iter().filter(|file| file.ends_with(".conf") && !file.starts_with('.')) {
                    found.entry(file.clone()).or_insert_with(|| format!("{directory}/{file}"));
                }
            }
            Err(cause) => unread(directory, cause),
        }
    }
    found.into_values()
}

/// Whether this program runs others, as its words say.
fn is_shell(program: &str) -> bool {
    SHELLS.contains(&name_of(program))
}

/// The same of one whose text says so.
fn is_script(host: &Host, program: &str) -> bool {
    let name = name_of(program);
    !ENGINES.contains(&name) && (name.ends_with(".sh") || host.is_script(program))
}

fn name_of(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// The values of a flag on a command line.
pub(crate) fn flag(command: &[String], name: &str) -> Vec<String> {
    let mut values = Vec::new();
    let mut words = command.iter();
    while let Some(word) = words.next() {
        let Some(rest) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else { continue };
        match rest.strip_prefix(name) {
            Some("") => values.extend(words.next().cloned()),
            Some(value) => values.extend(value.strip_prefix('=').map(str::to_owned)),
            None => {}
        }
    }
    values
}

/// Words by white space, outside of quotation marks. What is behind a backslash stands for itself.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut is_word) = (Vec::new(), String::new(), None, false);
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (_, '\\') => {
                word.extend(characters.next());
                is_word = true;
            }
            (None, '"' | '\'') => (quote, is_word) = (Some(c), true),
            (Some(open), c) if c == open => quote = None,
            (None, c) if c.is_whitespace() => {
                if std::mem::take(&mut is_word) {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, c) => {
                word.push(c);
                is_word = true;
            }
        }
    }
    if is_word {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests;
