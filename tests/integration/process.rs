//! Starting, listening and stopping.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use acr_emulator::{Fault, Hop};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::manager::Manager;
use crate::wire;
use testkit::{AT_ONCE, PATIENCE, Setup, wait_for};

/// A program that becomes the proxy once the second path is there, so that its id is known before it is the proxy.
pub(crate) fn waiting(setup: &Setup) -> (PathBuf, PathBuf) {
    let (program, go) = (setup.path("start"), setup.path("go"));
    let binary = env!("CARGO_BIN_EXE_acr-cache-proxy");
    let script = format!("#!/bin/sh\nuntil [ -e '{}' ]; do sleep 0.05; done\nexec '{binary}' \"$@\"\n", go.display());
    std::fs::write(&program, script).expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("set");
    (program, go)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_ends_the_start_at_once() {
    let azure = testkit::azure().await;
    let first = Setup::new(&azure).start();
    let address = first.address().to_string();
    let begun = Instant::now();
    let mut second = Setup::new(&azure).flag("--listen-address", &address).spawn();
    assert_eq!(second.wait().code(), Some(1));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    second.wait_for_log(&format!("listen {address}: the address is in use"));
}

#[test]
fn too_few_descriptors_are_reported_in_one_sentence() {
    for allowed in [8, 12, 24, 40] {
        let output = Command::new("sh")
            .args(["-c", &format!("ulimit -n {allowed} && exec \"$@\""), "sh", env!("CARGO_BIN_EXE_acr-cache-proxy")])
            .args(["--upstream-domain", "example.azurecr.io", "--listen-address", "127.0.0.1:0"])
            .output()
            .expect("sh runs");
        let said = String::from_utf8_lossy(&output.stderr);
        let sentence = format!("acr-cache-proxy: {allowed} file descriptors are too few: allow ");
        assert!(said.starts_with(&sentence) && said.lines().count() == 1, "{said}");
        assert_eq!(output.status.code(), Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_one_sentence_and_status_2() {
    let azure = testkit::azure().await;
    for (flag, value, says) in [
        ("--upstream-domain", "https://example.azurecr.io/", "without https://"),
        ("--upstream-prefix", "Hub", "--upstream-prefix"),
        ("--listen-address", "8080", "--listen-address"),
        ("--upstream-domian", "example.azurecr.io", "--upstream-domain"),
        ("--config", "/nonexistent.yaml", "/nonexistent.yaml"),
        ("--log", "acess=info", "did you mean access? there are access, a line for each request, acr_cache_proxy"),
        ("--admin-address", ":8080", "--admin-address: 127.0.0.1:8080 is taken by the listener for clients"),
    ] {
        let mut proxy = Setup::new(&azure).flag("--listen-address", "127.0.0.1:8080").flag(flag, value).spawn();
        assert_eq!(proxy.wait().code(), Some(2), "{flag} {value}: {}", proxy.log());
        proxy.wait_for_log(says);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_ca_file_is_a_wrong_setting_and_named_as_given() {
    let azure = testkit::azure().await;
    let mut proxy = Setup::new(&azure).flag("--ca-file", "/nonexistent.pem").spawn();
    assert_eq!(proxy.wait().code(), Some(2), "{}", proxy.log());
    proxy.wait_for_log("acr-cache-proxy: --ca-file: /nonexistent.pem: No such file");
    let setup = Setup::new(&azure);
    let ca = setup.file("ca.pem", "no certificate\n");
    let mut proxy = setup.spawn();
    assert_eq!(proxy.wait().code(), Some(2), "{}", proxy.log());
    let line = proxy.wait_for_log(": it has no PEM block BEGIN CERTIFICATE");
    assert!(line.contains(&format!("config.yaml:6: ca_file: {}: ", ca.display())), "{line}");
}

/// Each start used to tell the first of these only; the CA file and the sign-in were looked at last.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_tells_every_mistake_at_once_also_what_this_host_lacks() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure).nobody();
    let ca = setup.file("ca.pem", "no certificate\n");
    let mut proxy = setup.settings("threads: none\nidentity: {kind: client_secret}").spawn();
    assert_eq!(proxy.wait().code(), Some(2), "{}", proxy.log());
    let log = proxy.end_of_log();
    for says in [
        &format!("ca_file: {}: it has no PEM block BEGIN CERTIFICATE", ca.display()),
        "threads: \"none\" is not a number of threads",
        "identity.kind: client_secret needs tenant_id: set it, or give the variable AZURE_TENANT_ID a value",
        "identity.kind: client_secret needs client_id: set it, or give the variable AZURE_CLIENT_ID a value",
        "identity.kind: client_secret needs client_secret_file: set it, or give the variable AZURE_CLIENT_SECRET a value",
    ] {
        assert!(log.contains(says), "{says}\n{log}");
    }
    assert_eq!(log.lines().count(), 5, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_variable_that_names_no_file_is_reported_once() {
    let azure = testkit::azure().await;
    for (name, value) in [("SSL_CERT_FILE", "/nonexistent.pem"), ("SSL_CERT_DIR", "/nonexistent")] {
        let proxy = Setup::new(&azure).env(name, value).start();
        assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200);
        let log = proxy.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(value)).collect();
        assert!(lines.len() == 1 && lines[0].contains(" WARN ") && lines[0].contains("SSL_CERT_FILE"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_proxy_stops_at_once() {
    let azure = testkit::azure().await;
    for signal in ["TERM", "INT", "QUIT"] {
        let mut proxy = Setup::new(&azure).start();
        assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200);
        let _idle = wire::connect(proxy.address());
        let begun = Instant::now();
        proxy.signal(signal);
        assert_eq!(proxy.wait().code(), Some(0), "{signal}");
        assert!(begun.elapsed() < AT_ONCE, "{signal}: {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_requests_finish_and_takes_no_new_ones() {
    let azure = testkit::azure().await;
    let mut proxy = Setup::new(&azure).start();
    assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200);
    azure.inject(Hop::Data, Fault::SlowDrip.times(1));
    let mut stream = wire::connect(proxy.address());
    stream
        .write_all(b"GET /v2/library/busybox/tags/list HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("sent");
    wait_for(&azure, "a pull", |requests| requests.iter().any(|request| request.hop == Hop::Data)).await;
    proxy.signal("TERM");
    proxy.wait_for_log("stopping: 1 requests under way");
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(proxy.address()).is_ok() {
        assert!(Instant::now() < deadline && proxy.is_running(), "it still takes connections:\n{}", proxy.log());
        // Nothing depends on the step.
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the answer ends");
    let answer = wire::parse(&rest);
    assert_eq!(answer.status, 200, "{answer:?}");
    let length = answer.body.len().to_string();
    assert_eq!(answer.header("content-length"), Some(length.as_str()), "to its last byte: {answer:?}");
    assert_eq!(proxy.wait().code(), Some(0));
}

/// The kernel connects clients by itself. To close a socket with such a client in its queue is to reset it, and no client
/// tries again after that.
#[tokio::test(flavor = "multi_thread")]
async fn clients_connected_at_the_signal_are_answered() {
    /// More than most queues take, fewer than the proxy's own.
    const CLIENTS: usize = 300;
    /// So long a first request may be on its way.
    const FAR_AWAY: Duration = Duration::from_millis(200);
    const PING: &[u8] = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
    let azure = testkit::azure().await;
    let mut proxy = Setup::new(&azure).start();
    assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200);
    let mut silent = wire::connect(proxy.address());
    proxy.signal("STOP");
    let mut connected: Vec<_> = (0..CLIENTS).map(|_| wire::connect(proxy.address())).collect();
    for stream in &mut connected {
        stream.write_all(PING).expect("sent");
    }
    proxy.signal("TERM");
    proxy.signal("CONT");
    proxy.wait_for_log("stopping: ");
    std::thread::sleep(FAR_AWAY);
    silent.write_all(PING).expect("sent");
    connected.push(silent);
    for mut stream in connected {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer, and the end of the connection");
        assert_eq!(wire::parse(&answer).status, 200);
    }
    assert_eq!(proxy.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_rust_log_started_a_proxy_with_an_empty_log() {
    let azure = testkit::azure().await;
    for (filter, says) in [
        (
            "acess=info",
            "RUST_LOG: \"acess=info\" names no target of this program, so its log would stay empty: did you mean",
        ),
        ("warn,acess=info", "RUST_LOG: there is no target \"acess\": did you mean access?"),
        (
            "acr_cache_proxy::nope=info",
            "RUST_LOG: \"acr_cache_proxy::nope=info\" names no target of this program, so its log would stay empty: there are access",
        ),
    ] {
        let mut proxy = Setup::new(&azure).env("RUST_LOG", filter).spawn();
        proxy.wait_for_log(says);
        assert_eq!(proxy.wait().code(), Some(2), "{filter}");
    }
    // Of a variable that other programs read as well, and beside a flag.
    for (filter, flag) in [("info,h2=debug", None), ("h2=debug", Some("info"))] {
        let setup = Setup::new(&azure).env("RUST_LOG", filter);
        let setup = if let Some(flag) = flag { setup.flag("--log", flag) } else { setup };
        setup.start();
    }
}

/// Nobody wrote into it, and the start hung in silence; a shell's `<(...)` is one that is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_a_fifo_does_not_hang() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure);
    let path = setup.path("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
    let fifo = path.to_string_lossy().into_owned();
    let mut proxy = setup.flag("--config", &fifo).spawn();
    assert_eq!(proxy.wait().code(), Some(2), "{}", proxy.log());
    proxy.wait_for_log("it is a FIFO, and its writer has not closed it within 5 s: use a regular file");
}

/// As systemd sees a unit of `Type=notify`.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told_ready_status_and_stopping() {
    let azure = testkit::azure().await;
    azure.inject(Hop::Exchange, Fault::Status(503).times(1));
    let setup = Setup::new(&azure);
    let path = setup.path("manager");
    let manager = Manager::at(&path);
    let mut proxy = setup.env("NOTIFY_SOCKET", &path.to_string_lossy()).spawn();
    let ready = manager.receive();
    let value = |name: &str| ready.lines().find_map(|line| line.strip_prefix(name)).expect(name).to_owned();
    assert_eq!(value("READY="), "1");
    let address = value("X_LISTEN_ADDRESS=");
    let listening = format!("listening on http://{address}; example.azurecr.io:{}: ", azure.registry_addr().port());
    assert_eq!(value("STATUS="), format!("{listening}the first sign-in is under way"));
    assert_eq!(wire::ask(address.parse().expect("an address"), "GET /v2/", "").status, 200);
    // The first call fails, so there may be a status without a token before the one with it.
    let mut status = manager.receive();
    while status != format!("STATUS={listening}ready\n") {
        assert!(status.starts_with(&format!("STATUS={listening}")) && status.lines().count() == 1, "{status}");
        status = manager.receive();
    }
    proxy.signal("TERM");
    assert_eq!(
        manager.receive(),
        "STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000\nSTATUS=stopping: 0 requests under way\n",
        "systemd waits for the drain and what follows it"
    );
    assert_eq!(proxy.wait().code(), Some(0));
}

/// Short steps, so that a test sees many: three within this.
const WATCHDOG: &str = "300000";

/// What is wrong elsewhere is no reason to be restarted, and neither is a drain.
#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_fed_whatever_the_registry_does_and_to_the_end() {
    let azure = testkit::azure().await;
    azure.inject(Hop::Exchange, Fault::Hang);
    let setup = Setup::new(&azure);
    let path = setup.path("manager");
    let manager = Manager::at(&path);
    let setup = setup.settings("drain: {notice: 1s}").settings("admin: 127.0.0.1:0");
    let setup = setup.env("NOTIFY_SOCKET", &path.to_string_lossy()).env("WATCHDOG_USEC", WATCHDOG);
    let mut proxy = setup.spawn();
    let is_fed = || while manager.receive() != "WATCHDOG=1\n" {};
    (0..5).for_each(|_| is_fed());
    proxy.signal("HUP");
    while !manager.receive().starts_with("RELOADING=1\n") {}
    (0..5).for_each(|_| is_fed());
    proxy.signal("TERM");
    while !manager.receive().starts_with("STOPPING=1\n") {}
    is_fed();
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(!proxy.log().contains("watchdog: "), "{}", proxy.log());
}

/// A process that could open no socket for its messages was ended by its watchdog, and served meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_fed_where_no_file_descriptor_is_left() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure);
    let path = setup.path("manager");
    let manager = Manager::at(&path);
    let proxy = setup.env("NOTIFY_SOCKET", &path.to_string_lossy()).env("WATCHDOG_USEC", WATCHDOG).spawn();
    while !manager.receive().starts_with("READY=1\n") {}
    // Those that are open stay so.
    let limit = Command::new("prlimit").args(["--nofile=3:3", "--pid", &proxy.id().to_string()]).status();
    assert!(limit.expect("util-linux has it").success());
    // More than were under way before.
    (0..5).for_each(|_| while manager.receive() != "WATCHDOG=1\n" {});
}

/// A client that asks for the costliest answer on connection after connection and reads none. For minutes the watchdog was not fed and
/// other hosts' probes got no answer, and each connection held a descriptor and memory.
#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_fed_and_probes_are_answered_while_one_host_floods_the_admin_listener() {
    const AT_ONCE: usize = 24;
    /// Each keeps a port busy for a minute.
    const CONNECTIONS: usize = 20_000;
    /// Of an idle process about 40, and of connections that have a place or have just lost it 160.
    const DESCRIPTORS: u64 = 400;
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure).flag("--admin-address", "127.0.0.1:0");
    let path = setup.path("manager");
    let manager = Manager::at(&path);
    // Steps of a second.
    let proxy = setup.env("NOTIFY_SOCKET", &path.to_string_lossy()).env("WATCHDOG_USEC", "3000000").spawn();
    let admin = crate::admin::admin(&proxy);
    let connect = async move |host: u8| {
        let socket = TcpSocket::new_v4()?;
        socket.bind(([127, 0, 0, host], 0).into())?;
        socket.connect(admin).await
    };
    let mut flood = JoinSet::new();
    for _ in 0..AT_ONCE {
        flood.spawn(async move {
            for _ in 0..CONNECTIONS / AT_ONCE {
                // A machine may have no port left for it; that is no matter of the proxy's.
                let Ok(mut stream) = connect(2).await else { continue };
                let _ = stream.write_all(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n").await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
    for _ in 0..4 {
        while manager.receive() != "WATCHDOG=1\n" {}
        let probe = async {
            let mut prober = connect(3).await.expect("a connection");
            let request = b"GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            prober.write_all(request).await.expect("sent");
            let mut answer = Vec::new();
            prober.read_to_end(&mut answer).await.expect("an answer");
            wire::parse(&answer)
        };
        let answer = tokio::time::timeout(PATIENCE, probe).await.expect("an answer in time");
        let status: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        let descriptors = status["process"]["descriptors"].as_u64().expect("a number");
        assert!(descriptors < DESCRIPTORS, "{descriptors} descriptors");
    }
    flood.shutdown().await;
    assert!(!proxy.log().contains("watchdog: "), "{}", proxy.log());
}

/// `WATCHDOG_PID`: the variables were another process's, and this one got them from it.
#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_of_another_process_is_not_fed() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure);
    let path = setup.path("manager");
    let manager = Manager::at(&path);
    // A step of a millisecond: it would come before the first token.
    let setup = setup.env("WATCHDOG_USEC", "3000").env("WATCHDOG_PID", "1");
    let proxy = setup.env("NOTIFY_SOCKET", &path.to_string_lossy()).spawn();
    loop {
        let told = manager.receive();
        assert_ne!(told, "WATCHDOG=1\n");
        if told.starts_with("STATUS=") && told.ends_with(": ready\n") {
            break;
        }
    }
    drop(proxy);
}

/// A name that begins with `@`, as sd_notify(3) has it. It was taken for a path, and such a unit never became active.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_may_listen_on_an_abstract_socket() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure);
    let name = setup.path("manager").to_string_lossy().into_owned();
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let manager = Manager::on(UnixDatagram::bind_addr(&address).expect("a socket"));
    let _proxy = setup.env("NOTIFY_SOCKET", &format!("@{name}")).spawn();
    assert!(manager.receive().starts_with("READY=1\n"));
}

/// A sender waits while the receiver's queue is full. The start hung there before the first client was served, and after
/// SIGTERM an idle proxy ran on for 25 s, whatever signal came next.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_that_does_not_read_holds_up_neither_start_nor_stop() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure);
    let path = setup.path("manager");
    let manager = Manager::at(&path);
    let fill = || {
        let socket = UnixDatagram::unbound().expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        while socket.send_to(b"full", &path).is_ok() {}
    };
    fill();
    let mut proxy = setup.env("NOTIFY_SOCKET", &path.to_string_lossy()).spawn();
    let line = proxy.wait_for_log(": listening on http://");
    let address = line.rsplit_once("http://").expect("an address").1.parse().expect("an address");
    assert_eq!(wire::ask(address, "GET /v2/", "").status, 200);
    while !manager.receive().starts_with("READY=1\n") {}
    fill();
    let begun = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

/// By it logrotate has other programs open their logs again, and a typing mistake may send it in place of SIGUSR2.
#[tokio::test(flavor = "multi_thread")]
async fn sigusr1_ended_the_proxy_without_a_drain() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    proxy.signal("USR1");
    proxy.wait_for_log("SIGUSR1 does nothing: ");
    assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_with_stdin_ends_the_proxy_when_its_standard_input_ends() {
    let azure = testkit::azure().await;
    // The tests' proxies read from /dev/null, which is at its end.
    let mut proxy = Setup::new(&azure).switch("--exit-with-stdin").spawn();
    assert_eq!(proxy.wait().code(), Some(0));
}
