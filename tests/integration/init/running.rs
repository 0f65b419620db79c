//! A proxy that runs already where `init` is to put one, and a tree in which none runs.

use std::process::Command;

use super::{judge, run};

/// It was taken for the host's own, and engines would have been sent to its registry.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_another_registry_is_told_with_what_it_serves() {
    let azure = testkit::azure().await;
    let proxy = testkit::Setup::new(&azure).flag("--admin-address", "127.0.0.1:0").start();
    let (listen, admin) = (proxy.address().to_string(), crate::admin::admin(&proxy).to_string());
    let own = format!("example.azurecr.io:{}", azure.registry_addr().port());
    for (registry, prefix, says) in [
        (&own, "hub", "This goes into"),
        (&own, "other", "/hub and not docker.io -> "),
        (
            &"other.azurecr.io".to_owned(),
            "hub",
            "/hub and not docker.io -> other.azurecr.io/hub, listens: find it with",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        command.args(["init", "--registry", registry, "--prefix", prefix, "--skip", "try"]);
        command.args(["--listen-address", &listen, "--admin-address", &admin]).env_clear();
        let (status, said) =
            judge(&tokio::task::spawn_blocking(move || run(&mut command, None)).await.expect("no panic"));
        assert!(status == 1 && said.contains(says), "{registry} {prefix}: {said}");
        let serves = format!("another acr-cache-proxy, which serves docker.io -> {own}/hub");
        assert_eq!(said.contains(&serves), !says.starts_with("This"), "{said}");
    }
}

/// It "does not say what it serves", and nobody was told how it would.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_was_started_by_hand_is_taken_once_it_has_the_admin_listener_that_init_asks_for() {
    let azure = testkit::azure().await;
    // No other test has an address of this host.
    let free = std::net::TcpListener::bind("127.0.2.1:0").and_then(|taken| taken.local_addr());
    let admin = free.expect("a port").to_string();
    let registry = format!("example.azurecr.io:{}", azure.registry_addr().port());
    let advice =
        format!("and end it, or start it again with --admin-address {admin}, where it tells init what it serves");
    for (flags, says) in [(&[][..], advice.as_str()), (&[("--admin-address", admin.as_str())], "This goes into")] {
        let setup = testkit::Setup::new(&azure);
        let proxy = flags.iter().fold(setup, |setup, (flag, value)| setup.flag(flag, value)).start();
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        command.args(["init", "--registry", &registry, "--prefix", "hub", "--skip", "try"]);
        command.args(["--listen-address", &proxy.address().to_string(), "--admin-address", &admin]).env_clear();
        let (_, said) = judge(&tokio::task::spawn_blocking(move || run(&mut command, None)).await.expect("no panic"));
        assert!(said.contains(says), "{said}");
    }
}

/// It was "another program", because it refuses the request that was to tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_this_host_was_another_program() {
    let azure = testkit::azure().await;
    for rules in ["access: {allow: [192.0.2.0/24]}", "limits: {requests_per_second_per_client: 1}"] {
        let proxy = testkit::Setup::new(&azure).settings(rules).start();
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        command.args(["init", "--registry", "example.azurecr.io", "--prefix", "hub", "--skip", "try"]);
        command.args(["--listen-address", &proxy.address().to_string()]).env_clear();
        // Its rate is used up.
        (0..100).for_each(|_| drop(testkit::wire::ask(proxy.address(), "GET /v2/", "")));
        let (status, said) =
            judge(&tokio::task::spawn_blocking(move || run(&mut command, None)).await.expect("no panic"));
        assert!(status == 1 && said.contains("another acr-cache-proxy, which does not say what it serves"), "{said}");
    }
}

/// They looked at this machine.
#[test]
fn the_commands_that_are_named_at_the_end_look_at_the_tree() {
    let root = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
    command.args(["init", "--registry", "example.azurecr.io", "--prefix", "hub", "--yes", "--skip", "try"]);
    let (status, said) = judge(&run(command.arg("--root").arg(root.path()).env_clear(), None));
    let root = root.path().display();
    assert_eq!(status, 0, "{said}");
    for says in [format!("client-config NAME --root {root} --write"), format!("acr-cache-proxy doctor --root {root}\n")]
    {
        assert!(said.contains(&says), "{says}: {said}");
    }
}
