//! The file of `registries.d`, beside which no other may have an entry for the same address.

use std::path::Path;

use super::{client_config, text};

const OURS: &str = "etc/containers/registries.d/50-acr-cache-proxy.yaml";
/// What requires sigstore signatures of Docker Hub's images.
const SIGNED: &str = "{\"default\": [{\"type\": \"insecureAcceptAnything\"}], \"transports\": {\"docker\": {\
    \"docker.io\": [{\"type\": \"sigstoreSigned\", \"keyPath\": \"/k\"}]}}}";

fn put(root: &Path, path: &str, content: &str) {
    let at = root.join(path);
    std::fs::create_dir_all(at.parent().expect("a directory")).expect("made");
    std::fs::write(at, content).expect("written");
}

/// Each host got the file, and with it no signed image could be pushed or copied by podman and skopeo, though no policy asked for signatures.
#[test]
fn signed_images_could_not_be_pushed_from_a_host_whose_policy_requires_no_signature() {
    const POLICY: &str = "etc/containers/policy.json";
    let of = |default: &str, scopes: &str| {
        format!("{{\"default\": [{{{default}}}], \"transports\": {{\"docker\": {{{scopes}}}}}}}")
    };
    const ACCEPT: &str = "\"type\": \"insecureAcceptAnything\"";
    const SIGSTORE: &str = "\"type\": \"sigstoreSigned\", \"keyPath\": \"/k\"";
    let scope = |name: &str| of(ACCEPT, &format!("\"{name}\": [{{{SIGSTORE}}}]"));
    let gpg = of(ACCEPT, "\"docker.io\": [{\"type\": \"signedBy\", \"keyType\": \"GPGKeys\", \"keyPath\": \"/k\"}]");
    let crio = "[crio.image]\nsignature_policy = \"/srv/policy.json\"\n".to_owned();
    for (files, is_wanted) in [
        (vec![], false),
        (vec![(POLICY, of(ACCEPT, ""))], false),
        (vec![(POLICY, gpg)], false),
        (vec![(POLICY, scope("docker.io"))], true),
        (vec![(POLICY, scope("docker.io/library/busybox"))], true),
        (vec![(POLICY, scope("*.io"))], true),
        (vec![(POLICY, of(SIGSTORE, ""))], true),
        // There is no route for it.
        (vec![(POLICY, scope("gcr.io"))], false),
        (vec![(POLICY, "{".to_owned())], false),
        (vec![("usr/share/containers/policy.json", scope("docker.io"))], true),
        (vec![(POLICY, of(ACCEPT, "")), ("usr/share/containers/policy.json", scope("docker.io"))], false),
        (vec![("home/u/.config/containers/policy.json", scope("docker.io"))], true),
        (vec![("etc/crio/policies/ns.json", scope("docker.io"))], true),
        (vec![("etc/crio/crio.conf.d/10.conf", crio), ("srv/policy.json", scope("docker.io"))], true),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let at = root.path().to_string_lossy().into_owned();
        let run = |task: &[&str]| {
            let output = client_config(&[&["podman", "--root", &at], task].concat());
            (output.status.code(), text(&[output.stdout, output.stderr].concat()))
        };
        files.iter().for_each(|(path, content)| put(root.path(), path, content));
        let (_, said) = run(&["--write"]);
        assert_eq!(root.path().join(OURS).exists(), is_wanted, "{files:?} {said}");
        assert_eq!(run(&["--check"]).0, Some(0), "{files:?}");
        assert!(said.contains("with --remove-signatures alone"), "{said}");
        // As an earlier version has left it.
        std::fs::remove_file(root.path().join(OURS)).unwrap_or_default();
        put(root.path(), POLICY, SIGNED);
        run(&["--write"]);
        assert!(root.path().join(OURS).exists());
        std::fs::remove_file(root.path().join(POLICY)).expect("there");
        files.iter().for_each(|(path, content)| put(root.path(), path, content));
        let told =
            format!("{OURS}: it is not needed, because no policy.json here requires a sigstore signature, and keeps");
        let (status, said) = run(&["--check"]);
        assert_eq!((status == Some(0), said.contains(&told)), (is_wanted, !is_wanted), "{files:?} {said}");
        assert_eq!(run(&["--write"]).1.contains("and copied: --write --prune removes it"), !is_wanted, "{files:?}");
        run(&["--write", "--prune"]);
        assert_eq!((run(&["--check"]).0, root.path().join(OURS).exists()), (Some(0), is_wanted), "{files:?}");
    }
}

/// It was written, with status 0, and stood: every pull of podman failed then.
#[test]
fn a_second_entry_for_the_proxys_address_was_written_beside_one_of_somebody_elses() {
    const SYSTEMS: &str = "etc/containers/registries.d";
    const ROOTS: &str = "root/.config/containers/registries.d";
    let of = |address: &str| format!("docker: {{\"{address}\": {{lookaside: https://x.example}}}}\n");
    let (ours, other) = (of("127.0.0.1:8080"), of("docker.io"));
    for (files, named, rules) in [
        (vec![(SYSTEMS, "other.yaml", &ours)], Some("/etc/containers/registries.d/other.yaml"), ""),
        (vec![(SYSTEMS, "00.yaml", &ours)], Some("/etc/containers/registries.d/00.yaml"), ""),
        (vec![(SYSTEMS, "other.yaml", &other)], None, ""),
        // Not read: its name has another end.
        (vec![(SYSTEMS, "other.yaml.bak", &ours)], None, ""),
        (
            vec![("usr/share/containers/registries.d", "a.yaml", &ours)],
            Some("/usr/share/containers/registries.d/a.yaml"),
            "by the rules of podman 6, ",
        ),
        (
            vec![(ROOTS, "a.yaml", &ours)],
            Some("/root/.config/containers/registries.d/a.yaml"),
            "by the rules of podman 6, ",
        ),
        // Before podman 6 nothing of the system's is read beside root's.
        (
            vec![(ROOTS, "a.yaml", &other), (SYSTEMS, "other.yaml", &ours)],
            Some("/etc/containers/registries.d/other.yaml"),
            "by the rules of podman 6, ",
        ),
    ] {
        for was_there in [false, true] {
            let root = tempfile::tempdir().expect("a directory");
            put(root.path(), "etc/containers/policy.json", SIGNED);
            let at = root.path().to_string_lossy().into_owned();
            let run = |task: &[&str]| {
                let output = client_config(&[&["podman", "--root", &at], task].concat());
                (output.status.code(), text(&[output.stdout, output.stderr].concat()))
            };
            if was_there {
                assert_eq!(run(&["--write"]).0, Some(0));
            }
            let before = std::fs::read_to_string(root.path().join(OURS)).ok();
            for (directory, name, content) in &files {
                let directory = root.path().join(directory);
                std::fs::create_dir_all(&directory).expect("made");
                std::fs::write(directory.join(name), content).expect("written");
            }
            let Some(named) = named else {
                assert_eq!((run(&["--write"]).0, run(&["--check"]).0), (Some(0), Some(0)), "{files:?}");
                continue;
            };
            let says = format!("{named} has an entry for 127.0.0.1:8080, as this file is to have, and");
            for (task, begin) in [
                (&["--check"][..], "excluded "),
                (&["--write"], "acr-cache-proxy: "),
                (&["--write", "--merge"], "acr-cache-proxy: "),
                (&["--check"], "excluded "),
            ] {
                let (status, said) = run(task);
                assert_eq!(status, Some(1), "{files:?} {task:?} {said}");
                let is_it = |line: &&str| line.starts_with(begin) && line.contains(&says) && line.contains(rules);
                let line = said.lines().find(is_it).unwrap_or_else(|| panic!("{files:?} {task:?} {said}"));
                assert!(line.ends_with("every pull fails: take that entry out there, and run this again"), "{line}");
                assert_eq!(line.contains("by the rules of"), !rules.is_empty(), "{line}");
                assert_eq!(std::fs::read_to_string(root.path().join(OURS)).ok(), before, "{said}");
            }
            let drop_in = root.path().join("etc/containers/registries.conf.d/50-acr-cache-proxy.conf");
            assert!(drop_in.exists(), "the other file is written");
            for (directory, name, _) in &files {
                std::fs::remove_file(root.path().join(directory).join(name)).expect("there");
            }
            assert_eq!((run(&["--write"]).0, run(&["--check"]).0), (Some(0), Some(0)), "once it is taken out");
        }
    }
}
