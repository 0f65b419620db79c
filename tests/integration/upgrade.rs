//! A new process takes a proxy's place, and restarts with sockets of a service manager: no client is refused.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Fault, Hop};

use crate::admin::admin;
use crate::listeners::{connect_unix, is_served};
use crate::manager::Manager;
use crate::process;
use crate::tls::{BOTH, Secret, secured, settings};
use crate::under_load::{Clients, PULL};
use crate::wire;
use testkit::certificates::Authority;
use testkit::{PATIENCE, Proxy, Setup};

mod outage;
mod program;
mod sockets;

/// Puts a script in the place of the program, at once as a package does.
fn install(program: &Path, content: &str) {
    let new = program.with_extension("new");
    std::fs::write(&new, content).expect("written");
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).expect("set");
    std::fs::rename(&new, program).expect("renamed");
}

/// A proxy, and the process that is to take its place and becomes the proxy once the path is there.
fn start_with_waiting(azure: &Emulator) -> (Proxy, Successor, PathBuf) {
    let setup = Setup::new(azure);
    let (program, go) = process::waiting(&setup);
    std::fs::write(&go, "").expect("written");
    let proxy = setup.program(&program).start();
    std::fs::remove_file(&go).expect("removed");
    let successor = Successor::started_by(&proxy);
    (proxy, successor, go)
}

/// A process that no test has started itself, ended with the test.
struct Successor(String);

impl Successor {
    /// The process that this proxy starts to take its place, which need not be ready yet.
    fn started_by(proxy: &Proxy) -> Self {
        proxy.signal("USR2");
        let line = proxy.wait_for_log("and gets 30 s to become ready");
        let pid = line.split("process ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a process");
        Self(pid.to_owned())
    }

    /// The process that took the place of this proxy, by its last such line.
    fn of(proxy: &Proxy, number: usize) -> Self {
        let pid = proxy.wait_until("a successor", |log| {
            let lines = log
                .lines()
                .filter_map(|line| line.split_once("upgrade: process ")?.1.split_once(" serves from now on"));
            lines.map(|(pid, _)| pid.to_owned()).nth(number)
        });
        Self(pid)
    }

    fn signal(&self, name: &str) -> bool {
        Command::new("kill").args(["-s", name, &self.0]).status().expect("kill runs").success()
    }

    /// Whether it has taken the settings as they are now, and what was said.
    fn reload(&self) -> (bool, String) {
        let reload = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"))
            .env_clear()
            .args(["reload", "--pid", &self.0])
            .output()
            .expect("the program starts");
        let said = String::from_utf8([reload.stdout, reload.stderr].concat()).expect("text");
        (reload.status.success(), said)
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        self.signal("KILL");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_under_load_fail_no_request() {
    let azure = testkit::azure().await;
    let mut proxy = Setup::new(&azure).start();
    let clients = Clients::start(proxy.address());
    clients.wait_for(20);
    proxy.signal("USR2");
    let first = Successor::of(&proxy, 0);
    assert_eq!(proxy.wait().code(), Some(0), "the old one ends by itself");
    clients.wait_for(20);
    // And that one is replaced, too.
    assert!(first.signal("USR2"));
    let second = Successor::of(&proxy, 1);
    clients.wait_for(20);
    let requests = clients.end();
    assert!(requests > 200, "{requests}");
    assert_ne!(first.0, second.0);
    assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200);
    assert!(second.signal("TERM"));
    let log = proxy.end_of_log();
    assert_eq!(log.matches("upgrade: process").count(), 4, "{log}");
}

/// The program that is installed now, of which nobody knows whether it works.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_upgrade_the_old_process_goes_on() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure);
    let program = setup.path("acr-cache-proxy");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_acr-cache-proxy"), &program).expect("linked");
    let mut proxy = setup.program(&program).start();
    let clients = Clients::start(proxy.address());
    for (content, says) in [
        ("#!/bin/sh\nexit 3\n", "has ended by itself, exit status: 3: its own lines here say why"),
        ("#!/nonexistent\n", "acr-cache-proxy: the interpreter that its first line names is not there"),
    ] {
        install(&program, content);
        proxy.signal("USR2");
        let line = proxy.wait_until(says, |log| log.lines().find(|line| line.contains(says)).map(str::to_owned));
        assert!(line.contains(" ERROR ") && line.contains("upgrade: this process goes on: "), "{line}");
    }
    std::fs::remove_file(&program).expect("removed");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_acr-cache-proxy"), &program).expect("linked");
    let config = std::fs::read_to_string(proxy.config()).expect("a configuration");
    std::fs::write(proxy.config(), config.replace("prefix: hub", "prefix: Hub")).expect("written");
    proxy.signal("USR2");
    proxy.wait_for_log("has ended by itself, exit status: 2");
    proxy.wait_for_log("upstream.prefix: \"Hub\"");
    std::fs::write(proxy.config(), config).expect("written");
    proxy.signal("USR2");
    let successor = Successor::of(&proxy, 0);
    assert_eq!(proxy.wait().code(), Some(0));
    clients.wait_for(10);
    clients.end();
    drop(successor);
}

/// It was asked by a socket with a name that any user could take before, and was ended after 30 s.
#[tokio::test(flavor = "multi_thread")]
async fn any_user_blocked_upgrades_by_a_socket_of_the_new_process_name() {
    let azure = testkit::azure().await;
    let (mut proxy, started, go) = start_with_waiting(&azure);
    let name = SocketAddr::from_abstract_name(format!("acr-cache-proxy/control/{}", started.0)).expect("a name");
    let _taken = UnixListener::bind_addr(&name).expect("bound");
    std::fs::write(&go, "").expect("written");
    let successor = Successor::of(&proxy, 0);
    assert_eq!(successor.0, started.0);
    assert_eq!(proxy.wait().code(), Some(0));
    assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200);
    drop(successor);
}

/// `address in use` was the end of the next start.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_new_process_had_started_kept_the_sockets() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure);
    let program = setup.path("acr-cache-proxy");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_acr-cache-proxy"), &program).expect("linked");
    let mut proxy = setup.program(&program).start();
    install(&program, "#!/bin/sh\nsleep 400 &\nexit 1\n");
    proxy.signal("USR2");
    proxy.wait_for_log("has ended by itself, exit status: 1");
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(TcpListener::bind(proxy.address()).is_ok(), "nobody has it any more");
}

/// The new process is left alone by the end of the one that was to tell it when to serve.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_serves_when_the_old_one_is_killed_before_it_says_so() {
    let azure = testkit::azure().await;
    let mut proxy = Setup::new(&azure).start();
    assert_eq!(wire::ask(proxy.address(), &format!("GET {PULL}"), crate::under_load::ACCEPT).status, 200);
    azure.inject(Hop::Entra, Fault::Status(503));
    let successor = Successor::started_by(&proxy);
    proxy.wait_for_log("upgrade: this process serves when it has its tokens");
    proxy.signal("KILL");
    proxy.wait();
    proxy.wait_for_log("upgrade: the process that this one was to replace has ended");
    assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200);
    drop(successor);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_without_a_token_does_not_take_over() {
    let azure = testkit::azure().await;
    let mut proxy = Setup::new(&azure).start();
    assert_eq!(wire::ask(proxy.address(), &format!("GET {PULL}"), crate::under_load::ACCEPT).status, 200);
    azure.inject(Hop::Entra, Fault::Status(503));
    let clients = Clients::start(proxy.address());
    proxy.signal("USR2");
    let line = proxy.wait_for_log("and gets 30 s to become ready");
    proxy.signal("USR2");
    proxy.wait_for_log("SIGUSR2: a new process is being started already");
    // It has read its settings, and would serve by these.
    let (is_taken, said) = proxy.reload();
    assert!(!is_taken && said.contains("has read its settings: reload when it serves"), "{said}");
    let says = "this process goes on: process";
    let deadline = Instant::now() + 2 * PATIENCE;
    while !proxy.log().contains(says) {
        assert!(Instant::now() < deadline && proxy.is_running(), "{}", proxy.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let failed = proxy.wait_for_log(says);
    assert!(failed.contains("could not take over within 30 s: it has no token for example.azurecr.io:"), "{failed}");
    assert_eq!(proxy.reload(), (true, "no setting has changed\n".to_owned()));
    clients.end();
    let pid = line.split("process ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a process");
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it is ended");
    // One that is being started ends with the process.
    proxy.signal("USR2");
    let started = |log: &str| (log.matches("30 s to become ready").count() == 2).then_some(());
    proxy.wait_until("a second attempt", started);
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(proxy.end_of_log().contains("is ended, because this one was told to end"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told_the_new_process() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure);
    let path = setup.path("manager");
    let manager = Manager::at(&path);
    let proxy = setup.env("NOTIFY_SOCKET", &path.to_string_lossy()).spawn();
    let mut seen = Vec::new();
    let mut wait_for = |first: &str| {
        while !seen.last().is_some_and(|last: &String| last.starts_with(first)) {
            seen.push(manager.receive());
        }
    };
    wait_for("READY=1\n");
    proxy.signal("USR2");
    wait_for("MAINPID=");
    let successor = Successor::of(&proxy, 0);
    assert_eq!(seen.last().map(String::as_str), Some(format!("MAINPID={}\n", successor.0).as_str()));
    // The new one tells that it is ready, too: when systemd knows it, unless the old one is very slow to say so.
    while seen.iter().filter(|text| text.starts_with("READY=1\nX_LISTEN_ADDRESS=127.0.0.1:")).count() < 2 {
        seen.push(manager.receive());
    }
    assert!(!seen.iter().any(|text| text.contains("STOPPING=1")), "{seen:?}");
}

/// Each listener keeps its port, also one that the system had chosen.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_hands_over_every_kind_of_listener_and_takes_new_settings() {
    let azure = testkit::azure().await;
    let ca = Authority::new("mirror CA");
    let secret = Secret::new(&ca.server(&["mirror.internal"]), &[]);
    let listen = format!(
        "[{{address: '127.0.0.1:0'}}, {{address: '127.0.0.1:0', tls: {}}}, {{unix: '{{}}/socket'}}, \
         {{unix: '{{}}/removed'}}]",
        secret.tls("")
    );
    let mut proxy = Setup::new(&azure).listen(&listen).settings("admin: 127.0.0.1:0").start();
    let admin = admin(&proxy);
    let all_are_served = |proxy: &Proxy| {
        is_served(wire::connect(proxy.addresses()[0]));
        is_served(secured(&settings(&ca, None, &BOTH), wire::connect(proxy.addresses()[1])));
        is_served(connect_unix(&proxy.path("socket")));
    };
    all_are_served(&proxy);
    is_served(connect_unix(&proxy.path("removed")));
    let config = std::fs::read_to_string(proxy.config()).expect("a configuration");
    std::fs::write(proxy.config(), config.replace("/removed'", "/added'")).expect("written");
    // The new process got the socket that no client finds any more, and served that.
    std::fs::remove_file(proxy.path("socket")).expect("removed");
    proxy.signal("USR2");
    let successor = Successor::of(&proxy, 0);
    assert_eq!(proxy.wait().code(), Some(0));
    all_are_served(&proxy);
    is_served(connect_unix(&proxy.path("added")));
    assert!(UnixStream::connect(proxy.path("removed")).is_err());
    assert_eq!(wire::ask(admin, "GET /healthz", "").status, 200);
    assert!(successor.signal("TERM"));
}

/// A TCP socket, a Unix socket and one of the admin listener come from the manager; another listener does not.
#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_a_service_manager_are_matched_by_address() {
    let azure = testkit::azure().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("clients");
    let [tcp, admin] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let [tcp_address, admin_address] = [&tcp, &admin].map(|socket| socket.local_addr().expect("bound"));
    let unix = UnixListener::bind(&path).expect("a socket");
    let mode = || path.metadata().expect("a file").permissions().mode() & 0o777;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).expect("changed");
    let listen = format!("[{{unix: '{{}}/own'}}, {{unix: '{}'}}, {{address: '{tcp_address}'}}]", path.display());
    let keeps = [tcp.try_clone().expect("a socket"), admin.try_clone().expect("a socket")];
    let proxy = Setup::new(&azure)
        .listen(&listen)
        .settings(&format!("admin: '{admin_address}'"))
        .hand_over([admin.into(), unix.into(), tcp.into()])
        .start();
    let all_are_served = || {
        is_served(wire::connect(tcp_address));
        is_served(connect_unix(&path));
        is_served(connect_unix(&proxy.path("own")));
        assert_eq!(wire::ask(admin_address, "GET /healthz", "").status, 200);
    };
    all_are_served();
    let config = std::fs::read_to_string(proxy.config()).expect("a configuration");
    // The manager would keep its queue, and nobody would serve it.
    let without = config.replace(&format!(", {{unix: '{}'}}", path.display()), "");
    let (is_taken, said) = proxy.reload_with(&without);
    let says = format!("LISTEN_FDS: unix:{} was handed over, and no listener", path.display());
    assert!(!is_taken && said.contains(&says), "{said}");
    let with_mode =
        config.replace(&format!("unix: '{}'", path.display()), &format!("unix: '{}', mode: 0600", path.display()));
    let (is_taken, said) = proxy.reload_with(&with_mode);
    assert!(is_taken, "{said}");
    assert_eq!(mode(), 0o604, "the permissions are the manager's");
    all_are_served();
    proxy.end();
    for socket in keeps {
        assert!(std::net::TcpStream::connect(socket.local_addr().expect("bound")).is_ok(), "it is still open");
    }
}

/// After an upgrade the new process took them for its own: a reload closed one, whose clients waited without end, and a Unix socket's
/// file was to be deleted.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_forgot_which_sockets_are_the_service_managers() {
    let azure = testkit::azure().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("clients");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = tcp.local_addr().expect("bound");
    let unix = UnixListener::bind(&path).expect("a socket");
    let _kept = (tcp.try_clone().expect("a socket"), unix.try_clone().expect("a socket"));
    let listen = format!("[{{unix: '{{}}/own'}}, {{unix: '{}'}}, {{address: '{address}'}}]", path.display());
    let setup = Setup::new(&azure).listen(&listen).hand_over([unix.into(), tcp.into()]);
    let mut proxy = setup.start();
    let config = std::fs::read_to_string(proxy.config()).expect("a configuration");
    let without_tcp = config.replace(&format!(", {{address: '{address}'}}"), "");
    let without_unix = config.replace(&format!(", {{unix: '{}'}}", path.display()), "");
    let mut upgraded: Vec<Successor> = Vec::new();
    // The second is handed what the first was handed.
    for number in 0..2 {
        match upgraded.last() {
            None => proxy.signal("USR2"),
            Some(before) => assert!(before.signal("USR2")),
        }
        let successor = Successor::of(&proxy, number);
        for (settings, name) in
            [(&without_tcp, address.to_string()), (&without_unix, format!("unix:{}", path.display()))]
        {
            std::fs::write(proxy.config(), settings).expect("written");
            let (is_taken, said) = successor.reload();
            let says = format!("LISTEN_FDS: {name} was handed over, and no listener of the settings has this address");
            assert!(!is_taken && said.contains(&says), "{said}");
        }
        // Its own it may close.
        std::fs::write(proxy.config(), config.replace("/own'", "/other'")).expect("written");
        let (is_taken, said) = successor.reload();
        assert!(is_taken, "{said}");
        std::fs::write(proxy.config(), &config).expect("written");
        let (is_taken, said) = successor.reload();
        assert!(is_taken, "{said}");
        is_served(wire::connect(address));
        is_served(connect_unix(&path));
        is_served(connect_unix(&proxy.path("own")));
        upgraded.push(successor);
    }
    // Nor does a process start whose settings lack one.
    std::fs::write(proxy.config(), &without_tcp).expect("written");
    assert!(upgraded[1].signal("USR2"));
    proxy.wait_for_log("has ended by itself, exit status: 1");
    is_served(wire::connect(address));
    assert!(upgraded[1].signal("TERM"));
    assert_eq!(proxy.wait().code(), Some(0));
    let log = proxy.end_of_log();
    assert!(path.exists() && !log.contains("its file stays behind"), "{log}");
}

/// The manager keeps the sockets, so connections wait while no process serves them.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_handed_over_sockets_refuses_nobody() {
    let azure = testkit::azure().await;
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("bound");
    let setup = || Setup::new(&azure).flag("--listen-address", &address.to_string());
    let start = || setup().hand_over([socket.try_clone().expect("a socket").into()]).start();
    let mut proxy = start();
    assert_eq!(proxy.address(), address);
    let clients = Clients::start(address);
    for _ in 0..3 {
        clients.wait_for(20);
        proxy.signal("TERM");
        assert_eq!(proxy.wait().code(), Some(0));
        // Connected, with nobody there.
        let waiting = wire::connect(address);
        proxy = start();
        drop(waiting);
    }
    clients.wait_for(20);
    clients.end();
}

/// It looked at each of so many descriptors, for 15 s and with 2.5 GB of memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_of_sockets_that_nobody_means_is_refused_at_once() {
    let azure = testkit::azure().await;
    for said in ["-1", "1e3", "abc"] {
        let mut proxy = Setup::new(&azure).env("LISTEN_FDS", said).spawn();
        assert_eq!(proxy.wait().code(), Some(1), "{}", proxy.log());
        proxy.wait_for_log(&format!("LISTEN_FDS: {said:?} is not a number of sockets"));
    }
    let mut proxy = Setup::new(&azure).env("LISTEN_FDS", "1000000000").spawn();
    assert_eq!(proxy.wait().code(), Some(1), "{}", proxy.log());
    proxy.wait_for_log("LISTEN_FDS: 1000000000 is more than 1024 sockets");
    let setup = Setup::new(&azure).env("LISTEN_FDS", "1000000000").env("LISTEN_PID", "1");
    assert!(setup.start().is_running(), "it is another process's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_no_listener_is_for_is_an_error() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure);
    let path = setup.path("other.sock");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let name = tcp.local_addr().expect("bound").to_string();
    let unix = UnixListener::bind(&path).expect("a socket");
    for (socket, name) in [(tcp.into(), name), (unix.into(), format!("unix:{}", path.display()))] {
        let mut proxy = Setup::new(&azure).hand_over([socket]).spawn();
        assert_eq!(proxy.wait().code(), Some(1), "{}", proxy.log());
        proxy.wait_for_log(&format!(
            "LISTEN_FDS: {name} was handed over, and no listener of the settings has this address"
        ));
    }
    // One that overlaps with a listener of the settings is not just an address in use.
    let every = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = every.local_addr().expect("bound").port();
    let setup = Setup::new(&azure).listen(&format!("127.0.0.1:{port}"));
    let mut proxy = setup.hand_over([every.into()]).spawn();
    assert_eq!(proxy.wait().code(), Some(1), "{}", proxy.log());
    proxy.wait_for_log(&format!("LISTEN_FDS: 0.0.0.0:{port} was handed over, and no listener of the settings"));
    let (stream, _other) = UnixStream::pair().expect("a pair");
    let mut proxy = Setup::new(&azure).hand_over([stream.into()]).spawn();
    assert_eq!(proxy.wait().code(), Some(1), "{}", proxy.log());
    proxy.wait_for_log("LISTEN_FDS: a socket that was handed over is no listening TCP or Unix socket");
}
