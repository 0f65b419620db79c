//! Clients' files, shown and written.

use std::process::{Command, Output};

mod left;
mod leftovers;
mod nodes;
mod script;
mod signatures;
mod standing;

/// The command, with the routes that are the example in `conf`.
fn client_config(arguments: &[&str]) -> Output {
    let routes = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/routes.yaml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
    command.arg("client-config").args(arguments).args(["--config", routes]).output().expect("it runs")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_files_go_to_standard_output_and_the_words_about_them_do_not() {
    let output = client_config(&["docker"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let files = text(&output.stdout);
    assert!(files.starts_with("# /etc/docker/daemon.json (without this line: JSON has no comments)\n{\n"), "{files}");
    assert_eq!(files.matches("\n# /etc/docker/certs.d/").count(), 3, "one for each registry: {files}");
    assert!(text(&output.stderr).lines().all(|line| line.starts_with("acr-cache-proxy: ")), "{output:?}");
}

/// What a client is given by hand can be piped to where it goes.
#[test]
fn a_client_without_files_gets_a_patch_or_flags_and_nothing_is_written_for_it() {
    for (client, first, why) in [
        ("talos", "machine:\n  registries:\n    mirrors:\n", "a node of Talos has no file to write to"),
        ("kaniko", "--registry-mirror=", "kaniko reads no file"),
    ] {
        let output = client_config(&[client]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(text(&output.stdout).starts_with(first), "{output:?}");
        for task in ["--write", "--merge", "--check", "--prune", "--remove"] {
            let output = client_config(&[client, task]);
            assert_eq!(output.status.code(), Some(2), "{output:?}");
            assert!(text(&output.stderr).starts_with(&format!("acr-cache-proxy: {why}")), "{output:?}");
        }
    }
}

#[test]
fn writing_twice_changes_nothing_and_a_foreign_file_is_status_1_after_the_others() {
    let root = tempfile::tempdir().expect("a directory");
    let at = root.path().to_string_lossy().into_owned();
    let write = || client_config(&["containerd", "--write", "--root", &at]);
    let foreign = root.path().join("etc/containerd/certs.d/docker.io/hosts.toml");
    std::fs::create_dir_all(foreign.parent().expect("a parent")).expect("made");
    std::fs::write(&foreign, "# by hand\n").expect("written");

    let output = write();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(text(&output.stdout).matches("wrote ").count(), 2, "ghcr.io and registry.k8s.io: {output:?}");
    let said = text(&output.stderr);
    assert!(
        said.contains(
            "docker.io/hosts.toml was not written from here. It is left as it is; merge this into it, each key once:"
        ),
        "{said}"
    );
    assert!(said.contains("  server = \"https://registry-1.docker.io\"\n"), "what to merge: {said}");
    assert!(said.ends_with("acr-cache-proxy: files that were left as they are: 1\n"), "{said}");
    assert_eq!(std::fs::read_to_string(&foreign).expect("there"), "# by hand\n");

    std::fs::remove_file(&foreign).expect("removed");
    let output = write();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stdout);
    assert!(said.matches("wrote ").count() == 1 && said.matches("unchanged ").count() == 2, "{said}");
}

/// `systemctl reload docker`, which took the settings of this host's.
#[test]
fn what_is_to_be_done_after_files_of_a_tree_were_written_was_told_as_of_this_host() {
    let root = tempfile::tempdir().expect("a directory");
    for (client, command) in [("docker", "systemctl reload docker"), ("podman", "systemctl reload crio")] {
        let output = client_config(&[client, "--write", "--root", &root.path().to_string_lossy()]);
        let said = text(&output.stderr);
        let says = "acr-cache-proxy: what follows is to be done on the host whose files these are, and not here:\n";
        let (before, after) = said.split_once(says).expect(&said);
        assert!(!before.contains("systemctl") && after.contains(command), "{said}");
    }
}

/// It runs where an image is made, and CA file and variables are on the proxy's host.
#[test]
fn settings_may_need_what_only_the_host_of_the_proxy_has() {
    let folder = tempfile::tempdir().expect("a directory");
    let config = folder.path().join("config.yaml");
    let text = "upstream: {domain: example.azurecr.io}\nca_file: /nonexistent.pem\nidentity: {kind: client_secret}\n";
    std::fs::write(&config, text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
    for name in ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"] {
        command.env_remove(name);
    }
    let output = command.args(["client-config", "docker", "--config"]).arg(&config).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// It said what to do in a daemon.json that was not there.
#[test]
fn after_a_removal_of_dockers_files_what_is_left_to_do_is_what_is_there() {
    const NOTHING: &str = "dockerd reads its hosts.toml at each pull, so for these there is nothing to reload";
    let root = tempfile::tempdir().expect("a directory");
    let (json, drop_in) = ("etc/docker/daemon.json", "etc/systemd/system/docker.service.d/mirror.conf");
    let by_flag = |flag: &str| format!("[Service]\nExecStart=\nExecStart=/usr/bin/dockerd {flag}\n");
    let mirrors = r#"{"registry-mirrors": ["http://127.0.0.1:8080"]}"#.to_owned();
    for (files, says) in [
        (vec![], NOTHING),
        (vec![(json, r#"{"debug": true}"#.to_owned())], NOTHING),
        (vec![(json, r#"{"registry-mirrors": []}"#.to_owned())], NOTHING),
        (vec![(json, mirrors.clone())], "/etc/docker/daemon.json is left as it is, because it has registry-mirrors"),
        (vec![(json, "{".to_owned())], "/etc/docker/daemon.json is left as it is, because it cannot be read as JSON"),
        (
            vec![(drop_in, by_flag("--config-file=/etc/docker/other.json")), ("etc/docker/other.json", mirrors)],
            "/etc/docker/other.json is left as it is",
        ),
        (
            vec![(drop_in, by_flag("--registry-mirror=http://127.0.0.1:8080"))],
            "/etc/systemd/system/docker.service.d/mirror.conf gives dockerd --registry-mirror: if the proxy is there, take it out",
        ),
    ] {
        for (path, content) in &files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, content).expect("written");
        }
        let root_of = root.path().to_str().expect("text");
        let output = client_config(&["docker", "--remove", "--write", "--root", root_of]);
        let said = text(&output.stderr);
        let status = i32::from(says != NOTHING);
        assert!(output.status.code() == Some(status) && said.contains(says), "{files:?}: {said}");
        assert!(said.contains(NOTHING), "of the files that are read at each pull: {said}");
        files.iter().for_each(|(path, _)| std::fs::remove_file(root.path().join(path)).expect("it was there"));
    }
}

#[test]
fn a_root_that_is_not_there_and_wrong_words_are_status_2() {
    for (root, says) in [("/nonexistent", "No such file or directory"), ("/etc/passwd", "it is no directory")] {
        for task in [&["--write"][..], &["--write", "--prune"], &["--write", "--remove"], &["--prune"], &["--remove"]] {
            let output = client_config(&[&["podman", "--root", root], task].concat());
            // As of doctor.
            assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{output:?}");
            let said = text(&output.stderr);
            let lines: Vec<_> = said.lines().filter(|line| line.contains(root)).collect();
            assert!(lines.len() == 1, "{said}");
            assert!(lines[0].starts_with(&format!("acr-cache-proxy: --root {root}: {says}")), "{said}");
        }
    }
    for arguments in [&["oci"][..], &["docker", "--mirror", "mirror"], &["docker", "--listen-address", ":0"]] {
        let output = client_config(arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{output:?}");
        assert_eq!(text(&output.stderr).lines().count(), 1, "{output:?}");
    }
}

/// After each file that could not be written came what dockerd does with them, and no word of root.
#[test]
fn whoever_may_not_write_is_told_of_root_and_not_what_the_engine_reads() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;

    let root = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o555)).expect("set");
    let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
    command
        .args(["client-config", "docker", "--upstream-domain", "a.azurecr.io", "--write", "--root"])
        .arg(root.path());
    if nix::unistd::geteuid().is_root() {
        // nobody
        command.uid(65_534).gid(65_534);
    }
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains("Permission denied") && !said.contains("dockerd reads"), "{said}");
    assert_eq!(said.matches("you are not root: run the same command with sudo").count(), 1, "{said}");
}

/// A file of somebody else for each client whose files can be added to, and what it gets.
const FOREIGN: [(&str, &str, &str, &str); 4] = [
    ("docker", "etc/docker/daemon.json", "{\n  \"debug\": true\n}\n", "+  \"registry-mirrors\": ["),
    ("buildkit", "etc/buildkit/buildkitd.toml", "# ours\ndebug = true\n", "+[registry.\"docker.io\"]"),
    ("k3s", "etc/rancher/k3s/registries.yaml", "configs: # ours\n  a.example: {}\n", "+mirrors:"),
    (
        "rke2",
        "etc/rancher/rke2/registries.yaml",
        "mirrors:\n  docker.io:\n    endpoint:\n    - https://b.example\n",
        "+    - \"http://",
    ),
];

#[test]
fn merge_shows_the_difference_then_adds_it_and_keeps_the_file_from_before() {
    for (client, path, old, added) in FOREIGN {
        let root = tempfile::tempdir().expect("a directory");
        let at = root.path().to_string_lossy().into_owned();
        let path = root.path().canonicalize().expect("there").join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(&path, old).expect("written");
        let read = |path: &std::path::Path| std::fs::read_to_string(path).expect("there");
        let run = |arguments: &[&str]| {
            let output = client_config(&[&[client, "--root", &at], arguments].concat());
            (output.status.code(), text(&output.stdout), text(&output.stderr))
        };

        let (status, said, _) = run(&["--check"]);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(&format!("differs {}: it lacks ", path.display())), "{said}");
        let (status, _, about) = run(&["--write"]);
        assert_eq!((status, read(&path).as_str()), (Some(1), old), "{about}");
        assert!(
            about.contains("was not written from here")
                && about.contains(". It is left as it is; --merge adds to it, or"),
            "{about}"
        );

        let (status, shown, _) = run(&["--merge"]);
        assert_eq!((status, read(&path).as_str()), (Some(0), old), "only shown: {shown}");
        let header = format!("--- {0}\n+++ {0}\n@@ ", path.display());
        assert!(shown.contains(&header) && shown.lines().any(|line| line.starts_with(added)), "{shown}");
        assert!(shown.contains(&format!("would merge {}\n", path.display())), "{shown}");

        let (status, said, _) = run(&["--write", "--merge"]);
        let copy = path.with_file_name(format!("{}.bak", path.file_name().expect("a name").to_string_lossy()));
        assert_eq!((status, read(&copy).as_str()), (Some(0), old), "{said}");
        assert!(said.contains(&header), "{said}");
        assert!(said.contains(&format!("merged {}\nkept {}\n", path.display(), copy.display())), "{said}");
        let new = read(&path);
        assert!(new != old && old.lines().all(|line| new.lines().any(|other| line == other)), "{new}");

        for arguments in [&["--write", "--merge"][..], &["--merge"], &["--write"]] {
            let (status, said, _) = run(arguments);
            assert_eq!((status, read(&path).as_str()), (Some(0), new.as_str()), "{said}");
            assert!(said.contains(&format!("unchanged {}\n", path.display())), "{said}");
        }
        let (status, said, _) = run(&["--check"]);
        assert!(status == Some(0) && said.lines().all(|line| line.starts_with("stands ")), "{said}");
        assert!(!copy.with_extension("bak.2").exists(), "one change, one copy");
    }
}

/// Each of them is left byte for byte, whatever is asked for, and it is told to mend it or which lines to add by hand.
#[test]
fn a_hostile_file_is_left_and_nothing_beside_it() {
    use std::os::unix::fs::symlink;
    let long = vec![b' '; 10 << 20];
    for (client, path, contents) in [
        (
            "docker",
            "etc/docker/daemon.json",
            &[&b"\xff\xfe{}"[..], b"{", b"\xef\xbb\xbf{}", b"[]", b"{\"a\":1,}", &long][..],
        ),
        ("buildkit", "etc/buildkit/buildkitd.toml", &[b"\xff", b"[a", b"a=1\na=1", b"\xef\xbb\xbf", &long]),
        (
            "k3s",
            "etc/rancher/k3s/registries.yaml",
            &[b"\xff", b"\tmirrors:", b"mirrors:\nmirrors:", b"mirrors: {}", &long],
        ),
    ] {
        for content in contents {
            let root = tempfile::tempdir().expect("a directory");
            let at = root.path().to_string_lossy().into_owned();
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(&path, content).expect("written");
            for arguments in [&["--merge"][..], &["--write", "--merge"], &["--check"]] {
                let output = client_config(&[&[client, "--root", &at], arguments].concat());
                assert_eq!(output.status.code(), Some(1), "{output:?}");
                assert!(std::fs::read(&path).expect("there") == *content, "{output:?}");
                let said = text(&output.stderr);
                let told = ["It is left as it is; merge this into it:", "mend it, and run this again"];
                let told = told.iter().filter(|told| said.contains(**told)).count();
                assert_eq!(told, usize::from(arguments != ["--check"]), "{output:?}");
            }
            let beside = std::fs::read_dir(path.parent().expect("a parent")).expect("there");
            let names: Vec<_> =
                beside.map(|entry| entry.expect("one").file_name()).filter(|name| name != "certs.d").collect();
            assert_eq!(names, [path.file_name().expect("a name")]);
        }
    }
    // A link is followed inside the root; neither a pipe nor a device is read.
    let (root, outside) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let at = root.path().to_string_lossy().into_owned();
    let path = root.path().join("etc/buildkit/buildkitd.toml");
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    for target in [outside.path().join("a.toml"), "/dev/zero".into()] {
        if target.parent() == Some(outside.path()) {
            std::fs::write(&target, "debug = true\n").expect("written");
        }
        symlink(&target, &path).expect("linked");
        let output = client_config(&["buildkit", "--write", "--merge", "--root", &at]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains("is a symbolic link out of "), "{output:?}");
        std::fs::remove_file(&path).expect("removed");
    }
    assert_eq!(std::fs::read_to_string(outside.path().join("a.toml")).expect("there"), "debug = true\n");
    let real = root.path().join("real.toml");
    std::fs::write(&real, "debug = true\n").expect("written");
    symlink("../../real.toml", &path).expect("linked");
    let output = client_config(&["buildkit", "--write", "--merge", "--root", &at]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(path.is_symlink() && root.path().join("real.toml.bak").exists(), "{output:?}");
    assert!(std::fs::read_to_string(&real).expect("there").starts_with("debug = true\n\n[registry."));
}

#[test]
fn check_tells_each_file_that_does_not_stand_and_changes_nothing() {
    let root = leftovers::tree_with_a_stale_file();
    let at = root.path().to_string_lossy().into_owned();
    let certs = root.path().canonicalize().expect("there").join("etc/containerd/certs.d");
    let check = || {
        let output = client_config(&["containerd", "--check", "--root", &at]);
        (output.status.code(), text(&output.stdout))
    };
    std::fs::remove_dir_all(certs.join("gone.example")).expect("removed");
    let (status, said) = check();
    assert!(status == Some(0) && said.lines().count() == 3, "{said}");
    assert!(said.lines().all(|line| line.starts_with("stands ")), "{said}");

    let hosts = |registry: &str| certs.join(registry).join("hosts.toml");
    std::fs::remove_file(hosts("docker.io")).expect("removed");
    let old = std::fs::read_to_string(hosts("ghcr.io")).expect("there");
    std::fs::write(hosts("ghcr.io"), old.replace("https://ghcr.io", "https://elsewhere")).expect("written");
    std::fs::write(hosts("registry.k8s.io"), "server = \"https://by.hand\"\n").expect("written");
    std::fs::create_dir(certs.join("gone.example")).expect("made");
    std::fs::write(hosts("gone.example"), &old).expect("written");
    let (status, said) = check();
    assert_eq!(status, Some(1), "{said}");
    let lines = [
        format!("missing {}", hosts("docker.io").display()),
        format!("differs {}: its line 2 would be \"server = \\\"https://ghcr.io\\\"\"", hosts("ghcr.io").display()),
        format!("differs {}: it was not written from here", hosts("registry.k8s.io").display()),
        format!("stale {}: it is left from a route that is gone", hosts("gone.example").display()),
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), lines);
    assert!(!hosts("docker.io").exists());
}

/// dockerd did not start any more: a flag in its unit, or in a file of its variables, had mirrors as well.
#[test]
fn a_mirror_among_dockerds_flags_keeps_registry_mirrors_out_of_daemon_json() {
    const DROP_IN: &str = "etc/systemd/system/docker.service.d/mirror.conf";
    const UNIT: &str = "lib/systemd/system/docker.service";
    const DEFAULT: &str = "etc/default/docker";
    const VARIABLE: &str =
        "[Service]\nEnvironmentFile=-/etc/default/docker\nExecStart=/usr/sbin/dockerd $DOCKER_OPTS\n";
    let starts = |flag: &str| format!("[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// {flag}\n");
    let other = "--registry-mirror=https://mirror.example";
    let ours = "--registry-mirror http://127.0.0.1:8080";
    let opts = format!("DOCKER_OPTS=\"--debug {other}\"\n");
    let with_mirrors = "{\"registry-mirrors\": [\"http://127.0.0.1:8080\"]}\n";
    let put_first = "gives dockerd --registry-mirror, and dockerd does not start with registry-mirrors beside it: put --registry-mirror=http://127.0.0.1:8080 first there, then: ";
    let both = "and dockerd does not start with both: take one of the two out, then: systemctl daemon-reload && systemctl restart docker";
    for (files, json, named, says) in [
        (vec![(DROP_IN, starts(other))], None, DROP_IN, put_first),
        (vec![(DROP_IN, starts(other))], Some("{\"debug\": true}\n"), DROP_IN, put_first),
        (vec![(DROP_IN, starts(ours))], Some(with_mirrors), DROP_IN, both),
        (vec![(UNIT, VARIABLE.to_owned()), (DEFAULT, opts.clone())], Some("{}\n"), DEFAULT, put_first),
        // An init script's, where there is no unit; one that has a unit goes by that.
        (vec![(DEFAULT, opts.clone())], None, DEFAULT, "then: service docker restart; or take the flag out"),
        (vec![(UNIT, starts("--debug")), (DEFAULT, opts.clone())], None, "", ""),
        (vec![(DEFAULT, format!("#{opts}"))], None, "", ""),
        // Nobody reads the file, and it was written all the same.
        (
            vec![(DROP_IN, starts("--config-file=/etc/other.json"))],
            Some("{}\n"),
            DROP_IN,
            "so that it reads /etc/other.json and not this file",
        ),
        (vec![(DROP_IN, starts("--config-file /etc/docker/daemon.json"))], None, "", ""),
        // It comes here already.
        (vec![(DROP_IN, starts(ours))], None, DROP_IN, "dockerd has http://127.0.0.1:8080 by --registry-mirror in "),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let at = root.path().to_string_lossy().into_owned();
        let daemon_json = root.path().join("etc/docker/daemon.json");
        let put = |path: &std::path::Path, content: &str| {
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, content).expect("written");
        };
        files.iter().for_each(|(path, content)| put(&root.path().join(path), content));
        json.iter().for_each(|content| put(&daemon_json, content));
        let comes_here = says.starts_with("dockerd has ");
        let is_written = says.is_empty();
        let status = Some(i32::from(!is_written && !comes_here));
        for arguments in [&["--merge"][..], &["--write"], &["--write", "--merge"], &["--check"]] {
            let output = client_config(&[&["docker", "--root", &at], arguments].concat());
            let said = text(&[output.stdout, output.stderr].concat());
            let expected = if arguments[0] == "--check" && is_written { Some(0) } else { status };
            assert_eq!(output.status.code(), expected, "{files:?} {arguments:?} {said}");
            let told = said.lines().filter(|line| line.contains(says) && line.contains(&format!("/{named}"))).count();
            assert!(is_written || told == 1, "{files:?} {arguments:?} {said}");
            assert!(!said.contains("merge this into it"), "{said}");
            if !is_written {
                assert_eq!(std::fs::read_to_string(&daemon_json).ok().as_deref(), json, "it is left: {said}");
            }
        }
        assert_eq!(is_written, json.is_none() && daemon_json.exists(), "{files:?}");
        assert!(root.path().join("etc/docker/certs.d/ghcr.io/hosts.toml").exists(), "the other files are written");
    }
}

/// It was the proxy's for doctor, and another mirror for client-config, which put a second address of it before.
#[test]
fn the_proxy_is_known_by_each_address_at_which_it_listens() {
    let json = "etc/docker/daemon.json";
    let toml =
        "[registry.\"docker.io\"]\n  mirrors = [\"localhost:8080\"]\n[registry.\"localhost:8080\"]\n  http = true\n";
    let toml = toml.to_owned();
    let of = |url: &str| format!("{{\"registry-mirrors\": [\"{url}\"]}}\n");
    for (client, path, content, listen, stands) in [
        ("docker", json, of("http://localhost:8080"), "127.0.0.1:8080", true),
        ("docker", json, of("http://LOCALHOST:8080/"), "127.0.0.1:8080", true),
        ("docker", json, of("http://[::1]:8080"), ":8080", true),
        ("docker", json, of("http://[::1]:8080"), "127.0.0.1:8080", false),
        ("docker", json, of("http://[::1]:8080"), "0.0.0.0:8080", false),
        ("docker", json, of("http://localhost:8081"), "127.0.0.1:8080", false),
        ("docker", json, of("https://localhost:8080"), "127.0.0.1:8080", false),
        ("docker", json, of("http://localhost:8080/hub"), "127.0.0.1:8080", false),
        ("buildkit", "etc/buildkit/buildkitd.toml", toml.clone(), "127.0.0.1:8080", true),
        ("buildkit", "etc/buildkit/buildkitd.toml", toml.replace("true", "false"), "127.0.0.1:8080", false),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(&path, &content).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        command.args(["client-config", client, "--check", "--upstream-domain", "example.azurecr.io"]);
        command.args(["--upstream-prefix", "hub", "--listen-address", listen, "--root"]).arg(root.path());
        let said = text(&command.output().expect("it runs").stdout);
        let name = path.file_name().expect("a name").to_string_lossy();
        let line = said.lines().find(|line| line.contains(&*name)).expect("a line");
        assert_eq!(line.starts_with("stands "), stands, "{content} {listen} {said}");
        assert!(!stands || !line.contains("is asked"), "{said}");
    }
}
