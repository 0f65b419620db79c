//! What a run shows and does, without a terminal.

use super::*;

fn options(root: &Path) -> Options {
    Options {
        registry: None,
        rules: Vec::new(),
        client_id: None,
        yes: false,
        replace: false,
        skip: vec![Step::Try],
        root: root.to_owned(),
    }
}

#[test]
fn who_is_not_root_is_told_what_needs_it_sees_all_of_it_and_gets_the_command() {
    let root = tempfile::tempdir().expect("a directory");
    std::fs::create_dir_all(root.path().join("usr/bin")).expect("made");
    std::fs::write(root.path().join("usr/bin/podman"), "").expect("written");
    let options = options(root.path());
    let mut output = Vec::new();
    let input = &b"example.azurecr.io\n\nhub\nghcr.io\n\n\n"[..];
    let talk = Conversation::new(input, &mut output, Manner::Ask);
    let host = Host::look(&options, false);
    let left = Init { options: &options, talk, host, flags: String::new(), left: Vec::new() }.go().expect("no end");
    let said = String::from_utf8(output).expect("text");
    let (before, after) = said.split_once("You are not root").expect(&said);
    assert_eq!(before.matches(" (needs root)\n").count(), 3, "{said}");
    assert!(after.contains("  - source: ghcr.io\n") && after.contains("registries.conf.d"), "{said}");
    assert_eq!(
        left,
        [
            "nothing was done, because you are not root: sudo acr-cache-proxy init --registry example.azurecr.io --source docker.io --prefix hub --source ghcr.io --prefix ''"
        ]
    );
    assert!(!root.path().join("etc").exists());
}

#[test]
fn a_configuration_that_is_wrong_ends_it_before_anything_is_started() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join(CONFIG);
    std::fs::create_dir_all(path.parent().expect("in a directory")).expect("made");
    std::fs::write(&path, "upstraem: {domain: a.azurecr.io}\n").expect("written");
    let options = options(root.path());
    let mut output = Vec::new();
    let talk = Conversation::new(&b""[..], &mut output, Manner::Yes);
    let host = Host::look(&options, true);
    let left = Init { options: &options, talk, host, flags: String::new(), left: Vec::new() }.go().expect("no end");
    assert!(left.len() == 1 && left[0].contains("upstraem: unknown setting: did you mean upstream?"), "{left:?}");
    assert!(left[0].ends_with("correct the configuration, and run init again"), "{left:?}");
    assert!(String::from_utf8_lossy(&output).contains("did you mean upstream?"), "it is shown before, too");
}
