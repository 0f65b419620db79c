//! What a run shows and does, without a terminal.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};

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
    let host = Found::look(&options, false);
    let left = Init::new(&options, talk, host).go().expect("no end");
    let said = String::from_utf8(output).expect("text");
    let (before, after) = said.split_once("You are not root").expect(&said);
    assert_eq!(before.matches(" (needs root)\n").count(), 3, "{said}");
    assert!(after.contains("  - source: ghcr.io\n") && after.contains("registries.conf.d"), "{said}");
    // Typed without the root, it would have prepared the live host.
    let command = "sudo acr-cache-proxy init --registry example.azurecr.io --source docker.io --prefix hub --source ghcr.io --prefix ''";
    let root_flag = root.path().display();
    let so = "--skip try";
    assert_eq!(left, [format!("nothing was done, because you are not root: {command} {so} --root {root_flag}")]);
    assert!(!root.path().join("etc").exists());
}

/// Its `--yes` and `--skip` were not in the command that was to be run by root.
#[test]
fn the_command_for_root_is_the_one_that_was_given() {
    let root = tempfile::tempdir().expect("a directory");
    let rules = vec![Rule { source: "docker.io".to_owned(), prefix: "hub".to_owned() }];
    let registry = Some(WANTED.to_owned());
    let skip = vec![Step::Try, Step::Engines];
    let options = Options { registry, rules, yes: true, replace: true, skip, ..options(root.path()) };
    let talk = Conversation::new(&b""[..], Vec::new(), Manner::Yes);
    let left = Init::new(&options, talk, Found::look(&options, false)).go().expect("no end");
    let flags =
        "--registry example.azurecr.io --source docker.io --prefix hub --yes --replace --skip try --skip engines";
    assert!(left.len() == 1 && left[0].contains(&format!("sudo acr-cache-proxy init {flags} --root ")), "{left:?}");
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
        let host = Found { is_this: true, ..Found::look(&options, true) };
        let left = Init::new(&options, talk, host).go().expect("no end");
        let port = taken_at.port();
        let says = format!(
            "nothing was done, because the proxy cannot listen on {taken_at}, where another program listens: find it with ss -ltnp 'sport = :{port}' and end it, or choose another port: "
        );
        assert!(left.len() == 1 && left[0].starts_with(&says) && left[0].contains(flag), "{left:?}");
        assert!(!root.path().join("etc").exists());
    }
}

/// Its answer was waited for as long as bytes of it came, up to 4 MiB of them.
#[test]
fn a_server_that_sends_a_byte_now_and_then_held_init() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let drip = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    });
    assert!(port::ask(address, "/").is_none());
    // Its connection has been given up.
    drip.join().expect("it ends");
}

/// Answers each request so until the test ends, and one for `/readyz` by the status 503 and that text, if there is one.
fn server(answer: String, unready: Option<&'static str>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 1 << 10];
            let _ = io::Read::read(&mut stream, &mut request);
            let answer = match unready.filter(|_| request.starts_with(b"GET /readyz ")) {
                Some(body) => format!("HTTP/1.0 503 Service Unavailable\r\n\r\n{body}"),
                None => format!("HTTP/1.0 200 OK\r\nDocker-Distribution-API-Version: registry/2.0\r\n\r\n{answer}"),
            };
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

/// What a proxy answers, and its admin listener where it serves this registry.
fn proxy(registry: &str) -> (SocketAddr, SocketAddr) {
    let status = format!(
        "{{\"routes\":[{{\"route\":\"docker.io\",\"registry\":\"{registry}\",\"prefix\":\"hub\"}}],\
         \"registries\":[{{\"domain\":\"{registry}\",\"identity\":{{\"kind\":\"default chain\",\"id\":null}}}}]}}"
    );
    let unready = (registry == UNREADY).then_some("{\"ready\":false,\"summary\":\"not ready: no token for it\"}");
    (server("{\"errors\":[{\"code\":\"UNSUPPORTED\"}]}".to_owned(), None), server(status, unready))
}

const WANTED: &str = "example.azurecr.io";
/// The proxy of this one has no token.
const UNREADY: &str = "unready.azurecr.io";

/// Where nobody listens, of an address of this host that no other call gets: a port that was given back may be the next one's.
fn free() -> SocketAddr {
    static CALLS: AtomicU8 = AtomicU8::new(0);
    let ip = Ipv4Addr::new(127, 0, 1, CALLS.fetch_add(1, Ordering::Relaxed));
    std::net::TcpListener::bind((ip, 0)).and_then(|port| port.local_addr()).expect("a port")
}

/// A host with podman and without systemd, on which a proxy of this registry runs, or none does.
fn without_systemd(root: &Path, running: Option<&str>, manner: Manner, skip: Vec<Step>) -> (Vec<String>, String) {
    let (listen, admin) = running.map_or_else(|| (free(), free()), proxy);
    let podman = root.join("usr/bin/podman");
    std::fs::create_dir_all(podman.parent().expect("in a directory")).expect("made");
    std::fs::write(podman, "").expect("written");
    let rules = vec![Rule { source: "docker.io".to_owned(), prefix: "hub".to_owned() }];
    let registry = Some(if running == Some(UNREADY) { UNREADY } else { WANTED }.to_owned());
    let options = Options { registry, rules, listen: Some(listen), admin: Some(admin), skip, ..options(root) };
    let manager = Manager::Absent("systemd does not run here");
    let host = Found { is_this: true, manager, ..Found::look(&options, true) };
    let mut output = Vec::new();
    let talk = Conversation::new(&b"y\n\n"[..], &mut output, manner);
    let left = Init::new(&options, talk, host).go().expect("no end");
    (left, String::from_utf8(output).expect("text"))
}

/// It said "--yes does all of the above", and with `--yes` no engine's file was written, because the proxy did not run.
#[test]
fn without_a_terminal_only_what_yes_does_is_promised() {
    let nobody = "nothing was done, because standard input is no terminal and nobody agrees: ";
    let not_engines = "--yes does the above but for the engines' files, because the proxy does not run yet: start it, and run init again";
    for (running, skip, says) in [
        (None, vec![Step::Try], not_engines),
        (None, vec![Step::Try, Step::Service], not_engines),
        (None, vec![Step::Try, Step::Engines], "--yes does all of the above"),
        (Some(WANTED), vec![Step::Try], "--yes does all of the above"),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let (left, _) = without_systemd(root.path(), running, Manner::Show, skip.clone());
        assert_eq!(left, [format!("{nobody}{says}")], "{running:?} {skip:?}");
        // An edited configuration is replaced by another flag.
        let path = root.path().join(CONFIG);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(&path, "upstream: {domain: other.azurecr.io, prefix: hub}\n").expect("written");
        let (left, _) = without_systemd(root.path(), running, Manner::Show, skip.clone());
        assert_eq!(left, [format!("{nobody}{}", says.replace("--yes", "--yes --replace"))], "{running:?} {skip:?}");
    }
}

/// Of an archive without systemd the program is there and nobody starts it. Nobody was told to, and the exit status was 0.
#[test]
fn without_a_service_manager_no_engine_is_sent_to_a_proxy_that_does_not_run_and_its_start_is_left_to_do() {
    for (manner, running, is_written) in [
        (Manner::Yes, None, false),
        (Manner::Ask, None, false),
        (Manner::Yes, Some(WANTED), true),
        (Manner::Ask, Some(WANTED), true),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let (left, said) = without_systemd(root.path(), running, manner, vec![Step::Try]);
        assert_eq!(root.path().join("etc/containers").exists(), is_written, "{manner:?} {left:?} {said}");
        assert!(is_written || (said.clone() + &left.join("\n")).contains("start it, and run init again"), "{said}");
        let start = "the service is not started, because systemd does not run here: have this run now and at each boot: acr-cache-proxy --config /etc/acr-cache-proxy/config.yaml";
        assert_eq!(left.first().map(String::as_str), (!is_written).then_some(start), "{manner:?}");
        // By --yes it came twice in a row, word for word; who is asked about engines first needs it before, too.
        assert_eq!(said.contains(start), !is_written && manner == Manner::Ask, "{manner:?} {said}");
    }
}

/// It serves what the configuration says, and answers 503: the status was 0.
#[test]
fn a_proxy_that_runs_without_a_token_is_told() {
    let root = tempfile::tempdir().expect("a directory");
    let (left, said) = without_systemd(root.path(), Some(UNREADY), Manner::Yes, vec![Step::Try]);
    assert!(left.len() == 1 && left[0].contains("the proxy that runs is not ready"), "{left:?}");
    assert!(left[0].contains("not ready: no token for it") && !said.contains("not ready"), "once: {left:?} {said}");
    assert!(root.path().join("etc/containers").exists(), "{said}");
}

/// Its command had no variables, so the proxy got no token.
#[test]
fn the_start_by_hand_has_the_variables_of_the_service() {
    let plain = "acr-cache-proxy --config /etc/acr-cache-proxy/config.yaml";
    for (variables, expected) in [
        ("# none\n", plain.to_owned()),
        ("AZURE_CLIENT_SECRET='s$cret'\n", format!("sh -c 'set -a; . /etc/acr-cache-proxy/environment; exec {plain}'")),
        (
            "AZURE_CLIENT_SECRET=s$cret\n",
            format!("{plain}  # with the variables of /etc/acr-cache-proxy/environment in its environment"),
        ),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join(ENVIRONMENT);
        std::fs::create_dir_all(path.parent().expect("in a directory")).expect("made");
        std::fs::write(&path, variables).expect("written");
        let (left, _) = without_systemd(root.path(), None, Manner::Yes, vec![Step::Try]);
        assert!(left[0].ends_with(&format!("at each boot: {expected}")), "{left:?}");
    }
}

/// The engines' files were written though nothing listened.
#[test]
fn without_the_step_of_the_service_engines_are_sent_only_to_a_proxy_that_runs() {
    for (running, is_written) in [(None, false), (Some(WANTED), true)] {
        for manner in [Manner::Yes, Manner::Ask] {
            let root = tempfile::tempdir().expect("a directory");
            let (left, said) = without_systemd(root.path(), running, manner, vec![Step::Try, Step::Service]);
            assert_eq!(root.path().join("etc/containers").exists(), is_written, "{manner:?} {left:?} {said}");
            assert!(is_written || (said + &left.join("\n")).contains("start it, and run init again"), "{left:?}");
        }
    }
}

/// Every proxy of this program was taken for the host's own, and engines were sent to another registry.
#[test]
fn a_proxy_of_another_registry_at_the_port_is_told_and_nothing_is_done() {
    let root = tempfile::tempdir().expect("a directory");
    let (left, said) = without_systemd(root.path(), Some("other.azurecr.io"), Manner::Yes, vec![Step::Try]);
    let says = "where another acr-cache-proxy, which serves docker.io -> other.azurecr.io/hub and not docker.io -> example.azurecr.io/hub, listens: find it with ss -ltnp ";
    assert!(left.len() == 1 && left[0].contains(says) && left[0].contains("choose another port: "), "{left:?} {said}");
    assert!(!root.path().join("etc").exists(), "{said}");
}

/// It runs by the host's configuration, which is replaced: until it reads that, it serves the registry of before.
#[test]
fn a_proxy_that_has_not_read_the_new_configuration_gets_no_engine() {
    let root = tempfile::tempdir().expect("a directory");
    let (listen, admin) = proxy("other.azurecr.io");
    let path = root.path().join(CONFIG);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    std::fs::create_dir_all(root.path().join("usr/bin")).expect("made");
    std::fs::write(root.path().join("usr/bin/podman"), "").expect("written");
    let before = format!("listen: {listen}\nadmin: {admin}\nupstream: {{domain: other.azurecr.io, prefix: hub}}\n");
    std::fs::write(&path, before).expect("written");
    let rules = vec![Rule { source: "docker.io".to_owned(), prefix: "hub".to_owned() }];
    let (registry, listen, admin) = (Some(WANTED.to_owned()), Some(listen), Some(admin));
    let options = Options { registry, rules, listen, admin, yes: true, replace: true, ..options(root.path()) };
    let manager = Manager::Absent("systemd does not run here");
    let host = Found { is_this: true, manager, ..Found::look(&options, true) };
    let talk = Conversation::new(&b""[..], Vec::new(), Manner::Yes);
    let left = Init::new(&options, talk, host).go().expect("no end");
    assert!(std::fs::read_to_string(&path).expect("there").contains(WANTED));
    assert_eq!(left.len(), 2, "{left:?}");
    let serves = "serves docker.io -> other.azurecr.io/hub";
    assert!(left.iter().all(|left| left.contains(serves) && left.contains("acr-cache-proxy reload")), "{left:?}");
    assert!(!root.path().join("etc/containers").exists());
}

/// What `init` leaves to do, by these settings, on a host without systemd, and how its configuration is called.
fn over(root: &Path, before: &Settings, settings: &Settings, skip: &[Step]) -> (Vec<String>, String) {
    let path = root.join(CONFIG);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    std::fs::write(&path, before.to_yaml()).expect("written");
    let Settings { registry, rules, client_id, listen, admin } = settings.clone();
    let (registry, listen, admin) = (Some(registry), Some(listen), Some(admin));
    let skip = [&[Step::Try], skip].concat();
    let options =
        Options { registry, rules, client_id, listen, admin, yes: true, replace: true, skip, ..options(root) };
    let manager = Manager::Absent("systemd does not run here");
    let host = Found { is_this: true, manager, ..Found::look(&options, true) };
    let talk = Conversation::new(&b""[..], Vec::new(), Manner::Yes);
    let left = Init::new(&options, talk, host).go().expect("no end");
    assert_eq!(std::fs::read_to_string(&path).expect("there"), settings.to_yaml(), "{left:?}");
    (left, path.display().to_string())
}

/// "The proxy runs already", with status 0, and it went by the configuration of before; or its own admin listener was "another program".
#[test]
fn a_proxy_that_does_not_go_by_the_new_configuration_is_told_with_the_command_that_makes_it() {
    let (listen, admin) = proxy(WANTED);
    let rules = vec![Rule { source: "docker.io".to_owned(), prefix: "hub".to_owned() }];
    let before = Settings { registry: WANTED.to_owned(), rules, client_id: None, listen, admin };
    let silent = Settings { admin: free(), ..before.clone() };
    let moved = Settings { listen: free(), ..before.clone() };
    let both = Settings { listen: free(), ..silent.clone() };
    let wide = Settings { listen: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), listen.port()), ..before.clone() };
    let identity = Settings { client_id: Some("11111111-2222-4333-8444-555555555555".to_owned()), ..before.clone() };
    let reload = "does not go by CONFIG as it is now: acr-cache-proxy reload";
    let does_not_listen =
        "does not listen where /etc/acr-cache-proxy/config.yaml says: have it read that again: acr-cache-proxy reload";
    let restart = format!("restart it, because a reload cannot have it listen on {} in place of {listen}", wide.listen);
    for (what, from, to, skip, says) in [
        ("the same", &before, &before, &[Step::Engines][..], None),
        ("another admin listener", &before, &silent, &[Step::Engines], Some(reload)),
        ("the same without a start", &before, &silent, &[Step::Engines, Step::Service], Some(reload)),
        ("once more, and nobody has reloaded it", &silent, &silent, &[Step::Engines], Some(reload)),
        ("another identity", &before, &identity, &[Step::Engines], Some(reload)),
        ("once more", &identity, &identity, &[Step::Engines], Some(reload)),
        ("another address for clients", &before, &moved, &[Step::Engines], Some(does_not_listen)),
        ("once more", &moved, &moved, &[Step::Engines], Some(does_not_listen)),
        ("the same without a start", &before, &moved, &[Step::Engines, Step::Service], Some(reload)),
        ("other addresses", &before, &both, &[Step::Engines], Some(does_not_listen)),
        ("an address that overlaps", &before, &wide, &[Step::Engines], Some(&restart)),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let (left, config) = over(root.path(), from, to, skip);
        let says = says.map(|says| says.replace("CONFIG", &config));
        assert_eq!(left.len(), usize::from(says.is_some()), "{what}: {left:?}");
        assert!(says.is_none_or(|says| left[0].ends_with(&says)), "{what}: {left:?}");
    }
}

/// The last lines were those of a host whose pulls come through the proxy.
#[test]
fn a_proxy_that_is_down_is_told_at_the_end_where_its_start_is_left_out() {
    for (running, is_told) in [(None, true), (Some(WANTED), false)] {
        let root = tempfile::tempdir().expect("a directory");
        let (left, said) = without_systemd(root.path(), running, Manner::Ask, vec![Step::Try, Step::Service]);
        let end = "\nNo pull comes through the proxy yet, because the proxy does not run yet: start it, and run init again.\n\nWhether ";
        assert!(left.is_empty() && said.contains(end) == is_told, "{left:?} {said}");
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
    let host = Found::look(&options, true);
    let left = Init::new(&options, talk, host).go().expect("no end");
    assert!(left.len() == 1 && left[0].contains("upstraem: unknown setting: did you mean upstream?"), "{left:?}");
    assert!(left[0].ends_with("correct the configuration, and run init again"), "{left:?}");
    assert!(String::from_utf8_lossy(&output).contains("did you mean upstream?"), "it is shown before, too");
}
