//! Settings are read again while requests run.

use std::io::{BufRead, BufReader};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Fault, Hop, Image, Options};

use crate::manager::Manager;
use crate::process;
use crate::wire::{self, Client};
use testkit::{PATIENCE, Proxy, Setup, wait_for};

mod listeners;
mod property;
mod variables;

const PULL: &str = "/v2/library/busybox/manifests/latest";
const ACCEPT: &str = "Accept: application/vnd.oci.image.index.v1+json\r\n";

/// How often the emulator was asked for a path that contains `part`.
fn asked(azure: &Emulator, part: &str) -> usize {
    azure.requests().iter().filter(|request| request.target.contains(part)).count()
}

/// The settings of a proxy with this text replaced in them.
fn with(proxy: &Proxy, from: &str, to: &str) -> String {
    let config = std::fs::read_to_string(proxy.config()).expect("a configuration");
    assert!(config.contains(from), "{config}");
    config.replacen(from, to, 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_changed_takes_effect_at_once_and_the_rest_stays() {
    let azure = testkit::azure().await;
    let proxy = Setup::routes(&azure, &[("docker.io", "hub")]).flag("--admin-address", ":0").start();
    let ghcr = "/v2/org/app/manifests/1?ns=ghcr.io";
    azure.push(Image::small("ghcr/org/app", "1"));
    assert_eq!(wire::ask(proxy.address(), &format!("GET {PULL}"), ACCEPT).status, 200);
    assert_eq!(wire::ask(proxy.address(), &format!("GET {ghcr}"), ACCEPT).status, 404);
    let mut kept = Client::new(proxy.address());
    assert_eq!(kept.ask("GET", "/v2/", "HTTP/1.1", "").status(), 200);
    let before = [asked(&azure, "/oauth2/"), asked(&azure, "/manifests/")];

    let line = std::fs::read_to_string(proxy.config()).expect("a configuration");
    let route = line.lines().find(|line| line.contains("docker.io")).expect("a route").to_owned();
    let second = route.replace("docker.io", "ghcr.io").replace("prefix: hub", "prefix: ghcr");
    let next = with(&proxy, &route, &format!("{route}\n{second}")) + "cache: {memory: 2MiB}\ntoken_wait: 3s\n";
    assert_eq!(proxy.reload_with(&next), (true, "in effect: routes, token_wait, cache\n".to_owned()));
    proxy.wait_for_log("reload: in effect: routes, token_wait, cache");

    assert_eq!(kept.ask("GET", ghcr, "HTTP/1.1", ACCEPT).status(), 200, "also on a connection that was open");
    assert_eq!(wire::ask(proxy.address(), &format!("GET {PULL}"), ACCEPT).status, 200);
    let cache = wire::ask(crate::admin::admin(&proxy), "GET /cache", "").body;
    assert!(cache.contains(&format!("\"max_bytes\": {}", 2 << 20)), "{cache}");
    // The token and what was kept are still there.
    assert_eq!([asked(&azure, "/oauth2/"), asked(&azure, "hub/library/busybox/manifests/")], before);

    assert_eq!(proxy.reload(), (true, "no setting has changed\n".to_owned()));
    let without = next.replace(&second, "");
    assert_eq!(proxy.reload_with(&without), (true, "in effect: routes\n".to_owned()));
    assert_eq!(kept.ask("GET", ghcr, "HTTP/1.1", ACCEPT).status(), 404);
    let off = without.replace("cache: {memory: 2MiB}", "cache: off");
    assert_eq!(proxy.reload_with(&off).1, "in effect: cache\n");
    let cache = wire::ask(crate::admin::admin(&proxy), "GET /cache", "").body;
    assert!(cache.contains("\"entries\": 0"), "what was kept takes no memory: {cache}");
}

/// A change of `cache` or `identity` of the file was called one of `routes`, which follow from both, and a change of a route's own was not
/// named beside one of the file's.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_named_by_the_key_that_has_it() {
    let azure = testkit::azure().await;
    let proxy = Setup::routes(&azure, &[("docker.io", "hub")]).start();
    let config = std::fs::read_to_string(proxy.config()).expect("a configuration");
    let own = with(&proxy, "prefix: hub", "prefix: hub, cache: {tags: 3s}");
    let anonymous = with(&proxy, "prefix: hub", "prefix: hub, identity: {kind: anonymous}");
    for (next, says) in [
        (config.clone() + "cache: {tags: 1s}\n", "cache"),
        (config.clone() + "cache: {tags: 2s}\n", "cache"),
        (config.clone() + "cache: {tags: 2s, memory: 2MiB}\n", "cache"),
        (own.clone() + "cache: {tags: 2s, memory: 3MiB}\n", "routes, cache"),
        (own.clone() + "cache: {tags: 2s, memory: 3MiB}\ntoken_wait: 3s\n", "token_wait"),
        (own.replace("tags: 3s", "tags: 4s") + "cache: {tags: 1s, memory: 3MiB}\ntoken_wait: 3s\n", "routes, cache"),
        (own + "cache: {tags: 2s, memory: 3MiB}\ntoken_wait: 3s\n", "routes, cache"),
        (config.replace("prefix: hub", "prefix: other") + "cache: off\ntoken_wait: 3s\n", "routes, cache"),
        (config.replace("prefix: hub", "prefix: other") + "token_wait: 3s\n", "cache"),
        (config.clone() + "token_wait: 3s\nidentity: {kind: anonymous}\n", "routes, identity"),
        (config.clone() + "token_wait: 3s\n", "identity"),
        (anonymous.clone() + "token_wait: 3s\n", "routes"),
        (anonymous + "token_wait: 3s\nidentity: {kind: anonymous}\n", "identity"),
        (config.clone() + "token_wait: 3s\ncache: {tags: 5s}\n", "routes, identity, cache"),
    ] {
        assert_eq!(proxy.reload_with(&next), (true, format!("in effect: {says}\n")), "{next}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_ends_with_the_settings_that_it_began_with() {
    let azure = testkit::azure().await;
    azure.push(Image::small("other/library/busybox", "latest"));
    let [first, second] =
        ["hub", "other"].map(|prefix| azure.manifest(&format!("{prefix}/library/busybox"), "latest").expect("pushed"));
    let proxy = Setup::new(&azure).cache("off").start();
    azure.inject(Hop::Data, Fault::PauseMidBody(Duration::from_secs(2)).times(1));
    let (address, pull) = (proxy.address(), format!("GET {PULL}"));
    let under_way = std::thread::spawn({
        let pull = pull.clone();
        move || wire::ask(address, &pull, ACCEPT)
    });
    wait_for(&azure, "a pull", |requests| requests.iter().any(|request| request.target.contains("/manifests/"))).await;
    assert!(proxy.reload_with(&with(&proxy, "prefix: hub", "prefix: other")).0);
    assert_eq!(wire::ask(address, &pull, ACCEPT).body.as_bytes(), second);
    assert_eq!(under_way.join().expect("an answer").body.as_bytes(), first);
}

/// The cache of routes that did not come about, and the metrics of a registry that nothing leads to.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_failed_at_its_last_registry_left_what_was_made_for_the_ones_before() {
    let azure = testkit::azure().await;
    let setup = Setup::routes(&azure, &[("docker.io", "hub")]).flag("--admin-address", ":0").cache("off");
    let proxy = setup.settings("identity: {kind: anonymous}").env("IDENTITY_ENDPOINT", "nowhere").start();
    let told = |path: &str| wire::ask(crate::admin::admin(&proxy), &format!("GET {path}"), "").body;
    let before = told("/cache");
    let others = "routes:\n  - {source: ghcr.io, domain: other.azurecr.io, prefix: ghcr}\n  \
                  - {source: quay.io, domain: last.azurecr.io, prefix: quay, identity: {kind: managed_identity}}";
    let next = with(&proxy, "routes:", others).replace("cache: off", "cache: {memory: 2MiB}");
    let (is_taken, said) = proxy.reload_with(&next);
    assert!(!is_taken && said.contains("IDENTITY_ENDPOINT: it does not begin with http"), "{said}");
    assert_eq!(told("/cache"), before);
    let metrics = told("/metrics");
    assert!(metrics.contains("example.azurecr.io"), "{metrics}");
    for made in ["ghcr.io", "other.azurecr.io", "last.azurecr.io"] {
        assert!(!metrics.contains(made), "{made}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_changes_nothing_and_is_told_whole() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let config = std::fs::read_to_string(proxy.config()).expect("a configuration");
    let wrong = config.replace("prefix: hub", "prefix: Hub") + "threads: none\ntoken_wait: 1s\n";
    let (is_taken, said) = proxy.reload_with(&wrong);
    let place = proxy.config().display().to_string();
    assert!(!is_taken && said.lines().count() == 2, "{said}");
    for says in [":3: upstream.prefix: \"Hub\"", ":8: threads: \"none\" is not a number"] {
        assert!(said.contains(&format!("acr-cache-proxy: {place}{says}")), "{said}");
        let line = proxy.wait_for_log("reload: nothing has changed: ");
        assert!(line.contains(says) && line.contains(" WARN "), "{line}");
    }
    assert_eq!(wire::ask(proxy.address(), &format!("GET {PULL}"), ACCEPT).status, 200);
    std::fs::remove_file(proxy.config()).expect("removed");
    let (is_taken, said) = proxy.reload();
    assert!(!is_taken && said.contains("No such file"), "{said}");
    // What was wrong before has left no trace.
    assert_eq!(proxy.reload_with(&(config + "token_wait: 1s\n")), (true, "in effect: token_wait\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_named_each_time() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).settings("drain: {timeout: 20s}").start();
    let next = with(&proxy, "drain: {timeout: 20s}", "threads: 2\ndrain: {timeout: 2s}");
    let (is_taken, said) = proxy.reload_with(&next);
    assert_eq!((is_taken, said.as_str()), (true, "in effect: drain; takes effect at the next restart: threads\n"));
    let line = proxy.wait_for_log("reload: in effect: drain; takes effect at the next restart: threads");
    assert!(line.contains(" WARN "), "{line}");
    let still = "no setting has changed that takes effect at once; takes effect at the next restart: threads\n";
    assert_eq!(proxy.reload().1, still);
    let ca = proxy.config().with_file_name("ca.pem");
    let more = std::fs::read_to_string(&ca).expect("a CA") + testkit::azure().await.ca_pem();
    std::fs::write(&ca, more).expect("written");
    assert_eq!(proxy.reload().1, still.trim_end().to_owned() + ", the CA certificates\n");
    assert!(proxy.end().contains("stopping: 0 requests under way, at most 2 s"), "the drain is the new one");
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_settings_and_the_service_manager_is_told() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure);
    let path = setup.path("manager");
    let manager = Manager::at(&path);
    let proxy = setup.env("NOTIFY_SOCKET", &path.to_string_lossy()).spawn();
    let wait_for = |first: &str| {
        std::iter::repeat_with(|| manager.receive()).find(|text| text.starts_with(first)).expect("endless")
    };
    wait_for("READY=1\n");
    for says in ["reload: in effect: log", "reload: nothing has changed: "] {
        let log = if says.ends_with("log") { "log: warn,acr_cache_proxy::serve::reload=info" } else { "log: loud" };
        std::fs::write(proxy.config(), with(&proxy, "log: ", &format!("{log}\n#"))).expect("written");
        proxy.signal("HUP");
        let reloading = wait_for("RELOADING=1\n");
        let mut lines = reloading.lines().skip(1);
        let time = lines.next().and_then(|line| line.strip_prefix("MONOTONIC_USEC=")).expect(&reloading);
        assert!(time.parse::<u64>().is_ok_and(|time| time > 0) && lines.next().is_none(), "{reloading}");
        wait_for("READY=1\n");
        proxy.wait_for_log(says);
    }
    let before = proxy.log();
    assert!(!before.contains(" access] "), "{before}");
}

#[test]
fn a_reload_without_a_proxy_fails_and_says_so() {
    let reload = |arguments: &[&str], main_pid: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        let output = command.env_clear().env("MAINPID", main_pid).arg("reload").args(arguments).output();
        let output = output.expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (arguments, main_pid, status, says) in [
        (&["--pid", "1073741824"][..], "", 1, "no proxy with the process id 1073741824 runs here"),
        (&[], "1073741824", 1, "no proxy with the process id 1073741824 runs here"),
        (&["--pid", "0"], "", 2, "--pid: \"0\" is not a process id: use a number"),
        (&["--pid", "self"], "", 2, "--pid: \"self\" is not a process id: use a number"),
    ] {
        let (code, said) = reload(arguments, main_pid);
        assert!(code == Some(status) && said.starts_with(&format!("acr-cache-proxy: {says}")), "{code:?} {said}");
    }
}

/// For a minute, both said nothing.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_proxy_that_stands_still_is_told_so() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    proxy.signal("STOP");
    let (pid, via) = (proxy.id().to_string(), format!("http://{}", proxy.address()));
    let waits = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        let command = command.env_clear().args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let said = BufReader::new(child.stderr.take().expect("piped"));
        (child, said)
    };
    let (mut reload, mut of_reload) = waits(&["reload", "--pid", &pid]);
    let (mut warm, mut of_warm) = waits(&["warm", "--via", &via, "busybox"]);
    let first = |said: &mut dyn BufRead| {
        let mut line = String::new();
        said.read_line(&mut line).expect("a line");
        line
    };
    let expected = format!("acr-cache-proxy: process {pid} has not answered yet, and is waited for up to 60 s\n");
    assert_eq!(first(&mut of_reload), expected);
    let expected = "acr-cache-proxy: warm: the proxy has not answered yet: a connection is waited for 5 s at most, an answer 60 s\n";
    assert_eq!(first(&mut of_warm), expected);
    proxy.signal("CONT");
    assert!(reload.wait().expect("it ends").success(), "{}", first(&mut of_reload));
    warm.kill().and_then(|()| warm.wait()).expect("it ends");
}

/// The fake is this test's process, which no proxy's program runs: another user's is told by its user in the same way.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_socket_of_another_program_kept_a_reload_from_the_proxy() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let fake = std::process::id().to_string();
    let name = SocketAddr::from_abstract_name(format!("acr-cache-proxy/control/{fake}")).expect("a name");
    let _silent = UnixListener::bind_addr(&name).expect("bound");
    let reload = |arguments: &[&str]| {
        let started = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        let output = command.arg("reload").args(arguments).env_remove("MAINPID").output().expect("it runs");
        (output.status.success(), String::from_utf8(output.stderr).expect("text"), started.elapsed())
    };
    // The proxies of other tests may run besides.
    let (is_done, said, _) = reload(&[]);
    let (_, several) = said.rsplit_once("name one of them with --pid: ").unwrap_or_default();
    let several: Vec<_> = several.trim_end().split(", ").collect();
    assert!(is_done || several.contains(&&*proxy.id().to_string()), "{said}");
    assert!(!several.contains(&&*fake), "{said}");
    let (is_done, said, took) = reload(&["--pid", &fake]);
    assert!(!is_done && said.contains("is not acr-cache-proxy, and is not asked"), "{said}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// It said nothing of who has the name, had it never again, and a reload took it for a proxy in a container.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_whose_name_was_taken_before_its_start_says_by_whom_and_has_it_when_it_is_free() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure);
    let (program, go) = process::waiting(&setup);
    let proxy = setup.program(&program).spawn();
    let pid = proxy.id();
    let name = SocketAddr::from_abstract_name(format!("acr-cache-proxy/control/{pid}")).expect("a name");
    let taken = UnixListener::bind_addr(&name).expect("bound");
    std::fs::write(&go, "").expect("written");
    let line = proxy.wait_for_log("control socket: process ");
    assert!(line.contains(&format!("process {} (", std::process::id())) && line.contains(" has its name: "), "{line}");
    proxy.wait_for_log("signed in by");
    let (is_done, said) = proxy.reload();
    let whose = format!("process {pid}: its control socket is another process's: {} (", std::process::id());
    assert!(!is_done && said.contains(&whose), "{said}");
    assert!(said.contains(&format!(": SIGHUP has it read its settings all the same: `systemctl kill -s HUP --kill-whom=main acr-cache-proxy`, or `kill -HUP {pid}`")), "{said}");
    // The name is not tried again yet, and "no proxy runs here" was said.
    drop(taken);
    let (is_done, said) = proxy.reload();
    assert!(
        !is_done && said.contains(&format!("process {pid} is a proxy, and has no control socket here: ")),
        "{said}"
    );
    assert!(said.trim_end().ends_with(&format!("or `kill -HUP {pid}`")), "{said}");
    proxy.signal("HUP");
    proxy.wait_for_log("control socket: its name is free again");
    assert_eq!(proxy.reload(), (true, "no setting has changed\n".to_owned()));
}

/// Root was told that only root may ask: the proxy had given the request up, while root read a table that others had made long.
#[tokio::test(flavor = "multi_thread")]
async fn other_users_on_the_control_socket_kept_root_from_a_reload() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let name = SocketAddr::from_abstract_name(format!("acr-cache-proxy/control/{}", proxy.id())).expect("a name");
    let until = Instant::now() + PATIENCE;
    let is_over = Arc::new(AtomicBool::new(false));
    // More connections than the proxy takes, so that there are as many as may wait. They are of this test's user, and end as soon as others'.
    let crowd: Vec<_> = (0..8)
        .map(|_| {
            let (name, is_over) = (name.clone(), Arc::clone(&is_over));
            std::thread::spawn(move || {
                let mut connections = 0;
                while !is_over.load(Ordering::Relaxed) && Instant::now() < until {
                    connections += usize::from(UnixStream::connect_addr(&name).is_ok());
                }
                connections
            })
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(proxy.reload(), (true, "no setting has changed\n".to_owned()));
    }
    is_over.store(true, Ordering::Relaxed);
    for connections in crowd {
        assert!(connections.join().expect("it ends") > 0);
    }
}
