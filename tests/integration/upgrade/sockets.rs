//! Unix sockets whose files somebody has removed.

use std::os::unix::net::UnixListener;

use serde_json::Value;

use super::Successor;
use crate::admin::admin;
use crate::listeners::{connect_unix, is_served};
use crate::wire;
use testkit::Setup;

/// The proxy's own were made again by a reload that had to be thought of; the service manager's were not, without a word.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_was_told_of_sockets_that_no_client_found_any_more() {
    let azure = testkit::azure().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kept");
    let unix = UnixListener::bind(&path).expect("a socket");
    let listen = format!("[{{address: '127.0.0.1:0'}}, {{unix: '{{}}/own'}}, {{unix: '{}'}}]", path.display());
    let setup = Setup::new(&azure).listen(&listen).settings("admin: 127.0.0.1:0").hand_over([unix.into()]);
    let mut proxy = setup.start();
    let admin = admin(&proxy);
    let summary = || {
        let answer = wire::ask(admin, "GET /readyz", "");
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        (answer.status, body["summary"].as_str().expect("a sentence").to_owned())
    };
    assert_eq!(wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list", "").status, 200, "it has its token");
    assert_eq!(summary(), (200, "ready".to_owned()));
    let own = proxy.path("own");
    std::fs::remove_file(&own).expect("removed");
    std::fs::remove_file(&path).expect("removed");
    let gone = "its file was removed, or another has its place, and no client finds the socket";
    let told = |path: &std::path::Path, what: &str| format!("unix:{}: {gone}: {what}", path.display());
    let of_own = told(&own, "reload, and it is made again (acr-cache-proxy reload)");
    let restart = "systemctl restart acr-cache-proxy.socket acr-cache-proxy";
    let of_kept = told(&path, &format!("systemd keeps the socket, so restart both units ({restart})"));
    assert_eq!(summary(), (200, format!("ready; {of_own}; {of_kept}")));
    let (is_taken, said) = proxy.reload();
    assert!(is_taken && said.contains("in effect: sockets of listen that were gone; "), "{said}");
    assert!(said.contains(&of_kept), "{said}");
    is_served(connect_unix(&own));
    assert_eq!(summary(), (200, format!("ready; {of_kept}")));
    let lines = |log: &str| log.lines().filter(|line| line.contains(" WARN ") && line.contains(&of_kept)).count();
    // Of the listener, and of what the reload says.
    proxy.wait_until("a warning", |log| (lines(log) == 2).then_some(()));
    proxy.signal("USR2");
    let successor = Successor::of(&proxy, 0);
    assert_eq!(proxy.wait().code(), Some(0));
    proxy.wait_until("a warning of the old one, and none of the new one", |log| (lines(log) == 3).then_some(()));
    drop(successor);
}
