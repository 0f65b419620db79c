//! With which settings this program's own service is started, where those are not what a command goes by.

use std::fs;
use std::path::PathBuf;

use super::Unit;
use super::lines::of_service;
use crate::host::{self, Host};
use crate::installed::OWN_UNIT;

/// The program, as the last part of its path.
const PROGRAM: &str = "acr-cache-proxy";

/// Settings of the service that a command does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Other {
    /// The file that has `ExecStart=`.
    pub file: String,
    /// The flags of the service, as they are written.
    pub flags: String,
    /// `ExecStart=` says by now what the command goes by; the process that runs was started before.
    pub is_former: bool,
}

/// Those of the process that runs, else of `ExecStart=`. `file` is that of the command's settings, `given` its flags of settings. `None` also
/// where nobody knows.
pub(crate) fn other(host: &Host, file: Option<&str>, given: &[(&str, String)]) -> Option<Other> {
    let unit = Unit::read(host, OWN_UNIT);
    let process = if host.is_this() { host::command_of(OWN_UNIT, PROGRAM) } else { None };
    of(&unit, process.as_deref(), file, given)
}

impl Unit {
    /// What its files set a key of `[Service]` to, the one that counts most last; an empty one takes back what came before.
    pub(crate) fn values(&self, key: &str) -> Vec<String> {
        let mut values = Vec::new();
        let all = self.texts.iter().flat_map(|(_, content)| of_service(content));
        for (_, value) in all.filter(|(known, _)| known == key) {
            if value.is_empty() {
                values.clear();
            } else {
                values.push(value);
            }
        }
        values
    }
}

fn of(unit: &Unit, process: Option<&[String]>, file: Option<&str>, given: &[(&str, String)]) -> Option<Other> {
    let is_same = |command: &[String]| flags(command).as_deref() == Some(&wanted(file, given));
    let written = Some(unit.command.as_slice()).filter(|command| !command.is_empty() && unit.unknown.is_empty());
    let command = process.or(written)?;
    let is_former = written.is_some_and(is_same);
    // What it is told beside settings, such as how to log, counts as well: a word too much is better than none.
    (!is_same(command)).then(|| Other {
        file: unit.file_of("config"),
        flags: command.get(1..).unwrap_or_default().join(" "),
        is_former,
    })
}

/// The flags of a command line in their order by name, of which a file counts as what it is and not as it is written. `None` for one of
/// another kind.
fn flags(command: &[String]) -> Option<Vec<(String, String)>> {
    let mut words = command.get(1..)?.iter();
    let mut flags = Vec::new();
    while let Some(word) = words.next() {
        let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
        flags.push(match name.split_once('=') {
            Some((name, value)) => flag(name, value),
            None => flag(name, words.next().map_or("", String::as_str)),
        });
    }
    flags.sort_unstable();
    Some(flags)
}

fn wanted(file: Option<&str>, given: &[(&str, String)]) -> Vec<(String, String)> {
    let file = file.map(|file| flag("config", file));
    let mut flags: Vec<_> = file.into_iter().chain(given.iter().map(|(name, value)| flag(name, value))).collect();
    flags.sort_unstable();
    flags
}

fn flag(name: &str, value: &str) -> (String, String) {
    let real = || fs::canonicalize(value).unwrap_or_else(|_| PathBuf::from(value)).display().to_string();
    (name.to_owned(), if name == "config" { real() } else { value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_value_takes_back_what_came_before() {
        let main = "[Unit]\nGroup=no\n[Service]\nDynamicUser=yes\nGroup = a\n#Group=b\n";
        for (texts, expected) in [
            (&[main][..], &["a"][..]),
            (&[main, "[Service]\nGroup=c\n"], &["a", "c"]),
            (&[main, "[Service]\nGroup=\nGroup=c\n"], &["c"]),
            (&[main, "[Service]\nGroup=\n"], &[]),
            // A file begins in no section.
            (&[main, "Group=c\n"], &["a"]),
        ] {
            let texts: Vec<_> = texts.iter().map(|text| (String::new(), (*text).to_owned())).collect();
            assert_eq!(Unit { texts, ..Unit::default() }.values("Group"), expected);
        }
    }

    /// The service "has earlier settings", and the command that was to put that right changed nothing.
    #[test]
    fn a_service_with_other_settings_was_told_to_read_them_again() {
        const FILE: &str = "/etc/acr-cache-proxy/config.yaml";
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let packaged = &format!("/usr/bin/acr-cache-proxy --config {FILE}");
        let other_file = "/usr/bin/acr-cache-proxy --config /srv/other.yaml";
        let with_flag = &format!("{packaged} --listen-address 127.0.0.1:8090");
        let listen = [("listen-address", "127.0.0.1:8090".to_owned())];
        for (unit, process, given, flags, is_former) in [
            (packaged.as_str(), None, &[][..], None, false),
            (packaged, Some(packaged.as_str()), &[], None, false),
            (&format!("acr-cache-proxy --config={FILE}"), None, &[], None, false),
            (other_file, Some(other_file), &[], Some("--config /srv/other.yaml"), false),
            (other_file, None, &[], Some("--config /srv/other.yaml"), false),
            // The unit was edited, and not restarted.
            (packaged, Some(other_file), &[], Some("--config /srv/other.yaml"), true),
            (with_flag, None, &[], Some(&with_flag[25..]), false),
            (with_flag, None, &listen, None, false),
            ("", None, &[], None, false),
        ] {
            let unit =
                Unit { command: words(unit).into_iter().filter(|word| !word.is_empty()).collect(), ..Unit::default() };
            let found = of(&unit, process.map(words).as_deref(), Some(FILE), given);
            let found = found.map(|other| (other.flags, other.is_former));
            assert_eq!(found, flags.map(|flags| (flags.to_owned(), is_former)), "{unit:?} {process:?}");
        }
    }
}
