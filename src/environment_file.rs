//! The files of variables that a unit of systemd names by `EnvironmentFile=`.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::Path;

use crate::file::{self, FileError};

/// Its name, in the directory of the proxy's configuration, as the package has it.
pub(crate) const BESIDE: &str = "environment";
/// The longest file of variables that is read; one line of it holds a secret.
const LONGEST: u64 = 1 << 20;
/// What stands for itself in a shell, beside letters and digits.
const PLAIN: &[u8] = b"_-.:/@%+,=~";

/// The variables that such a file gives to a service. They may be secrets.
#[derive(Default)]
pub(crate) struct Variables {
    all: Vec<(String, String)>,
    ignored: Vec<String>,
    suits_shell: bool,
}

impl Variables {
    /// Of this file; none, if there is no file. The error is one sentence.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let at = path.to_owned();
        let wrong = |cause: &dyn Display| format!("{}: {cause}", path.display());
        match file::at_start(move || file::read(&at, LONGEST)).and_then(|content| content) {
            Ok(content) => match std::str::from_utf8(&content) {
                Ok(text) => Ok(Self::parse(text)),
                Err(cause) => Err(wrong(&cause)),
            },
            Err(FileError::Io(cause)) if cause.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(cause) => Err(wrong(&cause)),
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        let all = parse(text).into_iter().filter(|(name, _)| is_name(name)).collect();
        Self { all, ignored: ignored(text), suits_shell: text.lines().all(suits_shell) }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.iter().any(|(known, _)| known == name)
    }

    /// What is meant as a variable and is none for systemd, a sentence each, without a value: it may be a secret.
    pub(crate) fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// The command that runs a program with the variables of the file at `path` where no unit does; both are of a shell.
    pub(crate) fn command(read: &Result<Self, String>, path: &str, program: &str) -> String {
        match read {
            Ok(variables) if variables.all.is_empty() => program.to_owned(),
            Ok(variables) if variables.suits_shell => {
                let script = format!("set -a; . {path}; exec {program}");
                format!("sh -c '{}'", script.replace('\'', r"'\''"))
            }
            _ => format!("{program}, with the variables of {path} in its environment"),
        }
    }
}

/// The lines that systemd passes over, as sentences.
fn ignored(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    let (mut sentences, mut others) = (Vec::new(), 0_usize);
    for line in lines {
        let name = line.split_once('=').map(|(name, _)| name.trim());
        match (name, name.and_then(|name| name.strip_prefix("export ")).map(str::trim)) {
            (Some(name), _) if is_name(name) => {}
            (_, Some(name)) if is_name(name) => {
                sentences.push(format!("systemd passes over `export {name}=`: write {name}= without export"));
            }
            _ => others += 1,
        }
    }
    if others > 0 {
        let lines = if others == 1 { "a line".to_owned() } else { format!("{others} lines") };
        sentences.push(format!("systemd passes over {lines} without a name and `=`: write NAME=value"));
    }
    sentences
}

/// Whether this can be the name of a variable.
fn is_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && text.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

/// Whether a shell reads a line as systemd does.
fn suits_shell(line: &str) -> bool {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return true;
    }
    let Some((name, value)) = line.split_once('=').filter(|(name, _)| is_name(name)) else { return false };
    let inside = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || PLAIN.contains(&byte));
    match (inside('\''), inside('"')) {
        (Some(single), _) => !single.contains('\''),
        (_, Some(double)) => is_plain(&double.replace(' ', "")),
        // A tilde at the beginning is a home directory.
        _ => is_plain(value) && !value.starts_with('~') && !value.contains(":~") && !name.is_empty(),
    }
}

/// The variables of such a text (systemd.exec(5)): a variable a line, values perhaps in quotes, a backslash at the end of a line goes on in the next.
pub(crate) fn parse(text: &str) -> Vec<(String, String)> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), unquoted(value.trim())))
        .filter(|(name, value)| !name.is_empty() && !name.contains('\0') && !value.contains('\0'))
        .collect()
}

fn unquoted(value: &str) -> String {
    let inside = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    if let Some(single) = inside('\'') {
        return single.to_owned();
    }
    let mut text = String::new();
    let mut characters = inside('"').unwrap_or(value).chars();
    while let Some(c) = characters.next() {
        text.extend(if c == '\\' { characters.next() } else { Some(c) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_systemd_reads_them() {
        let text = "# a comment\n; another\n\nA=1\n B = two words \nC='a \"b\" \\c'\nD=\"a 'b' \\\"c\\\" \\\\\"\nE=a\\ b\n\
                    F=one \\\ntwo\nno variable\n=nothing\nG=\nH=a=b\nI='\nJ=\"";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "a \"b\" \\c"),
            ("D", "a 'b' \"c\" \\"),
            ("E", "a b"),
            ("F", "one  two"),
            ("G", ""),
            ("H", "a=b"),
            ("I", "'"),
            ("J", "\""),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn what_systemd_passes_over_is_told_without_its_value() {
        for (text, expected) in [
            ("# export A=1\n; b\n\nA=1\n B = 2\n", &[][..]),
            ("export A=s3cret\n", &["systemd passes over `export A=`: write A= without export"]),
            ("A: s3cret=\n", &["systemd passes over a line without a name and `=`: write NAME=value"]),
            ("s3cret\n1A=s3cret\n", &["systemd passes over 2 lines without a name and `=`: write NAME=value"]),
        ] {
            assert_eq!(Variables::parse(text).ignored(), expected, "{text}");
        }
        assert!(!Variables::parse("export A=1\nB=2").has("export A"));
    }

    #[test]
    fn a_line_that_a_shell_reads_otherwise_is_known() {
        for (line, expected) in [
            ("", true),
            ("# a comment", true),
            ("A=1", true),
            ("A=a~b.C-d_e", true),
            ("A=http://user:p%40ss@proxy:3128", true),
            ("A='$x `y` \"z\"'", true),
            ("A=\"one two\"", true),
            ("; a comment", false),
            ("A = 1", false),
            ("A=one two", false),
            ("A=~x", false),
            ("A=$x", false),
            ("A=\"$x\"", false),
            ("A='a'b'", false),
            ("A=a\\", false),
            ("A=a;b", false),
            ("export A=1", false),
        ] {
            assert_eq!(suits_shell(line), expected, "{line}");
        }
    }

    #[test]
    fn a_program_is_run_with_the_variables_by_a_shell_that_reads_them_as_systemd_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("environment");
        for (text, program, expected) in [
            ("# none\n", "printenv A", ""),
            ("A='$x \"y\"'\n", "printenv A", "$x \"y\"\n"),
            ("A=1\n", "printf '%s\n' 'it'\\''s'", "it's\n"),
        ] {
            std::fs::write(&path, text).expect("written");
            let command = Variables::command(&Variables::read(&path), &path.display().to_string(), program);
            let shell = std::process::Command::new("sh").args(["-c", &command]).env_remove("A").output();
            assert_eq!(String::from_utf8_lossy(&shell.expect("it runs").stdout), expected, "{command}");
        }
        let command = |text: &str| Variables::command(&Ok(Variables::parse(text)), "/e", "program");
        assert_eq!(command("A=s$cret"), "program, with the variables of /e in its environment");
    }

    #[test]
    fn a_file_of_variables_that_is_a_fifo_or_endless_is_no_wait_without_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("environment");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("made");
        let read = |path: &Path| Variables::read(path).map(|read| read.all).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(
            Variables::read(&path)
                .is_err_and(|wrong| wrong.ends_with("environment: it is a FIFO: name a regular file"))
        );
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(read(&path), []);
        std::fs::write(&path, "A=1\n").expect("written");
        assert_eq!(read(&path), [("A".to_owned(), "1".to_owned())]);
        assert!(Variables::read(Path::new("/dev/zero")).is_err());
    }
}
