use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::home::Home;
use crate::namespace;
use crate::program::run;

/// Debian 13 with its docker, as `scripts/install test` has unpacked it, mounted in a client's home. Inside of it the
/// home has the path that it has outside.
pub struct Tree<'a> {
    home: &'a Home,
    root: PathBuf,
}

impl<'a> Tree<'a> {
    /// Mounts it; the end of the home unmounts it.
    pub fn mount(home: &'a Home) -> Self {
        namespace::assert_isolated();
        let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian-13");
        assert!(unpacked.join("complete").exists(), "{} is missing: run scripts/install test", unpacked.display());
        let root = home.path().join("debian-13");
        let mount = |kind: &str, source: &Path, target: &Path| {
            let directory = if source.is_file() { target.parent().expect("a file in it") } else { target };
            std::fs::create_dir_all(directory).expect("a directory to mount on");
            if source.is_file() && !target.exists() {
                std::fs::write(target, "").expect("a file to mount on");
            }
            run(Command::new("mount").args(kind.split(' ')).arg(source).arg(target));
        };
        mount("--bind", &unpacked.join("root"), &root);
        for directory in ["dev", "proc", "sys"] {
            mount("--rbind", &Path::new("/").join(directory), &root.join(directory));
        }
        for directory in ["tmp", "run", "var/lib"] {
            mount("-t tmpfs", Path::new("tmpfs"), &root.join(directory));
        }
        mount("--bind", Path::new("/etc/hosts"), &root.join("etc/hosts"));
        mount("--bind", home.path(), &root.join(home.path().strip_prefix("/").expect("absolute")));
        Self { home, root }
    }

    /// A program of the tree's, with its words.
    pub fn program(&self, limit: Duration, words: &str) -> Command {
        self.home.client(limit, &format!("chroot {} {words}", self.root.display()))
    }
}
