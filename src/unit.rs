//! What a program of a host is started with: its command line and its environment, by systemd's unit and its drop-ins, or by the
//! variable of an init script.

use std::collections::BTreeMap;

use crate::environment_file;
use crate::host::Host;
use crate::installed::{self, UNITS};

/// A unit, as it starts a program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unit {
    pub name: String,
    /// The words of `ExecStart`, the program first, with the values of variables.
    pub command: Vec<String>,
    /// The file that has it.
    file: String,
    /// Of `Environment` and the files that it names, with the file that sets each.
    environment: BTreeMap<String, (String, String)>,
    /// An init script starts the program.
    is_script: bool,
}

impl Unit {
    /// Reads a service; one that is nowhere has no words and no variables.
    pub(crate) fn read(host: &Host, name: &str) -> Self {
        let mut unit = Self { name: name.to_owned(), ..Self::default() };
        let main = UNITS.iter().find_map(|directory| host.read(&format!("{directory}/{name}")));
        // Of drop-ins with one name the first directory's counts; all of them in the order of their names.
        let mut drop_ins = BTreeMap::new();
        for directory in UNITS {
            let directory = format!("{directory}/{name}.d");
            for file in host.list(&directory).into_iter().filter(|file| file.ends_with(".conf")) {
                drop_ins.entry(file.clone()).or_insert_with(|| format!("{directory}/{file}"));
            }
        }
        let drop_ins = drop_ins.into_values().filter_map(|path| host.read(&path));
        for text in main.into_iter().chain(drop_ins) {
            if let Ok(content) = &text.content {
                unit.take(host, &text.path, content);
            }
        }
        unit.command = unit.command.iter().flat_map(|word| unit.expanded(word)).collect();
        unit
    }

    /// The same where an init script may start the program, with the flags that a variable of one of these files has: on a host without
    /// the unit, or without systemd.
    pub(crate) fn read_or_script(host: &Host, name: &str, files: &[&str], variable: &str) -> Self {
        let unit = Self::read(host, name);
        let is_elsewhere = host.is_this() && !installed::runs_systemd();
        if !unit.command.is_empty() && !is_elsewhere {
            return unit;
        }
        let mut script = Self { name: name.to_owned(), is_script: true, ..Self::default() };
        for text in files.iter().filter_map(|file| host.read(file)) {
            let Ok(content) = &text.content else { continue };
            for (name, value) in environment_file::parse(content) {
                script.set(&text.path, name.trim_start_matches("export ").to_owned(), value);
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

    /// The file that gives the program a flag: the unit's, or that of a variable in `ExecStart`.
    pub(crate) fn file_of(&self, name: &str) -> &str {
        let has = |value: &str| !flag(&words(value), name).is_empty();
        let by_variable = self.environment.values().find(|(value, _)| has(value));
        let own = if self.file.is_empty() { &self.name } else { &self.file };
        by_variable.map_or(own, |(_, file)| file)
    }

    fn take(&mut self, host: &Host, path: &str, content: &str) {
        let content = content.replace("\\\n", " ");
        let mut is_service = false;
        for line in content.lines().map(str::trim) {
            if let Some(section) = line.strip_prefix('[') {
                is_service = section == "Service]";
            }
            let Some((key, value)) = line.split_once('=').filter(|_| is_service) else { continue };
            let value = value.trim();
            match key.trim() {
                "ExecStart" => {
                    self.command = words(value.trim_start_matches(['-', '@', ':', '+', '!']));
                    path.clone_into(&mut self.file);
                }
                "Environment" if value.is_empty() => self.environment.clear(),
                "Environment" => {
                    for word in words(value) {
                        if let Some((name, value)) = word.split_once('=') {
                            self.set(path, name.to_owned(), value.to_owned());
                        }
                    }
                }
                "EnvironmentFile" => {
                    let file = host.read(value.trim_start_matches('-'));
                    let lines = file.as_ref().and_then(|file| Some((&file.path, file.content.as_ref().ok()?)));
                    let Some((path, content)) = lines else { continue };
                    for (name, value) in environment_file::parse(content) {
                        self.set(path, name, value);
                    }
                }
                _ => {}
            }
        }
    }

    fn set(&mut self, path: &str, name: String, value: String) {
        self.environment.insert(name, (value, path.to_owned()));
    }

    /// A variable in capitals or not, and the file that sets it.
    pub(crate) fn variable(&self, name: &str) -> Option<&(String, String)> {
        let found = self.environment.get(name).or_else(|| self.environment.get(&name.to_ascii_lowercase()));
        found.filter(|(value, _)| !value.is_empty())
    }

    /// The values of a flag that may be given several times: `--name value`, `--name=value`.
    pub(crate) fn flag(&self, name: &str) -> Vec<String> {
        flag(&self.command, name)
    }
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

/// Words by white space, outside of quotation marks.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut is_word) = (Vec::new(), String::new(), None, false);
    for c in text.chars() {
        match (quote, c) {
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
mod tests {
    use super::*;

    #[test]
    fn words_are_between_spaces_and_in_quotation_marks() {
        for (text, expected) in
            [("", &[][..]), (" a  b ", &["a", "b"]), (r#""A=b c" 'd e'f "" g"#, &["A=b c", "d ef", "", "g"])]
        {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn variables_of_the_command_line_have_their_values_in_it() {
        let root = tempfile::tempdir().expect("a directory");
        let put = |path: &str, content: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("in a directory")).expect("made");
            std::fs::write(path, content).expect("written");
        };
        put("etc/default/docker", "#DOCKER_OPTS=\"-a\"\nDOCKER_OPTS=\"--registry-mirror=http://a --debug\"\n");
        let unit = "[Service]\nEnvironment=WHERE=/x\nEnvironmentFile=-/etc/default/docker\n\
                    ExecStart=/usr/sbin/dockerd -H fd:// --root=${WHERE}/y${NONE} $DOCKER_OPTS $NONE\n";
        put("usr/lib/systemd/system/docker.service", unit);
        let unit = Unit::read(&Host::new(root.path().to_owned()), "docker.service");
        let expected = ["/usr/sbin/dockerd", "-H", "fd://", "--root=/x/y", "--registry-mirror=http://a", "--debug"];
        assert_eq!(unit.command, expected);
        assert_eq!(unit.file_of("registry-mirror"), "/etc/default/docker");
        assert_eq!(unit.file_of("root"), "/usr/lib/systemd/system/docker.service");
    }

    #[test]
    fn a_flag_has_its_value_in_the_same_word_or_the_next() {
        let command =
            ["dockerd", "--registry-mirror", "a", "-H", "fd://", "--registry-mirror=b", "--registry-mirrors=c"];
        assert_eq!(flag(&command.map(str::to_owned), "registry-mirror"), ["a", "b"]);
        assert_eq!(flag(&command.map(str::to_owned), "H"), ["fd://"]);
    }
}
