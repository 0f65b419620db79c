//! Files that are left as they are, and what is said about them.

use super::{client_config, text};

/// It was taken in silence, although the proxy and `check` say so.
#[test]
fn a_flag_without_an_effect_is_told() {
    let output = client_config(&["docker", "--masquerade-domain", "x"]);
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stderr).starts_with("acr-cache-proxy: --masquerade-domain has no effect: "), "{output:?}");
}

/// It was to have the list merged into it, and what dockerd would do with the file was told as if it had been.
#[test]
fn a_directory_in_place_of_a_file_is_to_be_moved_away_and_what_follows_holds_after_that() {
    let root = tempfile::tempdir().expect("a directory");
    let at = root.path().to_string_lossy().into_owned();
    let directory = root.path().join("etc/docker/daemon.json");
    std::fs::create_dir_all(&directory).expect("made");
    let output = client_config(&["docker", "--write", "--merge", "--root", &at]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = text(&output.stderr);
    let told = "/etc/docker/daemon.json is a directory, and is left as it is: move it away, and run this again\n";
    let (before, after) = said
        .split_once("acr-cache-proxy: what follows is so only after the above is done for /etc/docker/daemon.json:\n")
        .unwrap_or_else(|| panic!("{said}"));
    assert!(before.contains(told) && !before.contains("merge this"), "{said}");
    assert!(after.contains("dockerd reads /etc/docker/daemon.json after: systemctl reload docker"), "{said}");

    std::fs::remove_dir(&directory).expect("removed");
    let output = client_config(&["docker", "--write", "--merge", "--root", &at]);
    assert!(output.status.success() && !text(&output.stderr).contains("what follows is so"), "{output:?}");
}

/// A list, or half a file, was to have an object merged into it.
#[test]
fn a_file_that_its_client_cannot_read_is_to_be_mended_and_not_to_be_merged() {
    for (client, path, content, why) in [
        ("docker", "etc/docker/daemon.json", "[]", "is no JSON object"),
        ("docker", "etc/docker/daemon.json", "{", "is no JSON: "),
        ("buildkit", "etc/buildkit/buildkitd.toml", "[", "is no TOML: "),
        ("k3s", "etc/rancher/k3s/registries.yaml", "- a", "is no YAML table"),
        ("k3s", "etc/rancher/k3s/registries.yaml", "a: [", "is no YAML: "),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let at = root.path().to_string_lossy().into_owned();
        let file = root.path().join(path);
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("made");
        std::fs::write(&file, content).expect("written");
        for task in [&["--write"][..], &["--write", "--merge"], &["--check"]] {
            let output = client_config(&[&[client, "--root", &at], task].concat());
            let said = text(&output.stdout) + &text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            let line = said.lines().find(|line| line.contains(path)).unwrap_or_else(|| panic!("{said}"));
            assert!(
                line.contains(why) && line.contains(": mend it") && !said.contains("merge this"),
                "{task:?} {said}"
            );
            assert_eq!(std::fs::read_to_string(&file).expect("it is there"), content);
        }
    }
}
