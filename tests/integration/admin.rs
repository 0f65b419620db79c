//! Health and readiness.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Fault, Hop, Server};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::wire;
use testkit::{PATIENCE, Proxy, Setup};

/// Where health and readiness are told.
pub(crate) fn admin(proxy: &Proxy) -> SocketAddr {
    let line = proxy.wait_for_log("health and readiness on http://");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    address.parse().expect("an address")
}

/// A proxy of two registries that keeps what it may, with its admin listener.
pub(crate) fn observed(azure: &Emulator, cache: &str) -> (Proxy, SocketAddr) {
    let proxy = Setup::routes(azure, &[("docker.io", "hub"), ("ghcr.io", "ghcr")])
        .cache(cache)
        .flag("--admin-address", ":0")
        .flag("--log", "info")
        .start();
    let admin = admin(&proxy);
    (proxy, admin)
}

/// Status and body of `/readyz`.
fn readiness(proxy: &Proxy) -> (u16, Value) {
    let address = admin(proxy);
    assert_eq!(wire::ask(address, "GET /healthz", "").body, "ok\n");
    assert_eq!(wire::ask(address, "GET /v2/", "").status, 404);
    assert_eq!(wire::ask(address, "POST /readyz", "").status, 405);
    assert_eq!(wire::ask(address, "HEAD /readyz", "").body, "");
    let answer = wire::ask(address, "GET /readyz", "");
    (answer.status, serde_json::from_str(&answer.body).expect("JSON"))
}

/// A probe of HTTP/1.0, for which the end of the connection is that of the answer, waited for a minute.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_http_1_0_ends_its_connection() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).flag("--admin-address", ":0").start();
    for path in ["/healthz", "/readyz"] {
        let mut probe = wire::connect(admin(&proxy));
        probe.set_read_timeout(Some(PATIENCE)).expect("a limit");
        probe.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("sent");
        let mut answer = String::new();
        probe.read_to_string(&mut answer).expect("its end");
        assert!(answer.starts_with("HTTP/1.") && !answer.contains("keep-alive"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_names_upstream_hop_time_and_remedy() {
    for (hop, fault, name, says) in [
        (Hop::Entra, Fault::Status(500), "identity", "the service has trouble, trying again"),
        (
            Hop::Exchange,
            Fault::Status(403),
            "exchange",
            "the registry's firewall denies this host: allow its address there",
        ),
        (Hop::Token, Fault::Status(500), "token", "the registry has trouble, trying again"),
    ] {
        let azure = testkit::azure().await;
        azure.inject(hop, fault);
        let proxy = Setup::new(&azure).flag("--admin-address", ":0").start();
        proxy.wait_for_log(says);
        let (status, body) = readiness(&proxy);
        let upstream = &body["upstreams"][0];
        assert_eq!((status, &body["ready"], &upstream["ready"]), (503, &Value::Bool(false), &Value::Bool(false)));
        let domain = format!("example.azurecr.io:{}", azure.registry_addr().port());
        assert_eq!((upstream["domain"].as_str(), upstream["hop"].as_str()), (Some(domain.as_str()), Some(name)));
        assert!(upstream["message"].as_str().is_some_and(|message| message.contains(says)), "{body}");
        assert!(upstream["since"].as_str().is_some_and(|since| since.ends_with(" GMT")), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_with_a_valid_token_is_ready_while_azure_is_down() {
    for abac in [false, true] {
        let azure = Emulator::start(acr_emulator::Options { abac, ..testkit::options() }).await.expect("started");
        azure.push(acr_emulator::Image::small("hub/library/busybox", "latest"));
        let proxy = Setup::new(&azure).flag("--admin-address", "127.0.0.1:0").start();
        let accept = "Accept: application/vnd.oci.image.index.v1+json\r\n";
        assert_eq!(wire::ask(proxy.address(), "GET /v2/library/busybox/manifests/latest", accept).status, 200);
        azure.refuse_connections(Server::Entra, true);
        let (status, body) = readiness(&proxy);
        assert_eq!((status, &body["upstreams"][0]["ready"]), (200, &Value::Bool(true)), "{abac}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_admin_listener_by_default() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    assert_eq!(wire::ask(proxy.address(), "GET /healthz", "").status, 404);
    assert!(!proxy.end().contains("health and readiness"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_a_browser_cannot_read_the_list_of_registries() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).flag("--admin-address", ":0").start();
    for path in ["/readyz", "/healthz", "/"] {
        let answer = wire::ask(admin(&proxy), &format!("GET {path}"), "Origin: http://evil.example\r\n");
        assert!(answer.status == 403 && !answer.body.contains("azurecr"), "{path}: {answer:?}");
    }
}

/// It closed the connection without an answer, and took `readyz` for the status page.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_for_a_path_is_answered_with_400() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).flag("--admin-address", ":0").start();
    for line in [
        &b"GET /status?x=<script> HTTP/1.1"[..],
        b"GET /\xff HTTP/1.1",
        b"GET http://evil/readyz HTTP/1.1",
        b"GET readyz HTTP/1.1",
        b"GET /readyz HTTP/1.1\r\nnot a header",
    ] {
        let request = [line, b"\r\nHost: x\r\n\r\n"].concat();
        let answer = String::from_utf8_lossy(&wire::send(admin(&proxy), &request)).into_owned();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{}: {answer}", line.escape_ascii());
    }
    assert_eq!(wire::ask(admin(&proxy), "GET /healthz?verbose=1", "").status, 200);
}

/// Pingora quotes what it cannot read, and that may hold a credential: this port's is for balancers, but anybody may err.
#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_admin_request_leaves_no_credential_in_the_log() {
    const CREDENTIAL: &str = "Y2xpZW50Om93bi1wYXNzd29yZA==";
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).flag("--admin-address", ":0").start();
    let admin = admin(&proxy);
    for address in [admin, proxy.address()] {
        for broken in ["not a header\r\n", "Na me: x\r\n", "X: \x00\r\n"] {
            let request = format!("GET /readyz HTTP/1.1\r\nAuthorization: Basic {CREDENTIAL}\r\n{broken}\r\n");
            let answer = String::from_utf8_lossy(&wire::send(address, request.as_bytes())).into_owned();
            assert!(!answer.starts_with("HTTP/1.1 2"), "{broken:?}: {answer}");
        }
    }
    // What it has to say of them comes before what it says of this.
    proxy.signal("HUP");
    proxy.wait_for_log("reload: ");
    assert!(!proxy.log().contains(CREDENTIAL), "{}", proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_take_all_the_connections_they_can_keep_no_probe_out() {
    let azure = testkit::azure().await;
    let (proxy, admin) = observed(&azure, "{}");
    let deadline = Instant::now() + PATIENCE;
    while wire::ask(admin, "GET /readyz", "").status != 200 {
        assert!(Instant::now() < deadline, "{}", proxy.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let connect = async |host: u8| {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, host], 0).into()).expect("a port");
        socket.connect(admin).await.expect("a connection")
    };
    let mut held = Vec::new();
    for host in [1, 2, 3] {
        for _ in 0..30 {
            let mut silent = connect(host).await;
            // One that has no room any more may be reset.
            let _ = silent.write_all(b"GET /readyz HT").await;
            held.push(silent);
        }
    }
    // Another host, and one of those that hold the connections.
    for host in [4, 1] {
        for path in ["/healthz", "/readyz"] {
            let mut prober = connect(host).await;
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            prober.write_all(request.as_bytes()).await.expect("sent");
            let mut answer = Vec::new();
            prober.read_to_end(&mut answer).await.expect("an answer");
            assert_eq!(wire::parse(&answer).status, 200, "127.0.0.{host} {path}");
        }
    }
}
