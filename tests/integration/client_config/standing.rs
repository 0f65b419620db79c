//! What `--check` says of files that it cannot judge, and of those that only seem to stand.

use super::{client_config, text};

/// Of a drop-in that could not be read, `--check` said that all stands.
#[test]
fn what_may_give_dockerd_flags_and_cannot_be_read_is_told_and_daemon_json_is_not_judged() {
    const DROP_IN: &str = "etc/systemd/system/docker.service.d/mirror.conf";
    let fifo = |path: &std::path::Path| {
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("made");
    };
    let shell = |path: &std::path::Path| {
        std::fs::write(path, "[Service]\nExecStart=\nExecStart=/bin/sh -c 'dockerd $MORE'\n").expect("written");
    };
    let script = |path: &std::path::Path| {
        let program = path.ancestors().nth(5).expect("the root").join("usr/bin/start-docker");
        std::fs::create_dir_all(program.parent().expect("a parent")).expect("made");
        std::fs::write(program, "#!/bin/sh\nexec dockerd --registry-mirror http://a\n").expect("written");
        std::fs::write(path, "[Service]\nExecStart=\nExecStart=/usr/bin/start-docker\n").expect("written");
    };
    let link = |path: &std::path::Path| std::os::unix::fs::symlink("mirror.conf", path).expect("linked");
    let passed = |path: &std::path::Path| {
        let text =
            "[Service]\nPassEnvironment=DOCKER_OPTS\nExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS\n";
        std::fs::write(path, text).expect("written");
    };
    for (make, says) in [
        (&fifo as &dyn Fn(&std::path::Path), "mirror.conf could not be read: it is a FIFO"),
        (&link, "mirror.conf could not be read: its links lead to too many others"),
        (&shell, "mirror.conf runs a shell, whose commands are not followed"),
        (&passed, "mirror.conf has $DOCKER_OPTS, which PassEnvironment= takes from systemd"),
        (&script, "mirror.conf runs the script /usr/bin/start-docker, whose commands are not followed"),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let at = root.path().to_string_lossy().into_owned();
        assert_eq!(client_config(&["docker", "--root", &at, "--write"]).status.code(), Some(0));
        let path = root.path().join(DROP_IN);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        make(&path);
        let output = client_config(&["docker", "--root", &at, "--check"]);
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let unknown: Vec<_> = said.lines().filter(|line| line.starts_with("unknown ")).collect();
        assert!(unknown.len() == 1 && unknown[0].contains("daemon.json: ") && unknown[0].contains(says), "{said}");
        assert_eq!(said.matches("stands ").count(), 3, "the others are judged: {said}");
        std::fs::remove_file(root.path().join("etc/docker/daemon.json")).expect("removed");
        let output = client_config(&["docker", "--root", &at, "--write", "--merge"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains(says) && !root.path().join("etc/docker/daemon.json").exists());
    }
}

/// The flag behind the comment was not seen: the mirror was written, and dockerd did not start with both.
#[test]
fn a_comment_within_the_flags_of_dockerd_hid_those_behind_it_and_a_mirror_was_written_beside_one() {
    for comment in ["# a comment", "; a comment"] {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join("etc/systemd/system/docker.service.d");
        std::fs::create_dir_all(&directory).expect("made");
        let drop_in = format!(
            "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// \\\n{comment}\n  --registry-mirror=http://127.0.0.1:8099\n"
        );
        std::fs::write(directory.join("mirror.conf"), drop_in).expect("written");
        let at = root.path().to_string_lossy().into_owned();
        let output = client_config(&["docker", "--root", &at, "--write", "--merge"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("mirror.conf gives dockerd --registry-mirror"), "{said}");
        assert!(!root.path().join("etc/docker/daemon.json").exists());
    }
}

/// It ended there, without a line for any file.
#[test]
fn a_directory_that_cannot_be_read_is_told_and_each_file_has_its_line() {
    let root = tempfile::tempdir().expect("a directory");
    let at = root.path().to_string_lossy().into_owned();
    assert_eq!(client_config(&["docker", "--root", &at, "--write"]).status.code(), Some(0));
    let certs = root.path().join("etc/docker/certs.d");
    std::fs::remove_dir_all(&certs).expect("removed");
    std::fs::write(&certs, "").expect("written");
    let output = client_config(&["docker", "--root", &at, "--check"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let words: Vec<_> = said.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(words, ["stands", "unknown", "unknown", "unknown", "unknown"], "{said}");
    assert!(said.ends_with("so files of routes that are gone may be left there\n"), "{said}");
}

/// It stood, and each pull of that registry was refused.
#[test]
fn a_file_of_somebody_elses_that_has_a_route_that_is_gone_does_not_stand() {
    for (client, path, content) in [
        (
            "k3s",
            "etc/rancher/k3s/registries.yaml",
            "mirrors:\n  gone.example:\n    endpoint: [http://127.0.0.1:8080]\n",
        ),
        (
            "rke2",
            "etc/rancher/rke2/registries.yaml",
            "mirrors:\n  gone.example:\n    endpoint: [http://localhost:8080/]\n",
        ),
        ("buildkit", "etc/buildkit/buildkitd.toml", "[registry.\"gone.example\"]\n  mirrors = [\"127.0.0.1:8080\"]\n"),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let at = root.path().to_string_lossy().into_owned();
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(&path, content).expect("written");
        let check = || client_config(&[client, "--root", &at, "--check"]);
        let says = "it sends gone.example to the proxy, which has no route for it: take that out there";
        let output = check();
        let said = text(&output.stdout);
        assert!(said.starts_with("differs ") && said.contains(says) && output.status.code() == Some(1), "{said}");
        let output = client_config(&[client, "--root", &at, "--write", "--merge"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(text(&output.stderr).matches(" sends gone.example to the proxy").count(), 1, "{output:?}");
        let output = check();
        let said = text(&output.stdout);
        assert!(said.starts_with("stale ") && said.contains(says) && output.status.code() == Some(1), "{said}");
        let merged = std::fs::read_to_string(&path).expect("there");
        std::fs::write(&path, merged.replace("gone.example", "ghcr.io-is-elsewhere").replace(":8080", ":9090"))
            .expect("written");
        assert!(!text(&check().stdout).starts_with("stale "), "another mirror's");
    }
}

/// It stood, and clients went on asking an address where nobody listens.
#[test]
fn a_file_that_names_this_host_does_not_stand_where_the_mirror_is_another() {
    const MIRROR: &str = "http://mirror.internal:8080";
    for (client, path, content) in [
        ("docker", "etc/docker/daemon.json", "{\"registry-mirrors\": [\"http://127.0.0.1:8080\"]}\n"),
        (
            "k3s",
            "etc/rancher/k3s/registries.yaml",
            "mirrors:\n  docker.io:\n    endpoint:\n      - http://127.0.0.1:8080\n",
        ),
        ("buildkit", "etc/buildkit/buildkitd.toml", "[registry.\"docker.io\"]\n  mirrors = [\"127.0.0.1:8080\"]\n"),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let at = root.path().to_string_lossy().into_owned();
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(&path, content).expect("written");
        let of_file = |args: &[&str]| {
            let output = client_config(&[&[client, "--root", &at, "--mirror", MIRROR], args].concat());
            let said = text(&output.stdout);
            let line = said.lines().find(|line| line.contains(path.to_str().expect("UTF-8"))).map(str::to_owned);
            (line.unwrap_or_default(), said)
        };
        let (line, said) = of_file(&["--check"]);
        assert!(line.starts_with("differs ") && line.contains("mirror.internal:8080"), "{said}");
        of_file(&["--write", "--merge"]);
        let (line, said) = of_file(&["--check"]);
        assert!(line.starts_with("stands ") && line.contains("127.0.0.1:8080 is asked"), "{said}");
        // By another of its own names it is the same proxy.
        let own = client_config(&[client, "--root", &at, "--mirror", "http://localhost:8080", "--check"]);
        let own = text(&own.stdout);
        assert!(own.lines().any(|line| line.starts_with("differs ") && line.contains("before it")), "{own}");
    }
}

/// Each run told to merge into it what it said already, with status 1.
#[test]
fn a_hosts_toml_that_says_all_that_is_wanted_stands_whoever_wrote_it() {
    const PROXY: &str = "[host.\"http://127.0.0.1:8080\"]\n  capabilities = [\"pull\", \"resolve\"]\n";
    const SOURCE: &str = "server = \"https://registry-1.docker.io\"\n";
    let with = |before: &str, after: &str| format!("{before}{PROXY}{after}");
    let by_name = PROXY.replace("127.0.0.1", "localhost");
    for (registry, content, stands) in [
        ("docker.io", with(SOURCE, ""), true),
        ("docker.io", with("", ""), true),
        ("docker.io", with(SOURCE, "skip_verify = true\n"), true),
        ("docker.io", with(SOURCE, "[host.\"https://mirror.example\"]\n"), true),
        ("docker.io", format!("{SOURCE}{by_name}"), true),
        ("docker.io", format!("{SOURCE}[host.\"https://mirror.example\"]\n{PROXY}"), false),
        ("docker.io", with(SOURCE, "").replace(", \"resolve\"", ""), false),
        ("docker.io", with(SOURCE, "").replace(":8080", ":8081"), false),
        ("docker.io", with(SOURCE, "override_path = true\n"), false),
        ("docker.io", with(SOURCE, "skip_verify = \"yes\"\n"), false),
        ("docker.io", with("server = \"http://127.0.0.1:8080\"\n", ""), false),
        ("docker.io", "[host\n".to_owned(), false),
        ("docker.io", String::new(), false),
        // Its route is closed.
        ("registry.k8s.io", with("server = \"http://127.0.0.1:8080\"\n", ""), true),
        ("registry.k8s.io", with("server = \"https://registry.k8s.io\"\n", ""), false),
        ("registry.k8s.io", with("", ""), false),
    ] {
        for (client, certs) in [("containerd", "etc/containerd/certs.d"), ("docker", "etc/docker/certs.d")] {
            let root = tempfile::tempdir().expect("a directory");
            let at = root.path().to_string_lossy().into_owned();
            let path = root.path().join(certs).join(registry).join("hosts.toml");
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(&path, &content).expect("written");
            for task in [&["--write", "--merge"][..], &["--write"], &["--check"]] {
                let output = client_config(&[&[client, "--root", &at], task].concat());
                let said = text(&output.stdout) + &text(&output.stderr);
                assert_eq!(output.status.code(), Some(i32::from(!stands)), "{content}: {said}");
                assert_eq!(said.contains("merge this into it"), !stands && task != ["--check"], "{said}");
                assert_eq!(std::fs::read_to_string(&path).expect("there"), content);
            }
        }
    }
}

#[test]
fn the_help_says_which_files_are_merged() {
    let said = text(&client_config(&["--help"]).stdout);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("Add to a daemon.json, buildkitd.toml or registries.yaml of somebody else"), "{said}");
}
