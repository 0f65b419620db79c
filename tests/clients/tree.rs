//! A newer Debian, whose docker is another one.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::home::Home;
use crate::namespace;
use crate::program::run;

/// A newer Debian with its container engines, as `scripts/install test` has unpacked it, mounted in a client's home.
/// Inside of it the home has the path that it has outside.
pub(crate) struct Tree<'a> {
    home: &'a Home,
    root: PathBuf,
}

impl<'a> Tree<'a> {
    /// Mounts that of a release, by its number or its name; the end of the home unmounts it.
    pub(crate) fn mount(home: &'a Home, release: impl Display) -> Self {
        namespace::assert_isolated();
        let name = format!("debian-{release}");
        let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        assert!(unpacked.join("complete").exists(), "{} is missing: run scripts/install test", unpacked.display());
        let root = home.path().join(name);
        mount("--bind", &unpacked.join("root"), &root);
        for directory in ["dev", "proc", "sys"] {
            mount("--rbind", &Path::new("/").join(directory), &root.join(directory));
        }
        for directory in ["tmp", "run", "var/lib", "var/tmp"] {
            mount("-t tmpfs", Path::new("tmpfs"), &root.join(directory));
        }
        mount("--bind", Path::new("/etc/hosts"), &root.join("etc/hosts"));
        mount("--bind", home.path(), &root.join(home.path().strip_prefix("/").expect("absolute")));
        Self { home, root }
    }

    /// That with the newest podman, which wants cgroups of version 2, whatever this machine has.
    pub(crate) fn newest(home: &'a Home) -> Self {
        let tree = Self::mount(home, "experimental");
        mount("-t cgroup2", Path::new("cgroup2"), &tree.root.join("sys/fs/cgroup"));
        tree
    }

    /// Puts a directory of this machine in the place of one of the tree's, which is absolute.
    pub(crate) fn bind(&self, source: &Path, target: &str) {
        mount("--bind", source, &self.root.join(target.trim_start_matches('/')));
    }

    /// A program of the tree's, with its words.
    pub(crate) fn program(&self, limit: Duration, words: &str) -> Command {
        self.home.client(limit, &format!("chroot {} {words}", self.root.display()))
    }
}

fn mount(kind: &str, source: &Path, target: &Path) {
    let directory = if source.is_file() { target.parent().expect("a file in it") } else { target };
    std::fs::create_dir_all(directory).expect("a directory to mount on");
    if source.is_file() && !target.exists() {
        std::fs::write(target, "").expect("a file to mount on");
    }
    run(Command::new("mount").args(kind.split(' ')).arg(source).arg(target));
}
