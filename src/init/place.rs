//! The configuration in its place: what stands there, and another in its stead, in one step.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::CONFIG;
use crate::admin::ways::Ways;
use crate::config::{Config, Flags, SAMPLE};
use crate::directory::{Astray, Directory, Missing, Place};
use crate::replace::swap;

/// The proxy reads no longer one.
const LONGEST: u64 = 1 << 20;

/// What stands where the configuration goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Before {
    Nothing,
    /// As the package has it.
    Sample,
    /// Somebody's.
    Edited(String),
    /// It cannot be replaced, nor read perhaps; the words follow its path in a sentence.
    Unusable(String),
}

impl Before {
    /// What is there below the root, without following a link to it.
    pub(super) fn look(root: &Path) -> Self {
        match Directory::open(root).and_then(|root| root.place(Path::new(CONFIG), Missing::Tell)) {
            Ok(place) => Self::at(&place),
            Err(Astray::Missing(_)) => Self::Nothing,
            Err(Astray::Link(why)) => Self::Unusable(why),
            Err(Astray::Failed(_, cause)) => Self::Unusable(format!("cannot be read: {cause}")),
        }
    }

    fn at(place: &Place) -> Self {
        let content = match place.read(LONGEST) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Self::Nothing,
            Err(cause) => return Self::Unusable(format!("cannot be read: {cause}")),
            Ok(_) if place.is_linked => {
                return Self::Unusable(format!(
                    "is a symbolic link: edit {}, to which it leads",
                    place.path().display()
                ));
            }
            Ok(content) => content,
        };
        match content.map(String::from_utf8) {
            Err(unfit) => Self::Unusable(unfit.to_string()),
            Ok(Err(_)) => Self::Unusable("is not UTF-8".to_owned()),
            Ok(Ok(text)) if text == SAMPLE => Self::Sample,
            Ok(Ok(text)) => Self::Edited(text),
        }
    }

    /// What somebody's says, if nothing is wrong with it.
    pub(super) fn config(&self) -> Option<Config> {
        let Self::Edited(text) = self else { return None };
        Config::load(&Flags::default().with_text(Path::new(""), text)).ok()
    }

    /// The text, if there is one.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Nothing | Self::Unusable(_) => "",
            Self::Sample => SAMPLE,
            Self::Edited(text) => text,
        }
    }
}

/// Which way a configuration leads, a line for each route, or what is wrong with it.
pub(super) fn about(path: &Path, text: &str) -> String {
    match Config::load(&Flags::default().with_text(path, text)) {
        Ok(config) => Ways::of(config.routes()).lines().map(|way| format!("  {way}\n")).collect(),
        Err(mistakes) => mistakes.to_string().lines().map(|line| format!("  {line}\n")).collect(),
    }
}

/// Puts the text there in place of what stands there, which has to be what was looked at before. Returns where a copy of it is,
/// unless it was the package's. The error is one sentence, after which everything is as before.
pub(super) fn put(root: &Path, text: &str, before: &Before) -> Result<Option<PathBuf>, String> {
    let path = root.join(CONFIG);
    let place = Directory::open(root).and_then(|root| root.place(Path::new(CONFIG), Missing::Make));
    let place = place.map_err(|astray| astray.sentence(&path))?;
    let changed = || io::Error::other("it has changed since it was shown, and is left as it is: run init again");
    let unchanged = || if Before::at(&place) == *before { Ok(()) } else { Err(changed()) };
    let ending = matches!(before, Before::Edited(_)).then_some("old");
    swap(&place, text, ending, unchanged).map_err(|cause| format!("{}: {cause}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    fn names(directory: &Path) -> Vec<String> {
        let all = fs::read_dir(directory).expect("a directory");
        let mut names: Vec<_> =
            all.map(|entry| entry.expect("read").file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_file_is_new_or_replaces_the_one_that_was_shown_and_what_was_edited_is_kept() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join("etc/acr-cache-proxy");
        let path = directory.join("config.yaml");
        assert_eq!(Before::look(root.path()), Before::Nothing);
        assert_eq!(put(root.path(), "a: 1\n", &Before::Nothing), Ok(None));
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o777, 0o644);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("set");
        for (text, copy) in [("a: 2\n", "config.yaml.old"), ("a: 3\n", "config.yaml.old.2")] {
            let before = Before::look(root.path());
            assert_eq!(put(root.path(), text, &before), Ok(Some(directory.join(copy))));
            assert_eq!(fs::read_to_string(directory.join(copy)).expect("a copy"), before.text());
            assert_eq!(fs::read_to_string(&path).expect("it is there"), text);
            assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o777, 0o640, "its mode stays");
        }
        assert_eq!(names(&directory), ["config.yaml", "config.yaml.old", "config.yaml.old.2"]);

        fs::write(&path, SAMPLE).expect("written");
        assert_eq!(Before::look(root.path()), Before::Sample);
        assert_eq!(put(root.path(), "a: 4\n", &Before::Sample), Ok(None), "the package's is in the package");
    }

    #[test]
    fn what_is_not_what_was_shown_is_left() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join(CONFIG);
        let directory = path.parent().expect("a parent");
        fs::create_dir_all(directory).expect("made");
        fs::write(&path, "theirs\n").expect("written");
        for before in [Before::Nothing, Before::Sample, Before::Edited("shown\n".to_owned())] {
            let said = put(root.path(), "ours\n", &before).expect_err("it has changed");
            assert!(said.contains("config.yaml: it has changed since it was shown"), "{said}");
            assert_eq!(
                (fs::read_to_string(&path).expect("there").as_str(), names(directory)),
                ("theirs\n", vec!["config.yaml".to_owned()])
            );
        }
        fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink("/nonexistent", &path).expect("linked");
        assert!(matches!(Before::look(root.path()), Before::Unusable(why) if why.contains("symbolic link")));
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("made");
        assert!(matches!(Before::look(root.path()), Before::Unusable(why) if why.contains("is a directory")));
        fs::remove_dir(&path).expect("removed");
        fs::write(&path, vec![b'#'; usize::try_from(LONGEST).expect("small") + 1]).expect("written");
        assert!(matches!(Before::look(root.path()), Before::Unusable(why) if why.contains("is longer than")));
    }
}
