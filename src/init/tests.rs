//! What a run shows and does, without a terminal.

use super::*;

fn options(root: &Path) -> Options {
    Options {
        registry: None,
        rules: Vec::new(),
        client_id: None,
        listen: None,
        admin: None,
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
    let left = Init::new(&options, talk, host).go().expect("no end");
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

/// The service did not start, and engines had been sent to whatever listened there.
#[test]
fn what_listens_where_the_proxy_is_to_is_told_before_anything_is_written() {
    let root = tempfile::tempdir().expect("a directory");
    let (taken, free) = (std::net::TcpListener::bind("127.0.0.1:0"), std::net::TcpListener::bind("127.0.0.1:0"));
    let (taken, free) = (taken.expect("a port"), free.expect("a port").local_addr().expect("bound"));
    let taken_at = taken.local_addr().expect("bound");
    // It takes connections and answers nobody.
    for (listen, admin, flag) in [(taken_at, free, "--listen-address"), (free, taken_at, "--admin-address")] {
        let rule = Rule { source: "docker.io".to_owned(), prefix: "hub".to_owned() };
        let (listen, admin) = (Some(listen), Some(admin));
        let registry = Some("example.azurecr.io".to_owned());
        let options = Options { registry, rules: vec![rule], listen, admin, ..options(root.path()) };
        let talk = Conversation::new(&b""[..], Vec::new(), Manner::Yes);
        let host = Host { is_this: true, ..Host::look(&options, true) };
        let left = Init::new(&options, talk, host).go().expect("no end");
        let port = taken_at.port();
        let says = format!(
            "nothing was done, because the proxy cannot listen on {taken_at}, where another program listens: find it with ss -ltnp 'sport = :{port}' and end it, or choose another port: "
        );
        assert!(left.len() == 1 && left[0].starts_with(&says) && left[0].contains(flag), "{left:?}");
        assert!(!root.path().join("etc").exists());
    }
}

/// Of an archive without systemd the program is there and nobody starts it.
#[test]
fn without_a_service_manager_no_engine_is_sent_to_a_proxy_that_does_not_run() {
    let root = tempfile::tempdir().expect("a directory");
    let put = |path: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("in a directory")).expect("made");
        std::fs::write(path, "").expect("written");
    };
    put("usr/bin/podman");
    let drop_ins = root.path().join("etc/containers");
    for (manner, runs, is_written) in
        [(Manner::Yes, false, false), (Manner::Ask, false, false), (Manner::Yes, true, true), (Manner::Ask, true, true)]
    {
        // It refuses as the proxy does, until the test ends.
        let proxy = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let listen = proxy.local_addr().expect("bound");
        if runs {
            std::thread::spawn(move || {
                for mut stream in proxy.incoming().flatten() {
                    let _ = stream.write_all(b"HTTP/1.1 405 x\r\n\r\n{\"errors\":[{\"code\":\"UNSUPPORTED\"}]}");
                }
            });
        } else {
            drop(proxy);
        }
        let _ = std::fs::remove_dir_all(root.path().join("etc"));
        let rule = Rule { source: "docker.io".to_owned(), prefix: "hub".to_owned() };
        let registry = Some("example.azurecr.io".to_owned());
        let options = Options { registry, rules: vec![rule], listen: Some(listen), ..options(root.path()) };
        let manager = Manager::Absent("systemd does not run here");
        let host = Host { is_this: runs, manager, ..Host::look(&options, true) };
        let mut output = Vec::new();
        let talk = Conversation::new(&b"y\n\n"[..], &mut output, manner);
        let left = Init::new(&options, talk, host).go().expect("no end");
        let said = String::from_utf8(output).expect("text");
        assert_eq!(drop_ins.exists(), is_written, "{manner:?} {left:?} {said}");
        assert!(is_written || (said.clone() + &left.join("\n")).contains("start it, and run init again"), "{said}");
    }
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
    let left = Init::new(&options, talk, host).go().expect("no end");
    assert!(left.len() == 1 && left[0].contains("upstraem: unknown setting: did you mean upstream?"), "{left:?}");
    assert!(left[0].ends_with("correct the configuration, and run init again"), "{left:?}");
    assert!(String::from_utf8_lossy(&output).contains("did you mean upstream?"), "it is shown before, too");
}
