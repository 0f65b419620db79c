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
        let Assignments { assigned, others } = assignments(text);
        let (all, wrong): (Vec<_>, Vec<_>) = assigned.into_iter().partition(|one| is_name(&one.name));
        let swallowed = all.iter().filter_map(Assignment::swallowed);
        let ignored = swallowed.chain(ignored(&wrong, others)).collect();
        let all = all.into_iter().map(|Assignment { name, value, .. }| (name, value)).collect();
        Self { all, ignored, suits_shell: text.lines().all(suits_shell) }
    }

    /// These in place of its own: the unit may have them elsewhere as well.
    pub(crate) fn with<'a>(self, all: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        Self { all: all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(), ..self }
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

/// What a text has under a name.
struct Assignment {
    name: String,
    value: String,
    /// The line of its name, and that on which its value ends, from 1.
    lines: (usize, usize),
    /// A quotation mark of its value has no second one.
    is_open: bool,
}

/// What a text comes to.
#[derive(Default)]
struct Assignments {
    assigned: Vec<Assignment>,
    /// The lines that assign nothing and are no comments.
    others: Vec<usize>,
}

impl Assignment {
    /// That its value has the lines below it, a sentence without any of them.
    fn swallowed(&self) -> Option<String> {
        let Self { name, value, lines: (first, last), is_open } = self;
        // What base64 ends in is no assignment.
        let begins = |line: &str| {
            let (name, value) = line.split_once('=')?;
            Some(name.trim().to_owned()).filter(|name| is_name(name) && !value.trim_start_matches('=').is_empty())
        };
        let within: Vec<_> = value.lines().skip(1).filter_map(begins).collect();
        let within = within.join(" and ");
        match (within.is_empty(), is_open) {
            (true, false) => None,
            (true, true) => {
                Some(format!("the quotation mark that begins on line {first}, of {name}, is closed nowhere: close it"))
            }
            (false, _) => Some(format!(
                "the quotation mark that begins on line {first}, of {name}, is not closed there, so all up to line {last} is its value, and so is {within}: close it on line {first}"
            )),
        }
    }
}

/// What systemd passes over, as sentences: values with `wrong` names, and `others`, lines without a value.
fn ignored(wrong: &[Assignment], mut others: Vec<usize>) -> Vec<String> {
    let mut sentences = Vec::new();
    for Assignment { name, lines: (line, _), .. } in wrong {
        match name.strip_prefix("export ").map(str::trim).filter(|name| is_name(name)) {
            Some(name) => sentences.push(format!("systemd passes over `export {name}=`: write {name}= without export")),
            None => others.push(*line),
        }
    }
    others.sort_unstable();
    let numbers: Vec<_> = others.iter().map(ToString::to_string).collect();
    let numbers = numbers.join(" and ");
    let (lines, have) = if others.len() == 1 { ("line", "has") } else { ("lines", "have") };
    sentences.extend(
        (!others.is_empty())
            .then(|| format!("systemd passes over {lines} {numbers}, which {have} no name and `=`: write NAME=value")),
    );
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
    let assigned = assignments(text).assigned.into_iter().map(|one| (plain(one.name), one.value));
    assigned.filter(|(name, _)| is_name(name)).collect()
}

/// What such a text assigns, whatever the names are (systemd.exec(5)). Of a line that ends in a backslash the value goes on in the next one, and so
/// does a value in quotation marks.
fn assignments(text: &str) -> Assignments {
    let mut all = Assignments::default();
    let line_of = |rest: &str| 1 + text[..text.len() - rest.len()].matches('\n').count();
    let mut rest = text.trim_start_matches(BLANKS);
    while !rest.is_empty() {
        let line = rest.split(LINE_ENDS).next().unwrap_or_default();
        // A name has one character at least, which may be wrong.
        let name = line.char_indices().skip(1).find(|(_, c)| *c == '=').map(|(at, _)| at);
        let name = name.filter(|_| !line.starts_with(['#', ';']));
        let mut behind = rest[name.map_or(line.len(), |at| at + 1)..].chars();
        match name {
            Some(at) => {
                let (value, is_open) = value(&mut behind);
                let end = text.len() - behind.as_str().len();
                let last = 1 + text[..end].trim_end_matches(BLANKS).matches('\n').count();
                let lines = (line_of(rest), last);
                let name = line[..at].trim_end_matches(BLANKS).to_owned();
                // Neither a name nor a value has the end of a text.
                all.assigned.extend((!value.contains('\0')).then_some(Assignment { name, value, lines, is_open }));
            }
            None => all.others.extend((!line.starts_with(['#', ';'])).then(|| line_of(rest))),
        }
        rest = behind.as_str().trim_start_matches(BLANKS);
    }
    all
}

/// A value, and the end of its line; true if a quotation mark is open at the end of the text. Words in quotation marks follow each other
/// without the blanks between them; in a word without, a quotation mark stands for itself, and blanks at its end go.
fn value(characters: &mut Chars<'_>) -> (String, bool) {
    let (mut value, mut kept, mut is_word, mut is_open) = (String::new(), 0, false, false);
    while let Some(c) = characters.next() {
        match c {
            _ if LINE_ENDS.contains(&c) => break,
            '\\' => {
                is_word = true;
                value.extend(characters.next().filter(|c| !LINE_ENDS.contains(c)));
            }
            '\'' if !is_word => is_open = !take_single_quoted(characters, &mut value),
            '"' if !is_word => is_open = !take_double_quoted(characters, &mut value),
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
    (value, is_open)
}

/// Up to the second mark; false if there is none.
fn take_single_quoted(characters: &mut Chars<'_>, value: &mut String) -> bool {
    let rest = characters.as_str();
    match rest.split_once('\'') {
        Some((inside, behind)) => {
            value.push_str(inside);
            *characters = behind.chars();
            true
        }
        None => {
            value.extend(characters);
            false
        }
    }
}

/// The same. Between the marks a backslash stands for itself, but before what a shell would take for something else.
fn take_double_quoted(characters: &mut Chars<'_>, value: &mut String) -> bool {
    while let Some(c) = characters.next() {
        match c {
            '"' => return true,
            '\\' => match characters.next() {
                Some(escaped @ ('"' | '\\' | '`' | '$')) => value.push(escaped),
                Some('\n') | None => {}
                Some(other) => value.extend(['\\', other]),
            },
            c => value.push(c),
        }
    }
    false
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
            ("B=1\nA: s3cret=\n", &["systemd passes over line 2, which has no name and `=`: write NAME=value"]),
            (
                "s3cret\nB=1\n1A=s3cret\n",
                &["systemd passes over lines 1 and 3, which have no name and `=`: write NAME=value"],
            ),
            // What stood below was to be set as well.
            (
                "\nA=\"s3cret\nB=1\n# a comment\nC=2\n",
                &[
                    "the quotation mark that begins on line 2, of A, is not closed there, so all up to line 5 is its value, and so is B and C: close it on line 2",
                ],
            ),
            (
                "A='s3cret\nB='1'\nC=2\n",
                &[
                    "the quotation mark that begins on line 1, of A, is not closed there, so all up to line 2 is its value, and so is B: close it on line 1",
                ],
            ),
            ("B=1\nA='s3cret\n", &["the quotation mark that begins on line 2, of A, is closed nowhere: close it"]),
            ("A='-----BEGIN\nb==\n-----END' \\\n\nB=2\n", &[]),
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
