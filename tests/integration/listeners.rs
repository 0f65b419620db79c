//! Listeners of each kind: several addresses, Unix sockets.

use std::io::{BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use crate::wire;
use testkit::wire::receive;
use testkit::{PATIENCE, Proxy, Setup};

/// A client's connection to a listener of any kind.
pub(crate) trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

pub(crate) fn connect_unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream
}

/// Two requests on one connection, and one that ends it: a ping, an image's index, and what is no pull.
pub(crate) fn is_served(connection: impl Wire) {
    let mut connection = BufReader::new(connection);
    for (request, connection_header, status) in [
        ("GET /v2/", "", 200),
        ("GET /v2/library/busybox/manifests/latest", "", 200),
        ("PUT /v2/library/busybox/manifests/latest", "Connection: close\r\n", 405),
    ] {
        let accept = "Accept: application/vnd.oci.image.index.v1+json\r\n";
        write!(connection.get_mut(), "{request} HTTP/1.1\r\nHost: x\r\n{accept}{connection_header}\r\n").expect("sent");
        let received = receive(&mut connection, "GET", usize::MAX).expect("an answer");
        assert!(received.broken.is_none() && received.answer.status() == status, "{request}: {received:?}");
    }
    assert_eq!(connection.read(&mut [0]).expect("the end"), 0);
}

fn list(proxy: &Proxy) -> [Box<dyn Wire>; 3] {
    let &[one, other] = proxy.addresses() else { panic!("two addresses: {:?}", proxy.addresses()) };
    [Box::new(wire::connect(one)), Box::new(wire::connect(other)), Box::new(connect_unix(&proxy.path("socket")))]
}

#[tokio::test(flavor = "multi_thread")]
async fn all_listeners_of_a_list_serve_clients() {
    let azure = testkit::azure().await;
    let proxy =
        Setup::new(&azure).listen("[{address: '127.0.0.1:0'}, {unix: '{}/socket'}, {address: '127.0.0.1:0'}]").start();
    list(&proxy).into_iter().for_each(is_served);
    let mode = proxy.path("socket").metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let log = proxy.wait_for_log(&format!("listening on unix:{}", proxy.path("socket").display()));
    assert!(log.contains("acr-cache-proxy"), "{log}");
    // What is under way is served by all of them during a drain.
    let mut begun = list(&proxy);
    for connection in &mut begun {
        connection.write_all(b"GET /v2/ HTTP/1.1\r\n").expect("sent");
    }
    wire::ask(proxy.address(), "GET /v2/", "");
    proxy.signal("TERM");
    proxy.wait_for_log("stopping: ");
    for mut connection in begun {
        connection.write_all(b"Host: x\r\n\r\n").expect("sent");
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).expect("an answer");
        assert_eq!(wire::parse(&answer).status, 200);
    }
    let log = proxy.end();
    assert_eq!(log.matches(" access] GET /v2/ 200 ").count(), 7, "{log}");
    let of_the_socket = log.lines().filter(|line| line.contains(" access] ") && line.contains(" client=- "));
    assert_eq!(of_the_socket.count(), 4, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_that_cannot_be_made_ends_the_start_with_what_to_do() {
    let azure = testkit::azure().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(folder.path().join("file"), "kept").expect("written");
    std::fs::create_dir(folder.path().join("folder")).expect("made");
    let served = Setup::new(&azure).listen(&format!("[{{unix: {}}}]", path("served"))).start();
    for (name, says) in [
        ("file", "there is a file that is not a socket, and it is not removed: remove it"),
        // It was to be removed.
        ("folder", "it is a folder: name the socket in it, such as clients.sock"),
        ("none/socket", "its folder is not there: make it"),
        ("served", "another process serves it: stop that one"),
    ] {
        let mut proxy = Setup::new(&azure).listen(&format!("[{{unix: {}}}]", path(name))).spawn();
        assert_eq!(proxy.wait().code(), Some(1));
        proxy.wait_for_log(&format!("listen unix:{}: {says}", path(name)));
    }
    assert_eq!(std::fs::read(folder.path().join("file")).expect("still there"), b"kept");
    // What a killed process leaves behind is replaced.
    is_served(connect_unix(Path::new(&path("served"))));
    served.signal("KILL");
    drop(served);
    let again = Setup::new(&azure).listen(&format!("[{{unix: {}, mode: 0600}}]", path("served"))).start();
    is_served(connect_unix(Path::new(&path("served"))));
    assert!(again.addresses().is_empty());
}

/// "another process serves it", where none did: who may not connect cannot know.
#[test]
fn a_unix_socket_of_another_user_was_said_to_be_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, config) = (folder.path().join("left.sock"), folder.path().join("config.yaml"));
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
    let settings =
        format!("listen: [{{unix: {}}}]\nupstream: {{domain: example.azurecr.io, prefix: hub}}\n", socket.display());
    std::fs::write(&config, settings).expect("written");
    // Who owns it may not connect either, but for root.
    for (path, mode) in [(folder.path(), 0o755), (&socket, 0), (&config, 0o644)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
    }
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
    // If it did start, it would sign in nowhere.
    command.env_clear().env("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1").arg("--config").arg(&config);
    for variable in ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"] {
        command.env(variable, "72f988bf-0000-4000-8000-000000000001");
    }
    if nix::unistd::geteuid().is_root() {
        // nobody
        command.uid(65_534);
    }
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let says = ": there is another user's socket, which may be served: remove it if nobody does (ss -lxp)";
    assert!(output.status.code() == Some(1) && said.contains(says), "{said}");
}
