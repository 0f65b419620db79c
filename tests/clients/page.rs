//! The status page in a real browser, which sees no network but `lo`: what a person reads there, and that nothing is run or
//! fetched but what the page brings.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Fault, Hop, Image, Server};
use testkit::certificates::Authority;
use testkit::wire;
use testkit::{PATIENCE, Proxy, Setup};

use crate::namespace;
use crate::program::{client, run};

/// A browser of a machine with two busy cores.
const LIMIT: Duration = Duration::from_secs(120);
/// Of the page's own clock: three of its updates.
const PAGE_TIME: &str = "--virtual-time-budget=16000";
const ACCEPT: &str = "Accept: application/vnd.oci.image.index.v1+json\r\n";
/// Widths and schemes in which the page is drawn, for whoever wants to look at it (`target/tmp/page-*.png`).
const SHOTS: [(&str, &str, &str); 3] =
    [("light", "1280,2000", "1"), ("dark", "1280,2000", "0"), ("phone", "390,4200", "1")];

/// What a registry's error says, and what must stay a text.
const MARKUP: &str = "<img src=x onerror=document.title='run'>";

fn chromium(home: &Path) -> std::process::Command {
    let mut command = client("chromium", home, LIMIT);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]);
    command.args(["--enable-logging=stderr", "--log-level=0", PAGE_TIME]);
    command.arg(format!("--user-data-dir={}", home.join("profile").display()));
    command
}

/// The page as it is after some updates, and what the browser had to complain of.
fn open(admin: SocketAddr, name: &str) -> (String, Vec<String>) {
    let home = tempfile::tempdir().expect("a directory");
    let url = format!("http://{admin}/");
    let output = chromium(home.path()).args(["--dump-dom", &url]).output().expect("it runs");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    // The browser's own pages complain of a slow machine.
    let of_page = |line: &&str| line.contains(":CONSOLE") && !line.contains("source: chrome://");
    let complaints = complaints.lines().filter(of_page).map(str::to_owned).collect();
    for (shot, size, scheme) in SHOTS {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}-{shot}.png"));
        run(chromium(home.path())
            .arg(format!("--window-size={size}"))
            .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
            .arg(format!("--screenshot={}", file.display()))
            .arg(&url));
        assert!(file.metadata().is_ok_and(|file| file.len() > 10_000), "{}", file.display());
    }
    (String::from_utf8_lossy(&output.stdout).into_owned(), complaints)
}

fn admin(proxy: &Proxy) -> SocketAddr {
    let line = proxy.wait_for_log("health and readiness on http://");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    address.parse().expect("an address")
}

/// Waits until `/status` says this.
async fn until(admin: SocketAddr, says: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let body = wire::ask(admin, "GET /status", "").body;
        if body.contains(says) {
            return;
        }
        assert!(Instant::now() < deadline, "{says}: {body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The text of the page between tags.
fn words(html: &str) -> String {
    let body = html.split("<main>").nth(1).expect("the page").split("<script>").next().expect("its text");
    let mut text = String::new();
    for part in body.split('<') {
        text.push_str(part.split_once('>').map_or(part, |(_, text)| text));
        text.push(' ');
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace"]
async fn a_person_reads_how_it_is_and_what_to_do() {
    namespace::assert_isolated();
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    for name in ["hub/library/nginx", "hub/library/redis", "hub/bitnami/postgresql"] {
        azure.push(Image::small(name, "1.27"));
    }
    let setup = Setup::routes(&azure, &[("docker.io", "hub"), ("ghcr.io", "ghcr")]);
    let pair = Authority::new("mirror CA").server(&["mirror.internal"]);
    setup.file("tls.crt", &pair.certificate);
    setup.file("tls.key", &pair.key);
    let tls = "tls: {certificate: '{}/tls.crt', key: '{}/tls.key'}";
    let proxy = setup
        .listen(&format!("[{{address: '127.0.0.1:0'}}, {{address: '127.0.0.1:0', {tls}}}]"))
        .cache("{memory: 8MiB}")
        .settings("limits: {registry_reads_per_minute: 1000, requests_per_second_per_client: 1, request_burst_per_client: 60}")
        .flag("--admin-address", "127.0.0.1:0")
        .start();
    let admin = admin(&proxy);
    for (name, pulls) in [("library/nginx", 30), ("library/redis", 12), ("bitnami/postgresql", 3)] {
        for _ in 0..pulls {
            wire::ask(proxy.address(), &format!("HEAD /v2/{name}/manifests/1.27"), ACCEPT);
        }
    }
    until(admin, "\"rate\":").await;
    let (html, complaints) = open(admin, "well");
    assert!(complaints.is_empty(), "{complaints:?}");
    let text = words(&html);
    for says in [
        "docker.io/library/nginx:1.27",
        "State served",
        "Identity default chain, 11111111-2222-4333-8444-555555555555",
        "Sign-in valid for",
        "1,000 reads a minute",
        "no request that was let in has failed",
        "Reads saved 42",
        "Requests a second",
        "127.0.0.1",
        "days left, of https://127.0.0.1:",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
    assert!(html.contains(r#"class="good" "#) || html.contains(r#"class="good">ready<"#), "{html}");
    let nginx = text.find("docker.io/library/nginx:1.27").expect("the first");
    assert!(text.find("docker.io/library/redis:1.27").is_some_and(|redis| nginx < redis), "{text}");
    let line = html.split("<polyline").nth(1).and_then(|line| line.split("points=\"").nth(1)).expect("a plot");
    assert!(line.split('"').next().is_some_and(|points| points.contains(',')), "{line}");

    // The sign-in and the registry fail, with words that somebody else has chosen.
    azure.refuse_connections(Server::Entra, true);
    azure.inject(Hop::Data, Fault::Status(500));
    // The first one is refused by the registry, and the others because it is down, once probes have found that out.
    for number in 0..5 {
        wire::ask(proxy.address(), &format!("GET /v2/library/nginx/manifests/broken-{number}"), ACCEPT);
        proxy.wait_for_log("it is down, and probed until it answers");
    }
    wire::ask(proxy.address(), &format!("GET /v2/{MARKUP}/manifests/1"), ACCEPT);
    until(admin, "broken-4").await;
    // What is refused before its image is known is in no list of failures: the page said nothing of it.
    wire::send(proxy.address(), b"nonsense\r\n\r\n");
    for _ in 0..70 {
        wire::ask(proxy.address(), "GET /v2/", "");
    }
    let (html, complaints) = open(admin, "trouble");
    assert!(complaints.is_empty(), "{complaints:?}");
    let text = words(&html);
    for says in [
        "GET /v2/library/nginx/manifests/broken-4",
        "the registry answers 500",
        "Last failure",
        "Refused in the last hour",
        // It was the metric's label of the cause, which is no word for people.
        "the registry was known to be down ask the source, if they may",
        "malformed 1",
        "request rate ",
        " in the last hour",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
    assert!(!html.contains("<img") && !html.contains(">run<"), "{html}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace"]
async fn without_a_sign_in_the_page_says_why_and_what_to_do() {
    namespace::assert_isolated();
    let azure = testkit::azure().await;
    azure.inject(Hop::Exchange, Fault::Status(403));
    let proxy = Setup::new(&azure).flag("--admin-address", "127.0.0.1:0").start();
    let admin = admin(&proxy);
    until(admin, "the registry's firewall denies this host").await;
    let (html, complaints) = open(admin, "signed-out");
    assert!(complaints.is_empty(), "{complaints:?}");
    let text = words(&html);
    assert!(html.contains(r#"class="bad">not ready: no token for example.azurecr.io"#), "{html}");
    for says in [
        "nothing is served",
        "the registry's firewall denies this host: allow its address there",
        "Somebody has to act",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
}
