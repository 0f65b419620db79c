//! Where the parts of a report go: standard output, or files that are replaced in one step.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// One part of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output, in place of the table.
    Stdout,
    /// A file; an earlier report in it is replaced.
    File(PathBuf),
}

/// The parts that are written, and where.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// The report as JSON.
    pub json: Option<Output>,
    /// The plots.
    pub svg: Option<Output>,
    /// The HTML page.
    pub html: Option<Output>,
}

impl Outputs {
    /// Whether a part goes to standard output, so that the table is not printed.
    pub fn take_stdout(&self) -> bool {
        [&self.json, &self.svg, &self.html].into_iter().flatten().any(|output| *output == Output::Stdout)
    }

    /// The first two flags that name the same output, and that output.
    pub fn clash(&self) -> Option<(&'static str, &'static str, &Output)> {
        let all = [("--json", &self.json), ("--svg", &self.svg), ("--html", &self.html)];
        let given: Vec<_> = all.into_iter().filter_map(|(flag, output)| Some((flag, output.as_ref()?))).collect();
        given.iter().enumerate().find_map(|(index, (flag, output))| {
            let (earlier, _) = given[..index].iter().find(|(_, other)| other == output)?;
            Some((*flag, *earlier, *output))
        })
    }
}

impl Output {
    /// `-`, or a file. Tries whether the file can be written before a run that takes minutes.
    pub fn parse(path: &Path) -> Result<Self, String> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        let shown = path.display();
        let temporary = match Target::of(path) {
            Ok(Target::Special) => None,
            Ok(Target::File(file)) => Some(temporary(&file)),
            Err(cause) => return Err(format!("{shown}: {cause}")),
        };
        if let Some(temporary) = temporary {
            let tried = create(&temporary).and_then(|_| fs::remove_file(&temporary));
            tried.map_err(|cause| match (cause.kind(), temporary.parent()) {
                (ErrorKind::NotFound, Some(directory)) => {
                    format!("{shown}: there is no directory {}: make it first", directory.display())
                }
                (_, directory) => {
                    format!("{shown}: cannot write into {}: {cause}", directory.unwrap_or(path).display())
                }
            })?;
        }
        Ok(Self::File(path.to_owned()))
    }

    /// Writes the part; the error is one sentence. A file is written under another name and renamed, so that a failure keeps
    /// the earlier one.
    pub fn write(&self, text: &str) -> Result<(), String> {
        match self {
            Self::Stdout => print(text),
            Self::File(path) => put(path, text).map_err(|cause| format!("{}: {cause}", path.display())),
        }
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Prints to standard output. It is no error if the reader, such as `head`, has closed it.
pub(crate) fn print(text: &str) -> Result<(), String> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(cause) if cause.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|cause| format!("standard output: {cause}")),
    }
}

/// What a path names.
enum Target {
    /// A device or a pipe, such as `/dev/null` or a shell's `>(jq .)`: it is written to and never replaced.
    Special,
    /// The target of symbolic links, which stay.
    File(PathBuf),
}

impl Target {
    fn of(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Err(ErrorKind::IsADirectory.into()),
            Ok(found) if found.is_file() => path.canonicalize().map(Self::File),
            Ok(_) => Ok(Self::Special),
            Err(cause) if cause.kind() == ErrorKind::NotFound && path.file_name().is_some() => {
                Ok(Self::File(path.to_owned()))
            }
            Err(cause) => Err(cause),
        }
    }
}

/// A temporary name in the same directory, because only there a rename is atomic. No other process uses it.
fn temporary(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let directory = file.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    directory.join(format!(".{name}.{}.new", std::process::id()))
}

fn create(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    let file = match Target::of(path)? {
        Target::Special => return OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes()),
        Target::File(file) => file,
    };
    let temporary = temporary(&file);
    let mut new = create(&temporary)?;
    let written = new.write_all(text.as_bytes()).and_then(|()| new.sync_all());
    let put = written.and_then(|()| fs::rename(&temporary, &file));
    if put.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    put
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("a directory");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_report_replaces_an_earlier_one_and_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, link) = (directory.path().join("a.html"), directory.path().join("link"));
        std::os::unix::fs::symlink("a.html", &link).expect("a link");
        for (path, text) in [(&file, "one"), (&file, "two"), (&link, "three")] {
            let output = Output::parse(path).expect("a file");
            assert_eq!(output, Output::File(path.clone()));
            output.write(text).expect("written");
            assert_eq!(fs::read_to_string(&file).expect("there"), text);
            assert_eq!(names(directory.path()), ["a.html", "link"]);
        }
        assert!(link.is_symlink());
    }

    #[test]
    fn an_output_that_cannot_be_written_is_an_error_before_the_run() {
        let directory = tempfile::tempdir().expect("a directory");
        let missing = directory.path().join("none");
        for (path, says) in [
            (missing.join("a.html"), format!("there is no directory {}: make it first", missing.display())),
            (directory.path().to_owned(), "is a directory".to_owned()),
            (Path::new("/proc/a.html").to_owned(), "/proc/a.html: ".to_owned()),
        ] {
            let wrong = Output::parse(&path).expect_err("told");
            assert!(wrong.contains(&says), "{wrong}");
        }
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        let null = Path::new("/dev/null");
        Output::parse(null).expect("a device").write("text").expect("written");
        assert!(!fs::metadata(null).expect("there").is_file());
        assert_eq!(Output::parse(Path::new("-")), Ok(Output::Stdout));
    }

    #[test]
    fn two_parts_do_not_go_to_one_output() {
        let outputs = |json: &str, html: &str| Outputs {
            json: Some(Output::File(json.into())),
            svg: None,
            html: Some(Output::File(html.into())),
        };
        assert!(outputs("a", "b").clash().is_none());
        assert_eq!(outputs("a", "a").clash().map(|(flag, earlier, _)| (flag, earlier)), Some(("--html", "--json")));
    }
}
