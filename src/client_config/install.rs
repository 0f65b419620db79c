//! Files into a tree, in one step each, and never over a file of somebody else.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use super::{File, Language, MARKER};

const DIRECTORY_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;
/// No file from here is nearly as long.
const LONGEST: u64 = 1 << 20;
/// The marker stands below an interpreter's line, or below the path if the file was pasted.
const MARKER_WITHIN_LINES: usize = 2;

/// What has become of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is new, or an earlier one from here was replaced.
    Written,
    /// It says so already.
    Unchanged,
    /// It is not from here; the words follow its path in a sentence.
    Left(String),
}

/// What is there already.
enum Found {
    Nothing,
    Ours,
    TheSame,
    Foreign(&'static str),
}

/// Puts one file below `root`, which has to exist; directories on the way are made. The path is the one that was used.
/// No symbolic link is followed out of `root`. The error is one sentence.
pub(crate) fn install(root: &Path, file: &File) -> Result<(PathBuf, Outcome), String> {
    let root = root.canonicalize().map_err(|cause| failed(root, &cause))?;
    let relative = file.path().trim_start_matches('/');
    let (directories, name) = relative.rsplit_once('/').unwrap_or(("", relative));
    let directory = match directory(&root, Path::new(directories))? {
        Ok(directory) => directory,
        Err(link) => {
            let why = format!("is behind {}, a link out of {},", link.display(), root.display());
            return Ok((root.join(relative), Outcome::Left(why)));
        }
    };
    let path = directory.join(name);
    let step = match look(&path, file).map_err(|cause| failed(&path, &cause))? {
        Found::TheSame => return Ok((path, Outcome::Unchanged)),
        Found::Foreign(why) => return Ok((path, Outcome::Left(why.to_owned()))),
        Found::Nothing => appear,
        Found::Ours => replace,
    };
    // Of this process only, so that two of them do not write into one file.
    let new = directory.join(format!(".{name}.{}.new", std::process::id()));
    let outcome = write(&new, &file.content).and_then(|()| step(&new, &path));
    // Gone, if it was renamed; and the first error is the one to tell.
    let _ = fs::remove_file(&new);
    let outcome = outcome.map_err(|cause| failed(&path, &cause))?;
    Ok((path, outcome))
}

/// The directory, made where it is missing; or the link that leads out of the root.
pub(crate) fn directory(root: &Path, relative: &Path) -> Result<Result<PathBuf, PathBuf>, String> {
    let mut at = root.to_owned();
    for component in relative.components() {
        // Paths from here have no others.
        let Component::Normal(name) = component else { continue };
        at.push(name);
        let step = match fs::symlink_metadata(&at) {
            Ok(found) if found.is_symlink() => at.canonicalize().map(Some),
            Ok(_) => Ok(None),
            Err(cause) if cause.kind() == ErrorKind::NotFound => make(&at).map(|()| None),
            Err(cause) => Err(cause),
        };
        if let Some(target) = step.map_err(|cause| failed(&at, &cause))? {
            if !target.starts_with(root) {
                return Ok(Err(at));
            }
            at = target;
        }
    }
    Ok(Ok(at))
}

fn make(directory: &Path) -> io::Result<()> {
    DirBuilder::new().mode(DIRECTORY_MODE).create(directory)?;
    // Again, for the mask of this process may have taken from it what clients need to read it.
    fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE))
}

fn look(path: &Path, file: &File) -> io::Result<Found> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(cause) => return Err(cause),
    };
    if found.is_symlink() {
        return Ok(Found::Foreign("is a symbolic link"));
    }
    let foreign = Found::Foreign("was not written from here");
    if !found.is_file() || found.len() > LONGEST {
        return Ok(foreign);
    }
    let content = fs::read(path)?;
    if content == file.content.as_bytes() {
        return Ok(Found::TheSame);
    }
    Ok(match file.language {
        Language::Json if says(&content, &file.content) => Found::TheSame,
        Language::Commented | Language::Shell if is_ours(&content) => Found::Ours,
        _ => foreign,
    })
}

/// Whether there is a file that carries the marker. A symbolic link is none, wherever it leads.
pub(crate) fn carries_marker(path: &Path) -> io::Result<bool> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(false),
        Err(cause) => return Err(cause),
    };
    Ok(found.is_file() && found.len() <= LONGEST && is_ours(&fs::read(path)?))
}

fn is_ours(content: &[u8]) -> bool {
    content.split(|byte| *byte == b'\n').take(MARKER_WITHIN_LINES).any(|line| line.starts_with(MARKER.as_bytes()))
}

/// Whether a JSON object has all that is wanted among its own, so that there is nothing to merge.
fn says(content: &[u8], wanted: &str) -> bool {
    let object = |bytes| serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(bytes);
    let (Ok(has), Ok(wanted)) = (object(content), object(wanted.as_bytes())) else {
        return false;
    };
    wanted.iter().all(|(key, value)| has.get(key) == Some(value))
}

fn write(new: &Path, content: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(new)?;
    file.write_all(content.as_bytes())?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    file.sync_all()
}

/// Whoever reads `path` meanwhile sees the old content or the new one.
fn replace(new: &Path, path: &Path) -> io::Result<Outcome> {
    fs::rename(new, path).map(|()| Outcome::Written)
}

/// A link is never made over a file, so one that has come since it was looked for stays.
fn appear(new: &Path, path: &Path) -> io::Result<Outcome> {
    match fs::hard_link(new, path) {
        Ok(()) => Ok(Outcome::Written),
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists => Ok(Outcome::Left("has just come".to_owned())),
        Err(cause) => Err(cause),
    }
}

/// An error in one sentence.
pub(crate) fn failed(path: &Path, cause: &io::Error) -> String {
    format!("{}: {cause}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const PATH: &str = "/etc/client/a.d/hosts.toml";

    fn json(content: &str) -> File {
        File {
            path: "/etc/docker/daemon.json".to_owned(),
            content: content.to_owned(),
            language: Language::Json,
            held: false,
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
    }

    /// What has become of it, without the path.
    fn outcome(root: &Path, file: &File) -> Outcome {
        install(root, file).expect("no error").1
    }

    #[test]
    fn a_file_is_made_with_its_directories_left_if_it_is_the_same_and_replaced_if_it_is_an_older_one() {
        let root = tempfile::tempdir().expect("a directory");
        let (old, new) = (File::commented(PATH, "a = 1\n"), File::commented(PATH, "a = 2\n"));
        let path = root.path().canonicalize().expect("it is there").join(&PATH[1..]);
        assert_eq!(install(root.path(), &old), Ok((path.clone(), Outcome::Written)));
        assert_eq!((mode(&path), mode(path.parent().expect("a parent"))), (0o644, 0o755));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("it is ours");
        assert_eq!(outcome(root.path(), &old), Outcome::Unchanged);
        assert_eq!(outcome(root.path(), &new), Outcome::Written);
        assert_eq!(fs::read_to_string(&path).expect("it is there"), new.content);
        assert_eq!(mode(&path), 0o644);
        let all = fs::read_dir(path.parent().expect("a parent")).expect("it is there").count();
        assert_eq!(all, 1, "nothing is left behind");
    }

    #[test]
    fn a_file_of_somebody_else_is_left() {
        let long = vec![b'#'; usize::try_from(LONGEST).expect("small") + 1];
        for (content, left) in [
            (&b"server = \"https://ghcr.io\"\n"[..], true),
            (b"", true),
            (b"\xff\xfe", true),
            (&long, true),
            (b"\n\n# Written by acr-cache-proxy client-config\n", true),
            (b"# Written by acr-cache-proxy client-config, once\n", false),
            (b"# /etc/client/a.d/hosts.toml\n# Written by acr-cache-proxy client-config\n", false),
        ] {
            let root = tempfile::tempdir().expect("a directory");
            let path = root.path().join(&PATH[1..]);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(&path, content).expect("written");
            let outcome = outcome(root.path(), &File::commented(PATH, "a = 1\n"));
            assert_eq!(matches!(outcome, Outcome::Left(_)), left, "{outcome:?}");
            assert_eq!(fs::read(&path).expect("it is there") == content, left);
        }
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(root.path().join(&PATH[1..])).expect("made");
        assert!(matches!(outcome(root.path(), &File::commented(PATH, "a = 1\n")), Outcome::Left(_)), "a directory");
    }

    #[test]
    fn a_file_that_came_since_it_was_looked_for_is_left() {
        let root = tempfile::tempdir().expect("a directory");
        let (new, path) = (root.path().join("new"), root.path().join("hosts.toml"));
        write(&new, "ours").expect("written");
        fs::write(&path, "somebody else's").expect("written");
        assert_eq!(appear(&new, &path).ok(), Some(Outcome::Left("has just come".to_owned())));
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "somebody else's");
        fs::remove_file(&path).expect("removed");
        symlink("/nonexistent", &path).expect("linked");
        assert_eq!(appear(&new, &path).ok(), Some(Outcome::Left("has just come".to_owned())));
    }

    #[test]
    fn json_is_compared_by_what_it_says() {
        let wanted = json("{\n  \"registry-mirrors\": [\"http://127.0.0.1:8080\"]\n}\n");
        for (content, same) in [
            (r#"{"registry-mirrors":["http://127.0.0.1:8080"]}"#, true),
            (r#"{"debug":true,"registry-mirrors":["http://127.0.0.1:8080"]}"#, true),
            (r#"{"registry-mirrors":["http://127.0.0.1:8081"]}"#, false),
            (r#"{"registry-mirrors":["http://other","http://127.0.0.1:8080"]}"#, false),
            (r#"{"debug":true}"#, false),
            ("{}", false),
            ("[]", false),
            ("", false),
        ] {
            let root = tempfile::tempdir().expect("a directory");
            let path = root.path().join("etc/docker/daemon.json");
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(&path, content).expect("written");
            assert_eq!(outcome(root.path(), &wanted) == Outcome::Unchanged, same, "{content}");
            assert_eq!(fs::read_to_string(&path).expect("it is there"), content, "never touched");
        }
    }

    #[test]
    fn a_link_is_followed_inside_the_root_only_and_never_as_the_file_itself() {
        let outside = tempfile::tempdir().expect("a directory");
        let root = tempfile::tempdir().expect("a directory");
        let file = File::commented(PATH, "a = 1\n");
        fs::create_dir_all(root.path().join("etc")).expect("made");
        symlink(outside.path(), root.path().join("etc/client")).expect("linked");
        let Outcome::Left(why) = outcome(root.path(), &file) else { panic!("it was followed") };
        assert!(why.contains("etc/client, a link out of "), "{why}");
        assert_eq!(fs::read_dir(outside.path()).expect("it is there").count(), 0);

        fs::remove_file(root.path().join("etc/client")).expect("removed");
        fs::create_dir(root.path().join("data")).expect("made");
        symlink("../data", root.path().join("etc/client")).expect("linked");
        assert_eq!(outcome(root.path(), &file), Outcome::Written);
        let path = root.path().join("data/a.d/hosts.toml");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), file.content);

        let target = outside.path().join("hosts.toml");
        fs::rename(&path, &target).expect("moved");
        symlink(&target, &path).expect("linked");
        assert_eq!(outcome(root.path(), &file), Outcome::Left("is a symbolic link".to_owned()));
        fs::remove_file(&target).expect("removed");
        assert_eq!(outcome(root.path(), &file), Outcome::Left("is a symbolic link".to_owned()));
    }

    #[test]
    fn what_cannot_be_written_is_one_sentence() {
        let root = tempfile::tempdir().expect("a directory");
        let missing = root.path().join("missing");
        let said = install(&missing, &File::commented(PATH, "")).expect_err("no such root");
        assert!(said.starts_with(&format!("{}: ", missing.display())), "{said}");
        fs::write(root.path().join("etc"), "a file").expect("written");
        let said = install(root.path(), &File::commented(PATH, "")).expect_err("no directory");
        assert!(said.contains("etc/client: "), "{said}");
    }
}
