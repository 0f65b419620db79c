//! Links that a user has put into a tree that root writes to.

use std::fs;
use std::os::unix::fs::{chown, lchown, symlink};
use std::path::Path;
use std::process::{Command, Output};

/// Nobody that runs these tests.
const USER: u32 = 4242;
/// The file of one registry below a tree, with the directories on the way to it.
const LEVELS: [&str; 6] = [
    "tree",
    "tree/etc",
    "tree/etc/containerd",
    "tree/etc/containerd/certs.d",
    "tree/etc/containerd/certs.d/docker.io",
    "tree/etc/containerd/certs.d/docker.io/hosts.toml",
];

fn program(arguments: &[&str], tree: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
    command.args(arguments).arg("--root").arg(tree).output().expect("it runs")
}

fn client_config(arguments: &[&str], listen: &str, tree: &Path) -> Output {
    let settings = ["--upstream-domain", "example.azurecr.io", "--upstream-prefix", "hub", "--listen-address", listen];
    program(&[&["client-config", "containerd"], arguments, &settings].concat(), tree)
}

fn give(path: &Path, user: u32) {
    lchown(path, Some(user), Some(user)).expect("root may");
}

/// A folder of a user with a tree in it, whose entry at `level` is moved aside, and a link of `owner` in its place.
fn linked(level: &str, owner: u32, directory_owner: u32) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).expect("made");
    let output = client_config(&["--write"], "127.0.0.1:8080", &tree);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let content = fs::read_to_string(folder.path().join(LEVELS[5])).expect("written");
    for path in [folder.path().to_owned()].into_iter().chain(LEVELS.map(|level| folder.path().join(level))) {
        chown(path, Some(USER), Some(USER)).expect("root may");
    }
    let link = folder.path().join(level);
    // Within the tree, so that only whose the link is speaks against it.
    let aside = if level == "tree" { folder.path().join("aside") } else { tree.join("aside") };
    fs::rename(&link, &aside).expect("moved");
    symlink(&aside, &link).expect("linked");
    give(&link, owner);
    give(link.parent().expect("a parent"), directory_owner);
    (folder, content)
}

#[test]
#[ignore = "run by scripts/test as root: links are given to another user"]
fn a_users_link_leads_root_nowhere_and_roots_link_is_followed() {
    for level in LEVELS {
        for (owner, directory, why) in [
            (USER, USER, Some("of user 4242: only a link of root")),
            (USER, 0, Some("of user 4242: only a link of root")),
            (0, USER, Some("in a directory of user 4242: only a link of root")),
            (0, 0, None),
        ] {
            let (folder, content) = linked(level, owner, directory);
            let (tree, file) = (folder.path().join("tree"), folder.path().join(LEVELS[5]));
            let case = format!("{level}, a link of {owner} in a directory of {directory}");
            let is_file = level == LEVELS[5];
            // Another address, so that the file is one to replace.
            let written = client_config(&["--write", "--prune"], "127.0.0.1:9090", &tree);
            let is_new = fs::read_to_string(&file).expect("there") != content;
            let said = String::from_utf8_lossy(&written.stderr).into_owned();
            // A file is never replaced through a link to it.
            assert_eq!(
                (written.status.code(), is_new),
                if why.is_some() || is_file { (Some(1), false) } else { (Some(0), true) },
                "{case}: {said}"
            );
            assert!(why.is_none_or(|why| said.contains(why)), "{case}: {said}");
            assert!(why.is_some() || !is_file || said.contains("is behind a symbolic link"), "{case}: {said}");

            let removed = client_config(&["--remove", "--write"], "127.0.0.1:9090", &tree);
            let stays = file.exists();
            // Nor is a link the directory of a file of this command's.
            assert_eq!(stays, why.is_some() || level.contains("docker.io"), "{case}: {removed:?}");
            assert!(fs::symlink_metadata(folder.path().join(level)).is_ok_and(|link| link.is_symlink()), "{case}");
        }
    }
}

#[test]
#[ignore = "run by scripts/test as root: links are given to another user"]
fn a_users_link_leads_init_nowhere() {
    for (level, why) in [
        ("tree", "tree, a link of user 4242: only a link of root"),
        ("tree/etc", "tree/etc, a link of user 4242: only a link of root"),
        ("tree/etc/acr-cache-proxy", "tree/etc/acr-cache-proxy, a link of user 4242: only a link of root"),
        ("tree/etc/acr-cache-proxy/config.yaml", "is a symbolic link of user 4242: only a link of root"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let (outside, link) = (folder.path().join("outside"), folder.path().join(level));
        fs::create_dir(&outside).expect("made");
        fs::create_dir_all(link.parent().expect("a parent")).expect("made");
        symlink(&outside, &link).expect("linked");
        give(&link, USER);
        let tree = folder.path().join("tree");
        let output = program(
            &[
                "init",
                "--yes",
                "--registry",
                "example.azurecr.io",
                "--prefix",
                "hub",
                "--skip",
                "try",
                "--skip",
                "service",
            ],
            &tree,
        );
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(why), "{level}: {output:?}");
        assert_eq!(fs::read_dir(&outside).expect("there").count(), 0, "{level}: {output:?}");
    }
}
