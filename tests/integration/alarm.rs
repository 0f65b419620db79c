//! Who is told of faults, and how often: `notify.command`, what was refused, and a log without alarms in normal work.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Fault, Hop, Image, Options};
use serde_json::Value;
use testkit::{ASKING, PATIENCE, Proxy, SECRET, Setup};

use crate::admin::admin;
use crate::fixture::ACCEPT;
use crate::wire;

/// Writes what it is told, one block a run; $1 is where to. What else it finds in its environment comes behind.
const TELL: &str = "#!/bin/sh\n{ env | sort; echo \"second=$2\"; echo; } >>\"$1\"\necho written\necho again >&2\n";

/// A program of a test's own.
fn program(setup: &Setup, text: &str) -> String {
    let path = setup.file("tell", text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it can be run");
    path.to_string_lossy().into_owned()
}

/// Waits until the program has been told this, and gives the block.
async fn told(path: &Path, proxy: &Proxy, lines: &[&str]) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        let blocks = text.split_inclusive("\n\n").filter(|block| block.ends_with("\n\n"));
        let mut fits = blocks.filter(|block| lines.iter().all(|line| block.lines().any(|other| other == *line)));
        if let Some(block) = fits.next() {
            return block.to_owned();
        }
        assert!(Instant::now() < deadline, "{lines:?}: {text}\n{}", proxy.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn pull(proxy: &Proxy) -> u16 {
    wire::ask(proxy.address(), "GET /v2/library/busybox/manifests/latest", ACCEPT).status
}

fn status(admin: SocketAddr) -> Value {
    serde_json::from_str(&wire::ask(admin, "GET /status", "").body).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_told_of_a_fault_that_lasts_and_of_its_end_and_of_no_secret() {
    let azure = testkit::azure().await;
    azure.inject(Hop::Exchange, Fault::Status(503));
    let setup = Setup::new(&azure);
    let (tell, file) = (program(&setup, TELL), setup.path("told"));
    let notify = format!("notify: {{command: [{tell}, '{}', two words], after: 1s}}", file.display());
    let proxy = setup.settings(&notify).secret(SECRET).start();

    let begin = told(&file, &proxy, &["ACR_CACHE_PROXY_EVENT=begin", "ACR_CACHE_PROXY_FAULT=token"]).await;
    let value = |name: &str| {
        let line = begin.lines().find_map(|line| line.strip_prefix(&format!("ACR_CACHE_PROXY_{name}=")));
        line.unwrap_or_else(|| panic!("no {name}: {begin}")).to_owned()
    };
    let registry = format!("example.azurecr.io:{}", azure.registry_addr().port());
    assert_eq!(value("SUBJECT"), registry);
    assert!(value("MESSAGE").starts_with(&format!("acr {registry}: for ")), "{begin}");
    assert!(value("MESSAGE").contains("token exchange: 503"), "{begin}");
    assert!(value("SECONDS").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{begin}");
    assert_eq!(value("REFUSED"), "0");
    assert!(begin.contains("second=two words\n"), "{begin}");
    assert!(!begin.contains(SECRET) && !begin.contains("AZURE_"), "{begin}");
    proxy.wait_for_log("notify.command: begin of token ");

    assert_eq!(pull(&proxy), 503);
    azure.clear_faults();
    let end = ["ACR_CACHE_PROXY_EVENT=end", "ACR_CACHE_PROXY_FAULT=token", "ACR_CACHE_PROXY_REFUSED=1"];
    told(&file, &proxy, &end).await;
    let line = proxy.wait_for_log("notify.command: end of token ");
    assert!(line.contains("told: written") && line.contains("again"), "{line}");
    let log = proxy.log();
    let warnings = log.lines().filter(|line| line.contains("token exchange: 503") && line.contains("WARN"));
    // Besides the request's own line.
    assert_eq!(warnings.filter(|line| !line.contains(" access]")).count(), 1, "{log}");
}

/// One that hangs, with a child of its own that would outlive it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_hangs_delays_no_request_and_ends_with_the_proxy() {
    let azure = testkit::azure().await;
    azure.inject(Hop::Exchange, Fault::Status(503));
    let setup = Setup::new(&azure);
    let tell = program(&setup, "#!/bin/sh\nsleep 1000 &\necho \"$$ $!\" >\"$1.new\"\nmv \"$1.new\" \"$1\"\nwait\n");
    let file = setup.path("told");
    let mut proxy = setup.start();
    // As a reload brings it.
    let config = fs::read_to_string(proxy.config()).expect("a configuration");
    let notify = format!("notify: {{command: [{tell}, '{}'], after: 1s}}\n", file.display());
    let (done, said) = proxy.reload_with(&format!("{config}{notify}"));
    assert!(done && said.contains("in effect: notify"), "{said}");
    let deadline = Instant::now() + PATIENCE;
    while !file.exists() {
        assert!(Instant::now() < deadline, "{}", proxy.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    azure.clear_faults();
    let proc = |id: &str| PathBuf::from("/proc").join(id);
    let processes: Vec<_> = fs::read_to_string(&file).expect("two numbers").split_whitespace().map(proc).collect();
    assert!(processes.iter().all(|process| process.exists()), "{processes:?}");
    while pull(&proxy) != 200 {
        assert!(Instant::now() < deadline, "{}", proxy.log());
    }
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    let is_running = |process: &PathBuf| {
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        // A process that has ended and that nobody has waited for is none.
        !stat.is_empty() && !stat.contains(") Z ")
    };
    while processes.iter().any(is_running) {
        assert!(Instant::now() < deadline, "{processes:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The log's line of the route came when the program for the other fault was ended, half a minute later.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_hangs_delayed_the_log_of_other_faults() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure);
    let (tell, file) = (program(&setup, "#!/bin/sh\necho $$ >>\"$1\"\nexec sleep 1000\n"), setup.path("told"));
    let notify = format!("notify: {{command: [{tell}, '{}'], after: 1s}}", file.display());
    let routes = format!(
        "- {{source: docker.io, prefix: hub, domain: 'example.azurecr.io:{}', addresses: [127.0.0.1]}}\n\
         - {{source: ghcr.io, domain: 'nobody.example:1', addresses: [127.0.0.1]}}\n",
        azure.registry_addr().port()
    );
    let proxy = setup.only_routes(&routes).settings(&notify).cache("off").start();
    let deadline = Instant::now() + PATIENCE;
    while !file.exists() {
        assert!(Instant::now() < deadline, "{}", proxy.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    azure.inject(Hop::Data, Fault::CacheRule(403));
    let begun = Instant::now();
    while !proxy.log().contains("route docker.io: for ") {
        assert_eq!(pull(&proxy), 403);
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", proxy.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(fs::read_to_string(&file).expect("a number").lines().count(), 1, "one after the other");
    proxy.end();
}

/// A start and `check` warn.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_said_nothing_of_a_command_that_is_not_there() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let config = fs::read_to_string(proxy.config()).expect("a configuration");
    let (done, said) = proxy.reload_with(&format!("{config}notify: {{command: [/nonexistent/tell]}}\n"));
    let says = "in effect: notify; notify.command: /nonexistent/tell: it is not there: nobody is told of a fault";
    assert!(done && said.trim_end() == says, "{said}");
    let line = proxy.wait_for_log(says);
    assert!(line.contains(" WARN ") && line.contains("reload: "), "{line}");
    let (done, said) = proxy.reload_with(&format!("{config}notify: {{command: [/bin/true]}}\n"));
    assert!(done && said.trim_end() == "in effect: notify", "{said}");
}

/// An alert that is opened and never closed is one that somebody is called for at night. The begins come in two parts, and the ends
/// at once; the program is run for eight begins of one look at most.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_told_of_a_begin_is_told_of_the_end_however_many_end_at_once() {
    let azure = testkit::azure().await;
    let port = azure.registry_addr().port();
    let route = |number: usize| {
        format!(
            "- {{source: r{number}.example, prefix: hub, domain: 'r{number}.example:{port}', addresses: [127.0.0.1]}}\n"
        )
    };
    let routes = |count: usize| (0..count).map(route).collect::<String>();
    let setup = Setup::new(&azure).only_routes(&routes(6));
    let tell = program(
        &setup,
        "#!/bin/sh\ntest \"$ACR_CACHE_PROXY_FAULT\" != token || echo \"$ACR_CACHE_PROXY_EVENT $ACR_CACHE_PROXY_SUBJECT\" >>\"$1\"\necho why >&2\nexit 3\n",
    );
    let file = setup.path("told");
    let setup = setup.settings(&format!("notify: {{command: [{tell}, '{}'], after: 1s}}", file.display()));
    // No certificate is for these names.
    let proxy = setup.spawn();
    let wait = async |event: &str, count: usize| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = fs::read_to_string(&file).unwrap_or_default();
            if told.lines().filter(|line| line.starts_with(event)).count() == count {
                return;
            }
            assert!(Instant::now() < deadline, "{count} of {event}: {told}\n{}", proxy.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    wait("begin ", 6).await;
    let config = fs::read_to_string(proxy.config()).expect("a configuration");
    assert!(proxy.reload_with(&config.replacen(&routes(6), &routes(12), 1)).0);
    wait("begin ", 12).await;
    let good =
        format!("- {{source: docker.io, prefix: hub, domain: 'example.azurecr.io:{port}', addresses: [127.0.0.1]}}\n");
    assert!(proxy.reload_with(&config.replacen(&routes(6), &good, 1)).0);
    wait("end ", 12).await;
    proxy.wait_for_log("notify.command: end of token r9.example");
    let log = proxy.log();
    let runs: Vec<_> =
        log.lines().filter(|line| line.contains("notify.command: ") && line.contains(" of token ")).collect();
    assert!(
        runs.iter().all(|line| line.ends_with("exit status: 3: why")),
        "what it has printed last is there: {runs:#?}"
    );
}

/// Every pull went past the mirror, and neither the metric, `/status`, the alerts nor `notify.command` knew of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_and_a_page_in_place_of_the_registry_were_told_by_nothing() {
    const PAGE: &str = "<html><title>404 Not Found</title></html>";
    let page = |status| Fault::StatusWith {
        status,
        headers: vec![("Content-Type".to_owned(), "text/html; charset=utf-8".to_owned())],
        body: PAGE.to_owned(),
    };
    for (cache, fault, status, cause) in [
        ("off", Fault::CacheRule(424), 424, "registry_424"),
        (ASKING[1], Fault::CacheRule(424), 424, "registry_424"),
        ("off", page(404), 404, "page"),
        (ASKING[1], page(404), 404, "page"),
        ("off", Fault::CacheRule(403), 403, "registry_403"),
        (ASKING[1], Fault::CacheRule(403), 403, "registry_403"),
    ] {
        refused_once(cache, fault, (status, cause), &format!("the registry answers {status}")).await;
    }
}

/// A network's page for signing in counted as `broken`, so that its operator looked for what cuts connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_with_status_200_was_told_as_an_answer_that_is_not_whole() {
    let page = |status, header: (&str, &str)| Fault::StatusWith {
        status,
        headers: [("Content-Type", "text/html"), header]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        body: "<html>sign in</html>".to_owned(),
    };
    let (none, packed) = (("X-Portal", "1"), ("Content-Encoding", "gzip"));
    let to_portal = ("Location", "https://login.example/");
    for (status, header, says) in [
        (200, none, "it is no manifest; it is a page for people: look for a sign-in or a filter between"),
        (200, packed, "it is no manifest; it is a page for people"),
        (407, none, "it is a 407, which is no registry's: look for a proxy between this host and the registry"),
        (302, to_portal, "it is a redirect, which may be of something between"),
    ] {
        for cache in ["off", ASKING[1]] {
            let error = format!("the registry's answer cannot be used: {says}");
            refused_once(cache, page(status, header), (502, "page"), &error).await;
        }
    }
    // By the status alone it was the registry's.
    for status in [403, 503] {
        for cache in ["off", ASKING[1]] {
            let error =
                format!("the registry answers {status}, with a page for people: it may be of something between");
            refused_once(cache, page(status, none), (status, "page"), &error).await;
        }
    }
}

/// A pull that meets this fault is refused with this status, and is told by this cause and these words.
async fn refused_once(cache: &str, fault: Fault, (status_code, cause): (u16, &str), error: &str) {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).cache(cache).flag("--admin-address", ":0").start();
    let admin = admin(&proxy);
    // A registry's own 404 is no refusal.
    assert_eq!(wire::ask(proxy.address(), "GET /v2/library/none/manifests/latest", ACCEPT).status, 404);
    azure.inject(Hop::Data, fault);
    assert_eq!(pull(&proxy), status_code, "{cache}");
    // A request is counted when its answer has gone.
    let deadline = Instant::now() + PATIENCE;
    while status(admin)["failures"].as_array().is_none_or(Vec::is_empty) {
        assert!(Instant::now() < deadline, "{cache} {cause}: {}", proxy.log());
    }
    let told = status(admin);
    let (route, failures) = (&told["routes"][0], &told["failures"]);
    assert_eq!((&route["refused_last_hour"], &route["most_frequent_cause"]), (&1.into(), &cause.into()), "{told:#}");
    assert_eq!((&failures[0]["status"], failures[1].is_null()), (&status_code.into(), true), "{told:#}");
    assert!(failures[0]["error"].as_str().is_some_and(|told| told.starts_with(error)), "{told:#}");
    // Only the registry gives an id.
    let is_id = failures[0]["correlation"].as_str().is_some_and(|id| id.len() == 36);
    assert_eq!(is_id, cause != "page", "{told:#}");
    let sample = format!("acr_cache_proxy_requests_refused_total{{route=\"docker.io\",cause=\"{cause}\"}} 1.0\n");
    let scrape = wire::ask(admin, "GET /metrics", "").body;
    assert!(scrape.contains(&sample), "{cache}: {scrape}");
}

/// Whoever sent `Connection: X-Forwarded-For` 32 times pushed out the failures of the registry, and each had a warning.
#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_header_of_a_client_pushed_out_the_failures_of_the_registry() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).cache("off").flag("--admin-address", ":0").start();
    let admin = admin(&proxy);
    azure.inject(Hop::Data, Fault::Status(500));
    assert_eq!(pull(&proxy), 500);
    azure.clear_faults();
    for number in 0..40 {
        let line = format!("GET /v2/library/x{number}/manifests/latest");
        assert_eq!(wire::ask(proxy.address(), &line, "Connection: X-Forwarded-For\r\n").status, 400);
    }
    proxy.wait_for_log("/v2/library/x39/manifests/latest 400 ");
    let told = status(admin);
    assert_eq!((&told["failures"][0]["status"], told["failures"][1].is_null()), (&500.into(), true), "{told:#}");
    let lines = proxy.log();
    let lines: Vec<_> = lines.lines().filter(|line| line.contains("the Connection header lists")).collect();
    assert_eq!(lines.len(), 40);
    assert!(lines.iter().all(|line| line.contains(" INFO ")), "{}", lines[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_whose_requests_are_all_refused_is_told_and_counted_until_one_is_served() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure);
    let (tell, file) = (program(&setup, TELL), setup.path("told"));
    let notify = format!("notify: {{command: [{tell}, '{}'], after: 2s}}", file.display());
    let proxy = setup.settings(&notify).cache("off").flag("--admin-address", ":0").start();
    let admin = admin(&proxy);
    assert_eq!(pull(&proxy), 200);
    assert_eq!(status(admin)["routes"][0]["refused_last_hour"], 0);
    assert_eq!(status(admin)["routes"][0]["most_frequent_cause"], Value::Null);

    // What the client does wrong, and what is not there, is no refusal.
    assert_eq!(wire::ask(proxy.address(), "GET /v2/library/none/manifests/latest", ACCEPT).status, 404);
    azure.inject(Hop::Data, Fault::CacheRule(403));
    let lasting = told(&file, &proxy, &["ACR_CACHE_PROXY_EVENT=begin", "ACR_CACHE_PROXY_FAULT=route"]);
    let asking = async {
        loop {
            assert_ne!(pull(&proxy), 200);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let begin = tokio::select! {
        begin = lasting => begin,
        () = asking => unreachable!("it has no end"),
    };
    assert!(begin.contains("\nACR_CACHE_PROXY_SUBJECT=docker.io\n"), "{begin}");
    proxy.wait_for_log("route docker.io: for ");
    let route = &status(admin)["routes"][0];
    assert!(route["refused_last_hour"].as_u64().is_some_and(|count| count > 1), "{route}");
    assert_eq!(route["most_frequent_cause"], "registry_403", "{route}");
    let scrape = wire::ask(admin, "GET /metrics", "").body;
    let sample = "acr_cache_proxy_requests_refused_total{route=\"docker.io\",cause=\"registry_403\"} ";
    assert!(scrape.contains(sample), "{scrape}");

    azure.clear_faults();
    assert_eq!(pull(&proxy), 200);
    told(&file, &proxy, &["ACR_CACHE_PROXY_EVENT=end", "ACR_CACHE_PROXY_FAULT=route"]).await;
    proxy.wait_for_log("route docker.io: over after ");
}

/// Clients get it as 503, so that they turn to the source, and it was told as that.
#[tokio::test(flavor = "multi_thread")]
async fn a_429_of_the_registrys_was_counted_as_a_5xx() {
    for (cache, fault, cause) in [
        ("off", 429, "registry_429"),
        (ASKING[1], 429, "registry_429"),
        ("off", 503, "registry_5xx"),
        (ASKING[1], 503, "registry_5xx"),
    ] {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).flag("--admin-address", ":0").start();
        let admin = admin(&proxy);
        azure.inject(Hop::Data, Fault::Status(fault));
        assert_eq!(pull(&proxy), 503, "{cache}");
        // A request is counted when its answer has gone.
        let deadline = Instant::now() + PATIENCE;
        while status(admin)["routes"][0]["refused_last_hour"] == 0 {
            assert!(Instant::now() < deadline, "{}", proxy.log());
        }
        let route = &status(admin)["routes"][0];
        assert_eq!(route["most_frequent_cause"], cause, "{cache}: {route}");
        let sample = format!("acr_cache_proxy_requests_refused_total{{route=\"docker.io\",cause=\"{cause}\"}} 1.0\n");
        let scrape = wire::ask(admin, "GET /metrics", "").body;
        assert!(scrape.contains(&sample), "{cache}: {scrape}");
    }
}

/// Tokens that live for seconds, as many renewals as a working day has, kept answers that end, idle connections, a reload.
#[tokio::test(flavor = "multi_thread")]
async fn normal_work_logs_no_warning_and_no_error() {
    let life = Duration::from_secs(6);
    let options =
        Options { access_lifetime: life, refresh_lifetime: life * 3, entra_lifetime: life * 3, ..testkit::options() };
    let azure = Emulator::start(options).await.expect("the emulator starts");
    azure.push(Image::small("hub/library/busybox", "latest"));
    let setup = Setup::new(&azure).cache("{tags: 500ms, manifests: 1s}").settings("client_keepalive: 1s");
    let proxy = setup.settings("notify: {command: [/bin/false], after: 1s}").start();
    let renewals = || azure.requests().iter().filter(|request| request.hop == Hop::Token).count();
    let deadline = Instant::now() + PATIENCE;
    let mut number = 0;
    while renewals() < 8 {
        assert_eq!(pull(&proxy), 200, "{}", proxy.log());
        assert_eq!(wire::ask(proxy.address(), "GET /v2/library/none/manifests/latest", ACCEPT).status, 404);
        let _idle = wire::connect(proxy.address());
        number += 1;
        if number == 20 {
            assert!(proxy.reload().0);
        }
        assert!(Instant::now() < deadline, "{} renewals", renewals());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let log = proxy.end();
    let alarms: Vec<_> = log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
    assert!(alarms.is_empty(), "{alarms:#?}");
}
