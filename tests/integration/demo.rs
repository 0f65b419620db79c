//! The demo, as a new user runs it.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Instant;

use testkit::PATIENCE;

/// The command that a new user types first.
#[test]
fn the_demo_shows_a_whole_pull_and_what_went_over_which_hop() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy")).args(["demo", "--once"]).output().expect("it runs");
    let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{log}");
    let runs = match acr_emulator::static_busybox() {
        Some(binary) => format!("The image runs: in it is {} of this machine.", binary.display()),
        None => "The image can be pulled and not run".to_owned(),
    };
    for line in [
        &runs,
        "GET /v2/ -> 200",
        "HEAD /v2/library/hello/manifests/latest -> 200",
        " -> 307 to blob storage",
        "Every manifest and blob matches its digest.",
        "registry: POST /oauth2/exchange -> 200",
        // A GET, so that the GET that follows it needs no request.
        "registry: GET /v2/hub/library/hello/manifests/latest -> 200, with a bearer token",
        " -> 200, without any credentials",
        "requests to the proxy: 7, of these on to the registry: 0\n",
        "What the proxy logged:\n",
        " access] HEAD /v2/library/hello/manifests/latest 200 ",
        "The demo is complete.",
    ] {
        assert!(said.contains(line), "no {line:?} in\n{said}");
    }
}

#[test]
fn the_demo_needs_no_ca_certificates_of_this_machine() {
    let output = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"))
        .args(["demo", "--once"])
        .envs([("SSL_CERT_FILE", "/nonexistent/cert.pem"), ("SSL_CERT_DIR", "/nonexistent")])
        .env("HTTPS_PROXY", "http://127.0.0.1:9")
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn however_the_demo_ends_its_proxy_ends_and_its_files_are_gone() {
    for (signal, status) in [("INT", Some(0)), ("TERM", Some(0)), ("HUP", Some(0)), ("KILL", None)] {
        let files = tempfile::tempdir().expect("a temporary directory");
        let mut demo = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"))
            .arg("demo")
            .env("TMPDIR", files.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut proxy: Option<SocketAddr> = None;
        for line in BufReader::new(demo.stdout.take().expect("piped")).lines().map_while(Result::ok) {
            if let Some(address) = line.strip_prefix("The proxy is ready on http://") {
                proxy = address.trim_end_matches('.').parse().ok();
            }
            if line == "Ctrl-C ends it." {
                break;
            }
        }
        let proxy = proxy.expect("the demo says where its proxy is");
        TcpStream::connect(proxy).expect("it stays up");
        let sent = Command::new("kill").args(["-s", signal, &demo.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
        assert_eq!(demo.wait().expect("it ends").code(), status, "{signal}");
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(proxy).is_ok() {
            assert!(Instant::now() < deadline, "{signal}: the proxy lives on");
            // The end of a process that is nobody's child can only be looked for; nothing depends on the step.
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let left: Vec<_> = files.path().read_dir().expect("a directory").map_while(Result::ok).collect();
        // What is killed outright cannot clean up.
        assert!(left.is_empty() || signal == "KILL", "{signal}: {left:?}");
    }
}

/// As `head` does.
#[test]
fn a_reader_that_closes_the_output_early_is_an_error_and_no_panic() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"))
        .args(["demo", "--once"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(demo.stdout.take());
    let output = demo.wait_with_output().expect("it ends");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("acr-cache-proxy: demo: output: ") && !log.contains("panicked"), "{log}");
}
