//! A proxy that is not as it should be, beside engines that are.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use acr_emulator::{Fault, Hop};
use serde_json::Value;

use super::certificates::write;
use super::{Do, Host, Site, findings, found};
use crate::wire;

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_down_or_somebody_else_or_wrong_settings_are_told() {
    static IS_REGISTRY: AtomicBool = AtomicBool::new(false);
    let (site, azure) = Site::start().await;
    let host = site.host(&[Do::Install(&["podman"]), Do::Write(&["podman"])]);
    assert_eq!(found(&host.doctor(&["--json"])), []);
    let with = |settings: &str| host.put("/etc/acr-cache-proxy/config.yaml", settings);
    let codes =
        |host: &Host| -> Vec<_> { found(&host.doctor(&["--json"])).into_iter().map(|(_, code)| code).collect() };

    with(include_str!("../../../conf/minimal.yaml"));
    assert_eq!(found(&host.doctor(&["--json"])), [("proxy".to_owned(), "settings".to_owned())], "the package's");
    assert!(host.report().contains("   fix: acr-cache-proxy init --root /tree\n"), "{}", host.report());
    assert!(!host.report().contains("not here"), "nobody has looked: {}", host.report());
    // It was called "here".
    assert!(host.report().starts_with("proxy       whether it runs is not known\n"), "{}", host.report());

    with(&(site.settings.clone() + "token_weight: 3s\n"));
    assert_eq!(found(&host.doctor(&["--json"])), [("proxy".to_owned(), "settings".to_owned())]);

    // The registry itself, which speaks TLS and no HTTP to whoever does not.
    let elsewhere = format!("listen: '{}'", azure.registry_addr());
    with(&site.settings.replacen(&format!("listen: '{}'", site.proxy.address()), &elsewhere, 1));
    assert_eq!(codes(&host).first().map(String::as_str), Some("stranger"), "no HTTP");

    let reserved = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = reserved.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in reserved.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n");
            if IS_REGISTRY.load(Ordering::Relaxed) {
                let _ = stream.write_all(b"Docker-Distribution-Api-Version: registry/2.0\r\n");
            }
            let _ = stream.write_all(b"\r\nok");
        }
    });
    with(&site.settings.replacen(&format!("listen: '{}'", site.proxy.address()), &format!("listen: '{address}'"), 1));
    assert_eq!(codes(&host).first().map(String::as_str), Some("stranger"));
    IS_REGISTRY.store(true, Ordering::Relaxed);
    assert_eq!(codes(&host).first().map(String::as_str), Some("stranger"), "a registry, but not this one");
    // Those of the closed route were said to go there as well.
    let why = "pulls of docker.io and ghcr.io go to the source, and nobody is told; pulls of quay.io fail";
    assert!(host.report().contains(why), "{}", host.report());

    // Nobody.
    with(&site.settings.replacen(&format!("listen: '{}'", site.proxy.address()), "listen: '127.0.0.1:1'", 1));
    assert_eq!(codes(&host).first().map(String::as_str), Some("down"));
    host.write("podman");
    let report = host.report();
    // It would have been started here.
    let start = "   fix: # on the host itself: acr-cache-proxy --config /etc/acr-cache-proxy/config.yaml\n";
    assert!(report.contains(start), "{report}");
    assert!(
        report.contains("pulls docker.io, ghcr.io and quay.io by way of the proxy, which does not serve"),
        "{report}"
    );

    fs::remove_file(host.path("/etc/acr-cache-proxy/config.yaml")).expect("it was there");
    let output = host.doctor(&["--json"]);
    assert_eq!(found(&output), [("proxy".to_owned(), "settings".to_owned())]);
    for flags in [&["--jsn"][..], &["--json", "--fix"], &["--pull", "Nginx"], &["--mirror", "mirror.internal"]] {
        let output = host.doctor(flags);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{flags:?}: {output:?}");
    }
}

/// It was said not to run, with a command that starts one, on hosts that pull through a shared one.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_on_another_host_is_asked_at_the_address_of_the_mirror() {
    let (site, _azure) = Site::start().await;
    let host = site.host(&[]);
    let shared = site.proxy.address();
    let settings = site.settings.replacen(&format!("listen: '{shared}'"), "listen: '127.0.0.1:1'", 1);
    host.put("/etc/acr-cache-proxy/config.yaml", &settings);
    let codes = |mirror: &str| found(&host.doctor(&["--json", "--mirror", mirror]));
    assert_eq!(codes(&format!("http://{shared}")), []);
    let output = host.doctor(&["--mirror", &format!("http://{shared}")]);
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(report.contains(&format!("it is asked at http://{shared}, since none listens on this host")), "{report}");
    for mirror in ["http://127.0.0.1:2", "https://127.0.0.1:2", "http://nobody.invalid:80"] {
        assert_eq!(codes(mirror), [("proxy".to_owned(), "down".to_owned())]);
        let report = host.doctor(&["--mirror", mirror]);
        let report = String::from_utf8_lossy(&report.stdout);
        assert!(report.contains(&format!("nothing answers at {mirror}: ")), "{report}");
        assert!(report.contains(&format!("fix: curl --verbose --max-time 10 {mirror}/v2/\n")), "{report}");
    }
}

/// With a slip in `--mirror`, for the files and for doctor, the proxy of this host was asked alone, and all engines pulled through it.
#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_the_mirror_is_asked_beside_a_proxy_on_this_host() {
    let (site, azure) = Site::start().await;
    let host = site.host(&[Do::Install(&["podman"])]);
    let mirrors = ["http://127.0.0.1:2", "https://127.0.0.1:2", "http://nobody.invalid"].map(str::to_owned);
    let strangers = [format!("http://{}", azure.registry_addr()), format!("https://{}", site.proxy.address())];
    let down = mirrors.iter().map(|mirror| (mirror, "down"));
    for (mirror, code) in down.chain(strangers.iter().map(|mirror| (mirror, "stranger"))) {
        write(&host, "podman", mirror);
        let output = host.doctor(&["--json", "--mirror", mirror]);
        assert_eq!(found(&output).first(), Some(&("proxy".to_owned(), code.to_owned())), "{mirror}");
        let output = host.doctor(&["--mirror", mirror]);
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(!report.contains("through the proxy"), "{report}");
        assert!(report.contains("by way of the proxy, which does not"), "{report}");
    }
    let own = format!("http://{}", site.proxy.address());
    write(&host, "podman", &own);
    assert_eq!(found(&host.doctor(&["--json", "--mirror", &own])), []);
}

/// A second process would only find that the address is in use.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_stands_still_is_not_started_a_second_time() {
    let (site, _azure) = Site::start().await;
    let host = site.host(&[]);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(site.proxy.id()).expect("small"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).expect("stopped");
    let output = host.doctor(&["--json"]);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).expect("it goes on");
    assert_eq!(found(&output), [("proxy".to_owned(), "down".to_owned())]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["parts"][0]["runs"], Value::Null);
    let (_, finding) = findings(&report).next().expect("one");
    let [text, fix] = ["text", "fix"].map(|key| finding[key].as_str().expect("text"));
    assert!(text.contains("takes connections, and does not answer"), "{text}");
    assert!(fix.starts_with("ss -ltnp "), "{fix}");
}

/// Its command had no variables, so the proxy got no token.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_that_starts_a_proxy_that_is_down_has_the_variables_of_the_service() {
    let (site, _azure) = Site::start().await;
    let host = site.host(&[]);
    let settings = site.settings.replacen(&format!("listen: '{}'", site.proxy.address()), "listen: '127.0.0.1:1'", 1);
    host.put("/etc/acr-cache-proxy/config.yaml", &settings);
    let plain = "acr-cache-proxy --config /etc/acr-cache-proxy/config.yaml";
    assert!(host.report().contains(&format!("   fix: # on the host itself: {plain}\n")), "{}", host.report());
    host.put("/etc/acr-cache-proxy/environment", "AZURE_CLIENT_SECRET='hunter2'\n");
    let start =
        format!("   fix: # on the host itself: sh -c 'set -a; . /etc/acr-cache-proxy/environment; exec {plain}'\n");
    assert!(host.report().contains(&start), "{}", host.report());
}

/// "Permission denied" at a socket was taken for somebody who listens there.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_not_there_does_not_run_behind_a_closed_directory() {
    let (site, _azure) = Site::start().await;
    let host = site.host(&[Do::Install(&["podman"]), Do::Write(&["podman"])]);
    fs::create_dir_all(host.path("/run/crio")).expect("made");
    fs::create_dir_all(host.path("/run/containerd")).expect("made");
    for (path, mode) in [("/", 0o755), ("/run", 0o700)] {
        fs::set_permissions(host.path(path), fs::Permissions::from_mode(mode)).expect("set");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
    command.args(["doctor", "--json", "--root"]).arg(host.root.path());
    if nix::unistd::geteuid().is_root() {
        // nobody
        command.uid(65_534);
    }
    let output = command.output().expect("it runs");
    fs::set_permissions(host.path("/run"), fs::Permissions::from_mode(0o755)).expect("set");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let parts: Vec<_> = report["parts"].as_array().expect("a list").iter().map(|part| &part["name"]).collect();
    assert_eq!(parts, ["proxy", "podman"], "{report:#}");
}

/// Whoever may not read the settings knows nothing wrong of them.
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_this_user_may_not_read_are_no_finding() {
    let (site, _azure) = Site::start().await;
    let host = site.host(&[Do::Install(&["podman"])]);
    let config = host.path("/etc/acr-cache-proxy/config.yaml");
    fs::set_permissions(host.root.path(), fs::Permissions::from_mode(0o755)).expect("set");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o000)).expect("set");
    let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
    command.args(["doctor", "--json", "--root"]).arg(host.root.path());
    if nix::unistd::geteuid().is_root() {
        // nobody
        command.uid(65_534);
    }
    let output = command.output().expect("it runs");
    assert_eq!((output.status.code(), found(&output).len()), (Some(0), 0), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["status"], "unknown", "{report:#}");
    assert!(report.to_string().contains("config.yaml: only its owner may read it: run doctor as root"), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_whose_requests_were_refused_in_the_last_hour_is_told() {
    let (site, azure) = Site::start().await;
    let host = site.host(&[]);
    assert_eq!(found(&host.doctor(&["--json"])), []);
    let denied = r#"{"errors":[{"code":"DENIED","message":"denied"}]}"#.to_owned();
    azure.inject(Hop::Data, Fault::StatusWith { status: 403, headers: Vec::new(), body: denied });
    let answer = wire::ask(site.proxy.address(), "GET /v2/library/none/manifests/latest", "");
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(found(&host.doctor(&["--json"])), [("proxy".to_owned(), "refused".to_owned())]);
    let report = host.report();
    assert!(
        report.contains("1 request for docker.io was refused in the last hour, because the registry answered 403\n"),
        "{report}"
    );
    // What the registry says is no warning, and its command showed warnings alone.
    let fix = report.lines().find(|line| line.contains("; journalctl ")).unwrap_or_default();
    assert!(fix.starts_with("   fix: # on the host itself: acr-cache-proxy check --online "), "{fix}");
    let filter = fix.split_once(" --since -1h | ").expect("it has a filter").1;
    for (line, is_shown) in [
        ("[INFO  access] GET /v2/library/none/manifests/latest 403 53B 1ms client=- error=DENIED: denied", true),
        ("[INFO  access] GET /v2/library/none/manifests/latest 424 53B 1ms client=-", true),
        ("[WARN  access] HEAD /v2/library/none/manifests/4.0 502 53B 1ms client=-", true),
        ("[INFO  access] GET /v2/library/none/manifests/latest 200 491B 0ms client=127.0.0.1:40400", false),
        (r#"{"target":"access","path":"/v2/a/manifests/1","status":424,"bytes":403}"#, true),
        (r#"{"target":"access","path":"/v2/a/manifests/1","status":200,"bytes":403}"#, false),
    ] {
        let shell =
            Command::new("sh").args(["-c", &format!("printf '%s\n' '{line}' | {filter}")]).output().expect("it runs");
        assert_eq!(!shell.stdout.is_empty(), is_shown, "{line}: {shell:?}");
    }
}
