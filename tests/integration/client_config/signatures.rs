//! The file of `registries.d`, beside which no other may have an entry for the same address.

use super::{client_config, text};

/// It was written, with status 0, and stood: every pull of podman failed then.
#[test]
fn a_second_entry_for_the_proxys_address_was_written_beside_one_of_somebody_elses() {
    const OURS: &str = "etc/containers/registries.d/50-acr-cache-proxy.yaml";
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
