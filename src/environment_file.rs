//! The files of variables that a unit of systemd names by `EnvironmentFile=`.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::Path;
use std::str::Chars;

use crate::file::{self, FileError};

/// Its name, in the directory of the proxy's configuration, as the package has it.
pub(crate) const BESIDE: &str = "environment";
/// The longest file of variables that is read; one line of it holds a secret.
const LONGEST: u64 = 1 << 20;
/// Where a line ends.
const LINE_ENDS: [char; 2] = ['\n', '\r'];
/// What is nothing around a name or a value.
const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];
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
        let (assigned, others) = assignments(text);
        let (all, wrong): (Vec<_>, Vec<_>) = assigned.into_iter().partition(|(name, _)| is_name(name));
        Self { all, ignored: ignored(&wrong, others), suits_shell: text.lines().all(suits_shell) }
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

    /// The command that runs a program with the variables of the file at `path` where no unit does; all three are of a shell.
    pub(crate) fn command(read: &Result<Self, String>, path: &str, program: &str) -> String {
        match read {
            Ok(variables) if variables.all.is_empty() => program.to_owned(),
            Ok(variables) if variables.suits_shell => {
                let script = format!("set -a; . {path}; exec {program}");
                format!("sh -c '{}'", script.replace('\'', r"'\''"))
            }
            _ => format!("{program}  # with the variables of {path} in its environment"),
        }
    }
}

/// What systemd passes over, as sentences: values with `wrong` names, and `others`, lines without a value.
fn ignored(wrong: &[(String, String)], others: usize) -> Vec<String> {
    let exported =
        |name: &str| Some(name.strip_prefix("export ")?.trim()).filter(|name| is_name(name)).map(str::to_owned);
    let exported: Vec<_> = wrong.iter().filter_map(|(name, _)| exported(name)).collect();
    let others = others + wrong.len() - exported.len();
    let mut sentences: Vec<_> = exported
        .iter()
        .map(|name| format!("systemd passes over `export {name}=`: write {name}= without export"))
        .collect();
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

/// The variables that an init script takes from such a file, which a shell reads: there `export` may stand before a name.
pub(crate) fn of_script(text: &str) -> Vec<(String, String)> {
    let plain = |name: String| name.strip_prefix("export ").map(|name| name.trim().to_owned()).unwrap_or(name);
    let assigned = assignments(text).0.into_iter().map(|(name, value)| (plain(name), value));
    assigned.filter(|(name, _)| is_name(name)).collect()
}

/// What such a text assigns, whatever the names are, and how many lines assign nothing (systemd.exec(5)). Of a line that ends in a backslash
/// the value goes on in the next one, and so does a value in quotation marks.
fn assignments(text: &str) -> (Vec<(String, String)>, usize) {
    let (mut assigned, mut others) = (Vec::new(), 0);
    let mut rest = text.trim_start_matches(BLANKS);
    while !rest.is_empty() {
        let line = rest.split(LINE_ENDS).next().unwrap_or_default();
        // A name has one character at least, which may be wrong.
        let name = line.char_indices().skip(1).find(|(_, c)| *c == '=').map(|(at, _)| at);
        let name = name.filter(|_| !line.starts_with(['#', ';']));
        let mut behind = rest[name.map_or(line.len(), |at| at + 1)..].chars();
        match name {
            Some(at) => {
                let value = value(&mut behind);
                // Neither a name nor a value has the end of a text.
                assigned
                    .extend((!value.contains('\0')).then(|| (line[..at].trim_end_matches(BLANKS).to_owned(), value)));
            }
            None => others += usize::from(!line.starts_with(['#', ';'])),
        }
        rest = behind.as_str().trim_start_matches(BLANKS);
    }
    (assigned, others)
}

/// A value, and the end of its line. Words in quotation marks follow each other without the blanks between them; in a word without, a
/// quotation mark stands for itself, and blanks at its end go.
fn value(characters: &mut Chars<'_>) -> String {
    let (mut value, mut kept, mut is_word) = (String::new(), 0, false);
    while let Some(c) = characters.next() {
        match c {
            _ if LINE_ENDS.contains(&c) => break,
            '\\' => {
                is_word = true;
                value.extend(characters.next().filter(|c| !LINE_ENDS.contains(c)));
            }
            '\'' if !is_word => value.extend(characters.by_ref().take_while(|c| *c != '\'')),
            '"' if !is_word => take_double_quoted(characters, &mut value),
            ' ' | '\t' => {
                value.extend(is_word.then_some(c));
                continue;
            }
            c => {
                is_word = true;
                value.push(c);
            }
        }
        kept = value.len();
    }
    value.truncate(kept);
    value
}

/// Up to the second mark. Between them a backslash stands for itself, but before what a shell would take for something else.
fn take_double_quoted(characters: &mut Chars<'_>, value: &mut String) {
    while let Some(c) = characters.next() {
        match c {
            '"' => return,
            '\\' => match characters.next() {
                Some(escaped @ ('"' | '\\' | '`' | '$')) => value.push(escaped),
                Some('\n') | None => {}
                Some(other) => value.extend(['\\', other]),
            },
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A secret lost its backslash, and a long value got a blank where its lines meet.
    #[test]
    fn variables_are_read_as_systemd_reads_them() {
        let text = "# a comment\n; another\n\nA=1\n B = two words \nC='a \"b\" \\c'\nD=\"a 'b' \\\"c\\\" \\\\\"\nE=a\\ b\n\
                    F=one \\\ntwo\nno variable\n=nothing\nG=\nH=a=b\nI=it's \\ \nJ=\"C:\\d \\$x\"\nK='a\nb'\nL=\"a\\\nb\" 'c' d \n\
                    M=last'";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "a \"b\" \\c"),
            ("D", "a 'b' \"c\" \\"),
            ("E", "a b"),
            ("F", "one two"),
            ("G", ""),
            ("H", "a=b"),
            ("I", "it's  "),
            ("J", "C:\\d $x"),
            ("K", "a\nb"),
            ("L", "abcd"),
            ("M", "last'"),
        ];
        assert_eq!(Variables::parse(text).iter().collect::<Vec<_>>(), expected);
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
        assert_eq!(command("A=s$cret"), "program  # with the variables of /e in its environment");
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
