//! Files into a tree, in one step each, and never over a file of somebody else.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::amend::amend;
use super::look::{Found, Look, failed, open};
use super::untouched::Untouched;
use super::{File, Language};
use crate::directory::{Astray, Missing, Place};
use crate::replace;

/// What has become of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is new, or an earlier one from here was replaced.
    Written,
    /// It says so already.
    Unchanged,
    /// It is somebody else's and has what it lacked; the file from before is there.
    Merged(PathBuf),
    /// It is not from here.
    Left(Untouched),
}

/// Puts one file below `root`, where `look` has been; directories on the way are made. `merge` adds what a file of somebody
/// else lacks. The error is one sentence.
pub(crate) fn install(root: &Path, file: &File, look: &Look, merge: bool) -> Result<Outcome, String> {
    match &look.found {
        Found::Same(_) | Found::Leftover(..) => return Ok(Outcome::Unchanged),
        Found::Untouched(why) => return Ok(Outcome::Left(why.clone())),
        Found::Excluded(why) => return Ok(Outcome::Left(why.clone().into())),
        Found::Lacks(..) if !merge => return Ok(Outcome::Left(unknown(file).into())),
        Found::Lacks(..) | Found::Nothing | Found::Older(_) => {}
    }
    let place = match open(root)?.place(file.below_root(), Missing::Make) {
        Ok(place) => place,
        Err(Astray::Link(why)) => return Ok(Outcome::Left(why.into())),
        Err(astray) => return Err(astray.sentence(&look.at)),
    };
    if place.path() != look.at {
        return Ok(Outcome::Left(format!("has just come to be {}", place.path().display()).into()));
    }
    let step = match &look.found {
        Found::Lacks(old, merged) => return amend(&place, old, &merged.text).map(Outcome::Merged),
        Found::Older(_) => succeed,
        _ => appear,
    };
    let outcome = replace::put(&place, &file.content, None, |new| step(new, &place));
    outcome.map_err(|cause| failed(&look.at, &cause))
}

/// Why it is not replaced; a clause about it.
fn unknown(file: &File) -> &'static str {
    match file.language {
        Language::Json => "was not written from here, or for another address: JSON has no comment that would tell",
        _ => "was not written from here",
    }
}

/// Whoever reads the file meanwhile sees the old content or the new one.
fn succeed(new: &OsStr, place: &Place) -> io::Result<Outcome> {
    place.directory.rename(new, &place.name).map(|()| Outcome::Written)
}

/// A link is never made over a file, so one that has come since it was looked for stays.
fn appear(new: &OsStr, place: &Place) -> io::Result<Outcome> {
    match place.directory.link(new, &place.name) {
        Ok(()) => Ok(Outcome::Written),
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists => Ok(Outcome::Left("has just come".into())),
        Err(cause) => Err(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::super::look::{LONGEST, look};
    use super::super::merge::Addition;
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    const PATH: &str = "/etc/client/a.d/hosts.toml";

    fn json(content: &str) -> File {
        File {
            path: "/etc/docker/daemon.json".to_owned(),
            content: content.to_owned(),
            language: Language::Json,
            held: false,
            addition: Some(Addition::DaemonJson("http://127.0.0.1:8080".to_owned())),
            wanted: None,
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
    }

    fn put(root: &Path, file: &File) -> Result<(PathBuf, Outcome), String> {
        let look = look(root, file, None)?;
        install(root, file, &look, false).map(|outcome| (look.at, outcome))
    }

    /// What has become of it, without the path.
    fn outcome(root: &Path, file: &File) -> Outcome {
        put(root, file).expect("no error").1
    }

    #[test]
    fn a_file_is_made_with_its_directories_left_if_it_is_the_same_and_replaced_if_it_is_an_older_one() {
        let root = tempfile::tempdir().expect("a directory");
        let (old, new) = (File::commented(PATH, "a = 1\n"), File::commented(PATH, "a = 2\n"));
        let path = root.path().canonicalize().expect("it is there").join(&PATH[1..]);
        assert_eq!(put(root.path(), &old), Ok((path.clone(), Outcome::Written)));
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
        let path = root.path().join("hosts.toml");
        let tree = open(root.path()).expect("it is there");
        let place = tree.place("hosts.toml".as_ref(), Missing::Tell).expect("no link");
        let put = || replace::put(&place, "ours", None, |new| appear(new, &place));
        fs::write(&path, "somebody else's").expect("written");
        assert_eq!(put().ok(), Some(Outcome::Left("has just come".into())));
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "somebody else's");
        fs::remove_file(&path).expect("removed");
        symlink("/nonexistent", &path).expect("linked");
        assert_eq!(put().ok(), Some(Outcome::Left("has just come".into())));
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
        assert!(why.to_string().contains("etc/client, a link out of "), "{why}");
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
        let Outcome::Left(why) = outcome(root.path(), &file) else { panic!("it was followed") };
        assert!(why.to_string().starts_with("is a symbolic link out of "), "{why}");
        fs::remove_file(&target).expect("removed");
        let Outcome::Left(why) = outcome(root.path(), &file) else { panic!("it was followed") };
        assert!(why.to_string().starts_with("is a symbolic link out of "), "{why}");
        fs::remove_file(&path).expect("removed");
        symlink("nowhere", &path).expect("linked");
        let Outcome::Left(why) = outcome(root.path(), &file) else { panic!("it was followed") };
        assert_eq!(why, "is a symbolic link that leads nowhere".into());
    }

    #[test]
    fn what_cannot_be_written_is_one_sentence() {
        let root = tempfile::tempdir().expect("a directory");
        let missing = root.path().join("missing");
        let said = put(&missing, &File::commented(PATH, "")).expect_err("no such root");
        assert!(said.starts_with(&format!("{}: ", missing.display())), "{said}");
        fs::write(root.path().join("etc"), "a file").expect("written");
        let said = put(root.path(), &File::commented(PATH, "")).expect_err("no directory");
        assert!(said.ends_with("/etc: not a directory"), "{said}");
    }
}
