//! Who may pull by the names of a client's certificate, and who is turned away before a handshake.

use std::io::{self, Read as _, Write as _};
use std::process::Command;
use std::sync::Arc;

use rustls::{AlertDescription, ClientConfig};

use crate::load::{load, sent_to_registry, wait_for_load};
use crate::tls::{BOTH, Secret, ask, connect, secured, settings};
use crate::wire;
use testkit::certificates::{Authority, Pair, self_signed};
use testkit::{Proxy, Setup};

const RULE: &str = "access: {certificates: ['system:node:*', '*.nodes.internal', 'spiffe://example.org/nodes/*']}";

/// Version with status, and body, by curl over HTTP/2 with this certificate.
fn over_http2(ca: &Authority, pair: &Pair, proxy: &Proxy) -> (String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        path
    };
    let port = proxy.address().port();
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--noproxy", "*", "--http2", "--cacert"])
        .arg(file("ca.pem", ca.pem()))
        .arg("--cert")
        .arg(file("client.pem", &pair.certificate))
        .arg("--key")
        .arg(file("client.key", &pair.key))
        .args(["--write-out", "\n%{http_version} %{http_code}"])
        .args(["--resolve", &format!("mirror.internal:{port}:127.0.0.1")])
        .arg(format!("https://mirror.internal:{port}/v2/"))
        .output()
        .expect("curl runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let (body, status) = text.rsplit_once('\n').expect("a status");
    (status.to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_pull_is_limited_to_names_of_certificates() {
    let azure = testkit::azure().await;
    let (servers, clients) = (Authority::new("mirror CA"), Authority::new("client CA"));
    let secret = Secret::new(&servers.server(&["mirror.internal"]), &[&clients]);
    for auth in ["required", "optional"] {
        let tls = secret.tls(&format!(", client_ca: {{ca}}, client_auth: {auth}"));
        let setup = Setup::new(&azure).listen(&format!("[{{address: '127.0.0.1:0', tls: {tls}}}]")).settings(RULE);
        let proxy = setup.flag("--admin-address", ":0").start();
        let before = sent_to_registry(&azure.requests());
        let mut refused = 0;
        for (name, uri, status) in [
            ("system:node:node-7", "spiffe://example.org/other", 200),
            ("a.nodes.internal", "spiffe://example.org/other", 200),
            ("somebody", "spiffe://example.org/nodes/7", 200),
            ("somebody", "spiffe://example.org/other", 403),
            ("nodes.internal", "spiffe://example.org/nodes", 403),
        ] {
            let pair = clients.client(name, uri);
            let settings = settings(&servers, Some(&pair), &BOTH);
            let (over_h2, body) = over_http2(&servers, &pair, &proxy);
            assert_eq!(over_h2, format!("2 {status}"), "{name} {uri}: {body}");
            assert_eq!(ask(&mut connect(&settings, &proxy)).expect("an answer"), status, "{name} {uri}");
            if status == 403 {
                refused += 2;
                let says = "the client's certificate may not pull here: whoever runs this proxy decides that";
                assert!(body.contains(says) && body.contains("\"DENIED\""), "{body}");
                let mut connection = connect(&settings, &proxy);
                connection.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
                let mut answer = Vec::new();
                let _ = connection.read_to_end(&mut answer);
                refused += 1;
                assert!(String::from_utf8_lossy(&answer).contains(says));
            }
        }
        if auth == "optional" {
            let settings = settings(&servers, None, &BOTH);
            assert_eq!(ask(&mut connect(&settings, &proxy)).expect("an answer"), 403);
            refused += 1;
        }
        assert_eq!(load(&proxy)["refused"]["certificate"], refused);
        assert_eq!(sent_to_registry(&azure.requests()), before);
        let log = proxy.end();
        let told = |line: &&str| {
            line.contains("INFO  access] ")
                && line.contains(" certificate=somebody ")
                && line.contains(" error=the client's certificate may not pull here")
        };
        assert_eq!(log.lines().filter(told).count(), 1, "one line a minute for a client: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_added_by_a_reload_count_for_connections_that_are_open() {
    let azure = testkit::azure().await;
    let (servers, clients) = (Authority::new("mirror CA"), Authority::new("client CA"));
    let secret = Secret::new(&servers.server(&["mirror.internal"]), &[&clients]);
    let tls = secret.tls(", client_ca: {ca}");
    let proxy = Setup::new(&azure).listen(&format!("[{{address: '127.0.0.1:0', tls: {tls}}}]")).start();
    let pair = clients.client("somebody", "spiffe://example.org/other");
    let mut connection = connect(&settings(&servers, Some(&pair), &BOTH), &proxy);
    assert_eq!(ask(&mut connection).expect("an answer"), 200);
    let without = std::fs::read_to_string(proxy.config()).expect("the settings");
    for (rule, status) in [(RULE, 403), ("access: {certificates: [somebody]}", 200)] {
        let (is_good, said) = proxy.reload_with(&format!("{without}\n{rule}\n"));
        assert!(is_good, "{said}");
        assert_eq!(ask(&mut connection).expect("an answer"), status, "{rule}");
    }
}

/// Why a handshake fails.
fn alert(settings: &Arc<ClientConfig>, stream: impl io::Read + io::Write) -> AlertDescription {
    let failed = ask(&mut secured(settings, stream)).expect_err("no handshake");
    match failed.get_ref().and_then(|cause| cause.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("{failed:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_address_may_not_pull_is_turned_away_before_the_handshake() {
    let azure = testkit::azure().await;
    let ca = Authority::new("mirror CA");
    let secret = Secret::new(&ca.server(&["mirror.internal"]), &[]);
    let settings = settings(&ca, None, &BOTH);
    for (listener, rule, header, seen) in [
        ("", "access: {deny: [127.0.0.0/8]}", "", "127.0.0.1"),
        // The true address, which the balancer tells.
        (", proxy_protocol: {trusted: [127.0.0.1]}", "access: {deny: [192.0.2.0/24]}", "192.0.2.7", "192.0.2.7"),
    ] {
        let listen = format!("[{{address: '127.0.0.1:0', tls: {}{listener}}}]", secret.tls(""));
        let proxy = Setup::new(&azure).listen(&listen).settings(rule).flag("--admin-address", ":0").start();
        let open = |header: &str| {
            let mut stream = wire::connect(proxy.address());
            if !header.is_empty() {
                stream.write_all(format!("PROXY TCP4 {header} 192.0.2.1 32768 80\r\n").as_bytes()).expect("sent");
            }
            stream
        };
        for _ in 0..3 {
            assert_eq!(alert(&settings, open(header)), AlertDescription::AccessDenied, "{rule}");
        }
        assert_eq!(load(&proxy)["refused"]["network"], 3);
        if !header.is_empty() {
            assert_eq!(ask(&mut secured(&settings, open("198.51.100.7"))).expect("an answer"), 200);
        }
        let log = proxy.end();
        let told = |line: &&str| line.contains("INFO  access] - - 0 0B ") && line.contains(" may not pull");
        let lines: Vec<_> = log.lines().filter(told).collect();
        assert_eq!(lines.len(), 1, "one line a minute: {log}");
        assert!(lines[0].contains(&format!(" client={seen}:")), "{}", lines[0]);
    }
    assert_eq!(sent_to_registry(&azure.requests()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_too_many_connections_gets_no_handshake_for_more() {
    let azure = testkit::azure().await;
    let ca = Authority::new("mirror CA");
    let secret = Secret::new(&ca.server(&["mirror.internal"]), &[]);
    let settings = settings(&ca, None, &BOTH);
    let listen = format!("[{{address: '127.0.0.1:0', tls: {}}}]", secret.tls(""));
    let limits = "limits: {connections_per_client: 2}";
    let proxy = Setup::new(&azure).listen(&listen).settings(limits).flag("--admin-address", ":0").start();
    // One of them has not sent a byte of its handshake.
    let mut open = connect(&settings, &proxy);
    assert_eq!(ask(&mut open).expect("an answer"), 200);
    let silent = wire::connect(proxy.address());
    wait_for_load(&proxy, "both", |load| load["connections"]["now"] == 2);
    assert_eq!(alert(&settings, wire::connect(proxy.address())), AlertDescription::InternalError);
    assert_eq!(load(&proxy)["refused"]["connections_per_client"], 1);
    drop(silent);
    wait_for_load(&proxy, "room", |load| load["connections"]["now"] == 1);
    assert_eq!(ask(&mut connect(&settings, &proxy)).expect("an answer"), 200);
}

/// `server gave HTTP response to HTTPS client`, as clients made with Go said.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_with_tls_over_the_limit_of_all_connections_answered_in_plain_http() {
    const LIMIT: usize = 16;
    /// Of these some are given the time to read why, and further ones are closed at once.
    const MORE: usize = 100;
    let azure = testkit::azure().await;
    let ca = Authority::new("mirror CA");
    let secret = Secret::new(&ca.server(&["mirror.internal"]), &[]);
    let settings = settings(&ca, None, &BOTH);
    let listen = format!("[{{address: '127.0.0.1:0', tls: {}}}]", secret.tls(""));
    let setup = Setup::new(&azure).listen(&listen).settings(&format!("limits: {{connections: {LIMIT}}}"));
    let proxy = setup.flag("--admin-address", ":0").start();
    let mut held: Vec<_> = (0..LIMIT).map(|_| connect(&settings, &proxy)).collect();
    for connection in &mut held {
        connection.conn.complete_io(&mut connection.sock).expect("a handshake");
    }
    assert_eq!(alert(&settings, wire::connect(proxy.address())), AlertDescription::InternalError);
    let refused: Vec<_> = (0..MORE).map(|_| wire::connect(proxy.address())).collect();
    for mut client in refused {
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("an answer, and the end of the connection");
        assert_eq!(answer, [21, 3, 3, 0, 2, 2, 80], "a record of the alert, and nothing else");
    }
    assert_eq!(load(&proxy)["connections"]["refused"], MORE + 1);
    drop(held);
    proxy.wait_for_log("connections: there is room again");
    assert_eq!(ask(&mut connect(&settings, &proxy)).expect("an answer"), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_that_clients_are_not_authenticated_only_where_they_are_not() {
    let azure = testkit::azure().await;
    let (servers, clients) = (Authority::new("mirror CA"), Authority::new("client CA"));
    let secret = Secret::new(&servers.server(&["mirror.internal"]), &[&clients]);
    for (auth, rule, is_told) in
        [("optional", "access: {}", true), ("optional", RULE, false), ("required", "access: {}", false)]
    {
        let tls = secret.tls(&format!(", client_ca: {{ca}}, client_auth: {auth}"));
        let setup = Setup::new(&azure).listen(&format!("[{{address: '0.0.0.0:0', tls: {tls}}}]")).settings(rule);
        let log = setup.start().end();
        assert_eq!(log.contains("clients are not authenticated"), is_told, "{auth} {rule}: {log}");
    }
}

/// `Other(OtherError(CaUsedAsEndEntity))`, and nothing of what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_a_cas_own_was_told_in_words_for_programmers() {
    let azure = testkit::azure().await;
    let (ca, own) = (Authority::new("mirror CA"), self_signed(&["127.0.0.1"]));
    let setup = Setup::new(&azure);
    let file = |name: &str, text: &str| setup.file(name, text).display().to_string();
    let (own_file, own_key) = (file("own.crt", &own.certificate), file("own.key", &own.key));
    let server = ca.server(&["mirror.internal"]);
    let (good, key) = (file("tls.crt", &server.certificate), file("tls.key", &server.key));
    let listeners = [
        format!("{{address: '127.0.0.1:0', tls: {{certificate: {good}, key: {key}, client_ca: {own_file}}}}}"),
        format!("{{address: '127.0.0.1:0', tls: {{certificate: {own_file}, key: {own_key}}}}}"),
    ];
    let proxy = setup.listen(&format!("[{}]", listeners.join(", "))).start();
    let &[asks, shows] = proxy.addresses() else { panic!("two") };
    let mut connection = secured(&settings(&ca, Some(&own), &BOTH), wire::connect(asks));
    assert!(ask(&mut connection).is_err());
    proxy.wait_for_log("error=TLS handshake: the client's certificate is a CA's own: issue another one, with CA:FALSE");
    for command in [&["warm", "busybox"][..], &["bench", "--image", "library/busybox", "--pulls", "1"]] {
        let mut asking = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        asking.args(command).arg("--via").arg(format!("https://{shows}")).arg("--ca-file").arg(proxy.path("own.crt"));
        let said = asking.env_clear().output().expect("it runs").stderr;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(
            said.contains("its certificate is a CA's own: issue another one for it there, with CA:FALSE: "),
            "{command:?}: {said}"
        );
    }
}
