//! What scripts/install leaves on a machine, and what scripts/test asks of its user.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use crate::namespace;
use crate::program::run;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");
/// Two runs of apt: one by an earlier version of scripts/install, one by somebody else.
const HISTORY: &str = "
Start-Date: 2026-01-01  10:00:00
Commandline: apt-get install -qq -y --no-install-recommends docker-registry nginx-light
Install: docker-registry:amd64 (2.8), nginx-light:amd64 (1.22), openssh-server:amd64 (9.2, automatic)
End-Date: 2026-01-01  10:00:20

Start-Date: 2026-01-01  11:00:00
Commandline: apt-get install docker.io
Install: docker.io:amd64 (20.10)
End-Date: 2026-01-01  11:00:20
";

/// Units in the order of what the script is to do with them, and when each was enabled.
const MASKED: [(&str, &str); 2] = [("nginx.service", "10:00:10"), ("docker-registry.service", "10:00:20")];
const LEFT: [(&str, &str); 3] = [
    // There before; by somebody else's apt; not a daemon of the tests'.
    ("haproxy.service", "09:59:00"),
    ("docker.service", "11:00:10"),
    ("ssh.service", "10:00:10"),
];

#[test]
#[ignore = "run by scripts/test in a mount namespace of its own"]
fn daemons_that_scripts_install_brought_are_masked_and_no_others() {
    namespace::assert_isolated();
    let (systemd, history) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let units = systemd.path().join("system");
    let wants = units.join("multi-user.target.wants");
    std::fs::create_dir_all(&wants).expect("made");
    std::fs::write(history.path().join("history.log"), HISTORY).expect("written");
    let enable = |unit: &str| {
        symlink(Path::new("/lib/systemd/system").join(unit), wants.join(unit)).expect("linked");
    };
    for (unit, time) in MASKED.into_iter().chain(LEFT) {
        enable(unit);
        run(Command::new("touch").arg("-h").arg("-d").arg(format!("2026-01-01 {time}")).arg(wants.join(unit)));
    }
    let install = || {
        let script = "mount --bind \"$0\" /etc/systemd && mount --bind \"$1\" /var/log/apt && exec \"$2\" build";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(systemd.path()).arg(history.path());
        run(command.arg(Path::new(SCRIPTS).join("install")))
    };
    let is_masked = |unit: &str| std::fs::read_link(units.join(unit)).is_ok_and(|to| to == Path::new("/dev/null"));
    let is_enabled = |unit: &str| wants.join(unit).is_symlink();

    let said = install();
    for (unit, _) in MASKED {
        assert!(is_masked(unit) && !is_enabled(unit) && said.contains(unit), "{unit}: {said}");
    }
    for (unit, _) in LEFT {
        assert!(!is_masked(unit) && is_enabled(unit) && !said.contains(unit), "{unit}: {said}");
    }
    // Who wants one of them after all keeps it.
    std::fs::remove_file(units.join("nginx.service")).expect("unmasked");
    enable("nginx.service");
    assert_eq!(install(), "");
    assert!(is_enabled("nginx.service") && !is_masked("nginx.service"));
}

#[test]
#[ignore = "run by scripts/test in a mount namespace of its own"]
fn scripts_test_says_that_it_needs_root_before_it_starts_anything() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("readable");
    let scripts = directory.path().join("scripts");
    std::fs::create_dir(&scripts).expect("made");
    std::fs::copy(Path::new(SCRIPTS).join("test"), scripts.join("test")).expect("copied");
    // A sudo that lets nobody, and a scripts/install that must not run.
    for (path, script) in [("sudo", "#!/bin/sh\nexit 1\n"), ("scripts/install", "#!/bin/sh\necho it has begun\n")] {
        let path = directory.path().join(path);
        std::fs::write(&path, script).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    }
    let path = format!("{}:/usr/bin:/bin", directory.path().display());
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(scripts.join("test"))
        .env("PATH", path)
        .output()
        .expect("setpriv runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the tests in namespaces need root") && !said.contains("it has begun"), "{said}");
}
