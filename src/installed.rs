//! What is installed on a host, by its files below a root: programs, and units of systemd.

use std::fs;
use std::path::{Path, PathBuf};

use crate::chroot;

/// Where distributions and by-hand installations put programs.
const PROGRAMS: [&str; 7] =
    ["usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin", "usr/libexec", "opt/bin", "opt/rke2/bin"];
/// Where units are, the one that counts most first (systemd.unit(5)).
pub(crate) const UNITS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// This program's own, as the package has it.
pub(crate) const OWN_UNIT: &str = "acr-cache-proxy.service";
/// By which systemd keeps its sockets; who wants that has enabled it.
pub(crate) const OWN_SOCKET: &str = "acr-cache-proxy.socket";
/// Has the service read its settings again.
pub(crate) const RELOAD: &str = "systemctl reload acr-cache-proxy";

/// Starts the service anew, with the variables that its files have by now.
pub(crate) const RESTART: &str = "systemctl restart acr-cache-proxy";

/// It is there while systemd is the service manager (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";

/// Whether systemd is the service manager of this machine.
pub(crate) fn runs_systemd() -> bool {
    Path::new(BOOTED).is_dir()
}

/// Whether the file that a process was started from is gone from its place, which is this program's. Its unit may start it by another one.
pub(crate) fn is_replaced(program: &Path, pid: u32) -> bool {
    let runs = fs::read_link(format!("/proc/{pid}/exe")).map(|path| path.to_string_lossy().into_owned());
    let gone = runs.ok().and_then(|path| path.strip_suffix(" (deleted)").map(PathBuf::from));
    gone.is_some_and(|path| path.file_name() == program.file_name())
}

/// Whether there is a program of this name.
pub(crate) fn has_program(root: &Path, name: &str) -> bool {
    PROGRAMS.iter().any(|directory| at(root, &format!("{directory}/{name}")).is_some_and(|at| at.is_file()))
}

/// Whether there is a unit of this name, with its ending.
pub(crate) fn has_unit(root: &Path, name: &str) -> bool {
    UNITS.iter().any(|directory| at(root, &format!("{directory}/{name}")).is_some_and(|at| at.exists()))
}

fn at(root: &Path, path: &str) -> Option<PathBuf> {
    chroot::lead(root, Path::new(path)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An upgrade that the running process had not taken over was "ok".
    #[test]
    fn a_process_whose_program_was_replaced_is_known() {
        let folder = tempfile::tempdir().expect("a directory");
        let program = folder.path().join("sleep");
        fs::copy("/bin/sleep", &program).expect("copied");
        let mut process = std::process::Command::new(&program).arg("60").spawn().expect("it starts");
        let pid = process.id();
        assert!(!is_replaced(&program, pid), "it is there");
        fs::remove_file(&program).expect("removed");
        assert!(is_replaced(&program, pid), "it is gone");
        fs::copy("/bin/sleep", &program).expect("copied");
        assert!(is_replaced(&program, pid), "it is another file");
        // A unit may start it by a shell: doctor said for ever that it is another file than that.
        assert!(!is_replaced(Path::new("/bin/sh"), pid));
        process.kill().and_then(|()| process.wait()).expect("ended");
    }
}
