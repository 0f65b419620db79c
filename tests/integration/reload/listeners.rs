//! Listeners that are added, changed and removed while the process runs.

use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use super::*;
use crate::listeners::{connect_unix, is_served};
use crate::tls::{BOTH, Secret, ask, secured, settings};
use testkit::AT_ONCE;
use testkit::certificates::Authority;

/// Connections that are to end have this long for a request that is on its way (the proxy's own limit is a second).
const END_LIMIT: Duration = Duration::from_secs(5);
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.1 32768 80\r\n";

/// Reads the settings again with this `listen`; what the command says.
fn listen(proxy: &Proxy, value: &str) -> (bool, String) {
    let config = std::fs::read_to_string(proxy.config()).expect("a configuration");
    let old = config.lines().find(|line| line.starts_with("listen: ")).expect("a line of its own");
    proxy.reload_with(&config.replacen(old, &format!("listen: {value}"), 1))
}

fn taken() -> (bool, String) {
    (true, "in effect: listen\n".to_owned())
}

/// An address that was free a moment ago. Other tests use other addresses of this host.
fn free(host: &str) -> String {
    TcpListener::bind((host, 0)).and_then(|socket| socket.local_addr()).expect("a port").to_string()
}

fn is_refused(address: &str) -> bool {
    std::net::TcpStream::connect(address).is_err_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
}

/// Ends soon, without another answer.
fn ends(connection: &mut impl io::Read) {
    let begun = Instant::now();
    let ended = connection.read(&mut [0; 64]);
    assert!(matches!(ended, Ok(0)) || ended.is_err(), "{ended:?}");
    assert!(begun.elapsed() < END_LIMIT + AT_ONCE);
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_are_added_and_removed_and_what_is_under_way_there_is_finished() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).cache("off").start();
    let socket = proxy.path("socket");
    let (first, second) = ("127.0.0.1:0", free("127.0.0.7"));
    let item = |address: &str| format!("{{address: '{address}'}}");
    let unix = |mode: &str| format!("{{unix: '{}', mode: {mode}}}", socket.display());
    let mut kept = Client::new(proxy.address());
    assert_eq!(kept.ask("GET", "/v2/", "HTTP/1.1", "").status(), 200);

    let all = format!("[{}, {}, {}]", item(first), item(&second), unix("0600"));
    assert_eq!(listen(&proxy, &all), taken());
    proxy.wait_for_log(&format!("listening on http://{second}"));
    let second_address = second.parse().expect("an address");
    is_served(wire::connect(second_address));
    is_served(connect_unix(&socket));
    let mode = || socket.metadata().expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let changed = format!("[{}, {}, {}]", item(first), item(&second), unix("0666"));
    assert_eq!(listen(&proxy, &changed), taken());
    assert_eq!(mode(), 0o666);
    is_served(connect_unix(&socket));

    // One request is under way at each that goes, and a connection is idle.
    azure.inject(Hop::Data, Fault::PauseMidBody(Duration::from_secs(2)).times(2));
    let before = asked(&azure, "/manifests/");
    let pull = format!("GET {PULL} HTTP/1.1\r\nHost: x\r\n{ACCEPT}\r\n");
    let mut under_way: [Box<dyn crate::listeners::Wire>; 2] =
        [Box::new(wire::connect(second_address)), Box::new(connect_unix(&socket))];
    for connection in &mut under_way {
        connection.write_all(pull.as_bytes()).expect("sent");
    }
    wait_for(&azure, "two pulls", |requests| {
        requests.iter().filter(|request| request.target.contains("/manifests/")).count() == before + 2
    })
    .await;
    let mut idle = [wire::connect(second_address), wire::connect(second_address)];
    assert_eq!(ask(&mut idle[1]).expect("an answer"), 200);
    assert_eq!(listen(&proxy, &format!("[{}]", item(first))), taken());
    assert!(is_refused(&second), "it is closed when the command returns");
    assert!(socket.symlink_metadata().is_err(), "its file went with it");
    for mut connection in under_way {
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).expect("the answer, and the end");
        assert_eq!(wire::parse(&answer).status, 200);
    }
    idle.iter_mut().for_each(ends);
    proxy.wait_for_log(&format!("http://{second}: closed, because the settings have it no more"));

    // Both are there again as soon as the settings have them.
    assert_eq!(listen(&proxy, &all), taken());
    is_served(wire::connect(second_address));
    is_served(connect_unix(&socket));
    assert_eq!(mode(), 0o600);
    assert_eq!(kept.ask("GET", "/v2/", "HTTP/1.1", "").status(), 200, "the first one has not changed");
    let log = proxy.end();
    assert_eq!(log.matches("listening on http://").count(), 3, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_comes_and_goes_and_changes_places_with_the_other_one() {
    let azure = testkit::azure().await;
    let [one, other] = [free("127.0.0.8"), free("127.0.0.9")];
    let proxy = Setup::new(&azure).listen(&one).start();
    let config = std::fs::read_to_string(proxy.config()).expect("a configuration");
    let with = |listen: &str, admin: &str| {
        config.replace(&format!("listen: {one}"), &format!("listen: {listen}\nadmin: {admin}"))
    };
    let [one_address, other_address] = [&one, &other].map(|text| text.parse().expect("an address"));
    let status = |address, path: &str| wire::ask(address, &format!("GET {path}"), "").status;
    assert_eq!(proxy.reload_with(&with(&one, &other)), (true, "in effect: admin\n".to_owned()));
    assert_eq!([status(other_address, "/healthz"), status(one_address, "/v2/")], [200, 200]);
    assert_eq!(proxy.reload_with(&with(&other, &one)), (true, "in effect: listen, admin\n".to_owned()));
    assert_eq!([status(one_address, "/healthz"), status(other_address, "/v2/")], [200, 200]);
    assert_eq!(status(other_address, "/healthz"), 404);
    assert_eq!(proxy.reload_with(&config), (true, "in effect: listen, admin\n".to_owned()));
    assert!(is_refused(&other));
    assert_eq!(status(one_address, "/v2/"), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_cannot_be_opened_changes_nothing_and_is_named() {
    let azure = testkit::azure().await;
    let taken = TcpListener::bind("127.0.0.10:0").expect("a port");
    let in_use = taken.local_addr().expect("bound").to_string();
    let own = free("127.0.0.11");
    let port = own.rsplit(':').next().expect("a port");
    let proxy = Setup::new(&azure).listen(&own).start();
    let free = free("127.0.0.12");
    for (address, says) in [
        (in_use.as_str(), "the address is in use: stop the other program or choose another with"),
        ("192.0.2.1:8080", "this host has no such address: choose another with"),
        (&format!("0.0.0.0:{port}"), &format!("it overlaps with {own}, which this process listens on: only a restart")),
    ] {
        let config = std::fs::read_to_string(proxy.config()).expect("a configuration");
        let both = format!("[{{address: '{free}'}}, {{address: '{address}'}}]\ntoken_wait: 3s");
        let (is_taken, said) = listen(&proxy, &both);
        assert!(!is_taken && said.contains(&format!("listen {address}: {says}")), "{said}");
        proxy.wait_for_line(&["reload: nothing has changed: ", says]);
        assert!(is_refused(&free), "the other one is not opened either");
        is_served(wire::connect(proxy.address()));
        assert_eq!(proxy.reload_with(&config), (true, "no setting has changed\n".to_owned()));
    }
}

/// `[{address: ..., more}]`
fn listener(more: &str) -> String {
    format!("[{{address: '127.0.0.1:0'{more}}}]")
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_the_proxy_protocol_of_a_listener_change_for_new_connections_and_the_earlier_ones_end() {
    let azure = testkit::azure().await;
    let [ca, nodes] = ["mirror CA", "nodes"].map(Authority::new);
    let secret = Secret::new(&ca.server(&["mirror.internal"]), &[&nodes]);
    let tls = secret.tls("");
    let required = secret.tls(", client_ca: {ca}, client_auth: required");
    let optional = secret.tls(", client_ca: {ca}, client_auth: optional");
    let proxy = Setup::new(&azure).listen(&listener("")).cache("off").start();
    let address = proxy.address();
    let anyone = settings(&ca, None, &BOTH);
    let node = settings(&ca, Some(&nodes.client("node-7", "spiffe://x")), &BOTH);

    // A request is under way over plain HTTP.
    azure.inject(Hop::Data, Fault::PauseMidBody(Duration::from_secs(2)).times(1));
    let under_way = std::thread::spawn(move || wire::ask(address, &format!("GET {PULL}"), ACCEPT).status);
    wait_for(&azure, "a pull", |requests| requests.iter().any(|request| request.target.contains("/manifests/"))).await;
    let mut plain = wire::connect(address);
    assert_eq!(ask(&mut plain).expect("an answer"), 200);
    assert_eq!(listen(&proxy, &listener(&format!(", tls: {tls}"))), taken());
    proxy.wait_for_log(&format!("listening on https://{address}"));
    assert_eq!(wire::ask(address, "GET /v2/", "").status, 400, "plain HTTP on a listener with TLS");
    let mut unnamed = secured(&anyone, wire::connect(address));
    assert_eq!(ask(&mut unnamed).expect("an answer"), 200);
    ends(&mut plain);
    assert_eq!(under_way.join().expect("an answer"), 200);

    assert_eq!(listen(&proxy, &listener(&format!(", tls: {required}"))), taken());
    assert!(ask(&mut secured(&anyone, wire::connect(address))).is_err(), "a certificate is required");
    ends(&mut unnamed);
    let mut named = secured(&node, wire::connect(address));
    assert_eq!(ask(&mut named).expect("an answer"), 200);

    // The same CA: connections end after the request under way. Without it: at once.
    assert_eq!(listen(&proxy, &listener(&format!(", tls: {optional}"))), taken());
    ends(&mut named);
    let mut named = secured(&node, wire::connect(address));
    let mut begun = secured(&node, wire::connect(address));
    assert_eq!(ask(&mut named).expect("an answer"), 200);
    begun.write_all(b"GET /v2/ HTTP/1.1\r\n").expect("sent");
    assert_eq!(ask(&mut secured(&anyone, wire::connect(address))).expect("an answer"), 200);
    assert_eq!(listen(&proxy, &listener(&format!(", tls: {tls}"))), taken());
    let when = Instant::now();
    for connection in [&mut named, &mut begun] {
        ends(connection);
    }
    assert!(when.elapsed() < AT_ONCE, "clients of a CA that was removed");

    let trusting = |network: &str| listener(&format!(", proxy_protocol: {{trusted: [{network}]}}"));
    let behind = |header: &[u8]| {
        let mut connection = wire::connect(address);
        connection.write_all(header).expect("sent");
        connection
    };
    assert_eq!(listen(&proxy, &trusting("127.0.0.1")), taken());
    let mut balanced = behind(V1);
    assert_eq!(ask(&mut balanced).expect("an answer"), 200);
    proxy.wait_for_log(" client=192.0.2.7:32768 ");
    assert_eq!(wire::ask(address, "GET /v2/", "").status, 400, "the header is missing");
    assert_eq!(listen(&proxy, &trusting("192.0.2.1")), taken());
    ends(&mut balanced);
    assert_eq!(wire::ask(address, "GET /v2/", "").status, 200, "a client like any");
    assert!(!ask(&mut behind(V1)).is_ok_and(|status| status == 200), "whom nobody trusts any more");
    assert_eq!(listen(&proxy, &listener("")), taken());
    is_served(wire::connect(address));
}

/// Without waiting for the moment at which they are looked at anyway.
#[tokio::test(flavor = "multi_thread")]
async fn certificate_files_that_have_changed_take_effect_at_once_and_bad_ones_change_nothing() {
    let azure = testkit::azure().await;
    let [ca, other] = ["mirror CA", "another CA"].map(Authority::new);
    let pair = ca.server(&["mirror.internal"]);
    let mut secret = Secret::new(&pair, &[]);
    let tls = format!("[{{address: '127.0.0.1:0', tls: {}}}]", secret.tls(""));
    let proxy = Setup::new(&azure).listen(&tls).start();
    let mut kept = secured(&settings(&ca, None, &BOTH), wire::connect(proxy.address()));
    assert_eq!(ask(&mut kept).expect("an answer"), 200);
    let next = other.server(&["mirror.internal"]);
    secret.put(&next.certificate, &next.key, &[]);
    assert_eq!(proxy.reload(), (true, "in effect: certificate files of listen\n".to_owned()));
    for (ca, is_good) in [(&ca, false), (&other, true)] {
        let mut connection = secured(&settings(ca, None, &BOTH), wire::connect(proxy.address()));
        assert_eq!(ask(&mut connection).is_ok(), is_good);
    }
    assert_eq!(ask(&mut kept).expect("an answer"), 200, "what has begun goes on");
    proxy.wait_for_log("the certificate files have changed");
    secret.put(&pair.certificate, &next.key, &[]);
    let (is_taken, said) = proxy.reload();
    assert!(!is_taken && said.contains("the key does not belong to the first certificate"), "{said}");
    assert_eq!(ask(&mut secured(&settings(&other, None, &BOTH), wire::connect(proxy.address()))).expect("200"), 200);
}

/// The command said that the new permissions were in effect, then that nothing had changed, and no client found the socket again.
#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_that_was_removed_or_replaced_was_said_to_be_served_by_new_settings() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let socket = proxy.path("socket");
    let unix = |mode: &str| format!("[{{address: '127.0.0.1:0'}}, {{unix: '{}', mode: {mode}}}]", socket.display());
    let mode = || socket.symlink_metadata().expect("a file").permissions().mode() & 0o777;
    assert_eq!(listen(&proxy, &unix("0600")), taken());
    let mut earlier = connect_unix(&socket);
    assert_eq!(ask(&mut earlier).expect("an answer"), 200);
    // With another mode, and with no other setting at all.
    for (settings, bits, says) in [
        (unix("0666"), 0o666, "in effect: listen, sockets of listen that were gone\n"),
        (unix("0666"), 0o666, "in effect: sockets of listen that were gone\n"),
    ] {
        std::fs::remove_file(&socket).expect("removed");
        assert_eq!(listen(&proxy, &settings), (true, says.to_owned()));
        assert_eq!(mode(), bits);
        is_served(connect_unix(&socket));
    }
    proxy.wait_for_log("its socket was removed, or another file was in its place: it is made again");
    assert_eq!(listen(&proxy, &unix("0666")), (true, "no setting has changed\n".to_owned()));
    let other = proxy.path("other");
    let _other = UnixListener::bind(&other).expect("a socket");
    for (what, says) in [
        ("a file", "there is a file that is not a socket"),
        ("a link", "there is a file that is not a socket"),
        ("a socket that is served", "another process serves it"),
    ] {
        std::fs::remove_file(&socket).expect("removed");
        match what {
            "a file" => std::fs::write(&socket, "kept").expect("written"),
            "a link" => std::os::unix::fs::symlink(&other, &socket).expect("linked"),
            _ => std::fs::hard_link(&other, &socket).expect("linked"),
        }
        for settings in [unix("0600"), unix("0666")] {
            let (is_taken, said) = listen(&proxy, &settings);
            assert!(
                !is_taken && said.contains(&format!("{}: ", socket.display())) && said.contains(says),
                "{what}: {said}"
            );
        }
    }
    std::fs::remove_file(&socket).expect("removed");
    assert!(listen(&proxy, &unix("0600")).0);
    is_served(connect_unix(&socket));
    assert_eq!(mode(), 0o600);
    assert!(other.symlink_metadata().is_ok(), "it is another's");
    proxy.end();
}
