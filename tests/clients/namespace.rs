//! What keeps these tests from the machine's own network and files.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::run;

/// Panics where a client could reach a network.
pub(crate) fn assert_isolated() {
    let routes = |file| std::fs::read_to_string(Path::new("/proc/self/net").join(file)).unwrap_or_default();
    // The kernel's own routes of lo are not in the first list, and are in the second one.
    let ipv4 = routes("route").lines().skip(1).count();
    let ipv6 = routes("ipv6_route").lines().filter(|line| !line.ends_with(" lo")).count();
    assert!(ipv4 + ipv6 == 0, "real clients need a network namespace with no interface but lo: run scripts/test");
}

/// A file or directory in place of another one, in this mount namespace, until it is dropped.
pub(crate) struct Bound {
    source: PathBuf,
    target: &'static str,
}

impl Bound {
    /// Puts `content` over `target`.
    pub(crate) fn new(source: PathBuf, target: &'static str, content: &str) -> Self {
        assert_isolated();
        std::fs::write(&source, content).expect("a file is written");
        run(Command::new("mount").arg("--bind").arg(&source).arg(target));
        Self { source, target }
    }

    /// Puts a directory over `target`.
    pub(crate) fn directory(source: PathBuf, target: &'static str) -> Self {
        assert_isolated();
        run(Command::new("mount").arg("--bind").arg(&source).arg(target));
        Self { source, target }
    }

    /// Gives it another content.
    pub(crate) fn rewrite(&self, content: &str) {
        std::fs::write(&self.source, content).expect("a file is written");
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.target).status();
    }
}

/// Detaches whatever is mounted below a directory, so that it can be removed.
pub(crate) fn unmount_below(directory: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for point in points.filter(|point| Path::new(point).starts_with(directory)).collect::<Vec<_>>().into_iter().rev() {
        let _ = Command::new("umount").args(["--lazy", point]).status();
    }
}
