//! Pulls through the proxy against direct ones.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Fault, Hop, Image, Recorded};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use testkit::{CLIENT, PATIENCE, SECRET, Setup, TENANT, wait_for};

mod way;

/// As the table has them, in its order.
const LABELS: [&str; 11] = [
    "TCP+TLS connect",
    "ping",
    "challenge and token",
    "manifest HEAD",
    "index",
    "platform manifest",
    "config",
    "blob redirect",
    "layer, first byte",
    "layer, MiB/s",
    "whole pull",
];
/// Of the image that each emulator of these tests holds: two layers.
const IMAGE: &str = "library/busybox:latest";

/// A `bench` with the tests' identity and CA, in a directory of its own.
struct Bench {
    files: tempfile::TempDir,
    args: Vec<String>,
    variables: Vec<(&'static str, String)>,
    signs_in: bool,
    secret: String,
    authority: String,
    ca: PathBuf,
    domain: String,
}

impl Bench {
    fn new(azure: &Emulator) -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let ca = files.path().join("ca.pem");
        std::fs::write(&ca, azure.ca_pem()).expect("the CA is written");
        let domain = format!("example.azurecr.io:{}", azure.registry_addr().port());
        let authority = azure.authority();
        Self {
            files,
            args: vec!["bench".to_owned()],
            variables: Vec::new(),
            signs_in: true,
            secret: SECRET.to_owned(),
            authority,
            ca,
            domain,
        }
    }

    fn args(mut self, line: &str) -> Self {
        self.args.extend(line.split_whitespace().map(str::to_owned));
        self
    }

    /// Asks `via`, trusting the CA.
    fn via(self, url: &str) -> Self {
        let ca = self.ca.display().to_string();
        self.args(&format!("--via {url} --ca-file {ca}"))
    }

    /// Asks the emulator's registry, whose name is not in DNS.
    fn direct(self) -> Self {
        let config = self.path("config.yaml");
        let text =
            format!("upstream: {{domain: {}, addresses: [127.0.0.1]}}\nca_file: {}\n", self.domain, self.ca.display());
        std::fs::write(&config, text).expect("the configuration is written");
        let direct = format!("--direct {}/hub --config {}", self.domain, config.display());
        self.args(&direct)
    }

    /// The same by its name, which only a forward proxy knows, with these further settings and trust.
    fn by_name(self, settings: &str, ca: &str) -> Self {
        std::fs::write(&self.ca, ca).expect("the CA is written");
        let config = self.path("config.yaml");
        let ca = self.ca.display();
        let text = format!("upstream: {{domain: {}}}\nca_file: {ca}\n{settings}\n", self.domain);
        std::fs::write(&config, text).expect("the configuration is written");
        let direct = format!("--direct {}/hub --config {}", self.domain, config.display());
        self.args(&direct)
    }

    fn variable(mut self, name: &'static str, value: String) -> Self {
        self.variables.push((name, value));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn spawn(&self) -> Child {
        self.spawn_with(Stdio::null())
    }

    fn spawn_with(&self, stdin: Stdio) -> Child {
        let sign_in = [
            ("AZURE_AUTHORITY_HOST", self.authority.as_str()),
            ("AZURE_TENANT_ID", TENANT),
            ("AZURE_CLIENT_ID", CLIENT),
        ];
        Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"))
            .args(&self.args)
            .env_clear()
            .envs(sign_in.into_iter().filter(|_| self.signs_in))
            .envs(Some(("AZURE_CLIENT_SECRET", &self.secret)).filter(|(_, secret)| !secret.is_empty()))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts")
    }

    fn run(&self) -> Output {
        end(self.spawn())
    }

    /// The report of a run that goes well.
    fn report(self) -> Value {
        let output = self.args("--json -").run();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

/// What it said, when it has ended. Its output is less than a pipe holds.
fn end(mut child: Child) -> Output {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("wait").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("still running: {:?}", child.wait_with_output());
        }
        // The only way to wait for a process with a limit; nothing depends on the step.
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().expect("output")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn count(requests: &[Recorded], is: impl Fn(&Recorded) -> bool) -> u64 {
    requests.iter().filter(|request| is(request)).count() as u64
}

fn is_layer(request: &Recorded) -> bool {
    request.hop == Hop::Data && request.target.contains("/blobs/")
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_are_measured_and_the_counts_are_the_registrys() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let bench = Bench::new(&azure).via(&proxy.url("")).direct().args(&format!("--image {IMAGE} --pulls 5"));
    let (json, svg, html) = (bench.path("r.json"), bench.path("r.svg"), bench.path("r.html"));
    let files = format!("--json {} --svg {} --html {}", json.display(), svg.display(), html.display());
    let bench = bench.args(&files);
    let output = bench.run();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));

    let table = text(&output.stdout);
    let mut rest = table.as_str();
    for label in LABELS {
        rest = rest.split_once(&format!("\n{label}")).unwrap_or_else(|| panic!("no {label} in {table}")).1;
    }
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("written")).expect("JSON");
    let run = &report["runs"][0];
    for side in ["via", "direct"] {
        assert_eq!(run["sides"][side]["pulls"], 5, "{run:#}");
        assert_eq!(run["sides"][side]["errors"], 0, "{run:#}");
        assert_eq!(run["phases"]["whole_pull"][side]["count"], 5, "{run:#}");
        assert_eq!(run["phases"]["blob_redirect"][side]["count"], 10, "{run:#}");
    }
    assert_eq!(run["sides"]["via"]["bytes"], run["sides"]["direct"]["bytes"]);
    assert_eq!(run["pairs"], 5);
    assert!(run["phases"]["whole_pull"]["difference"]["mean"]["low"].is_f64(), "{run:#}");
    assert_eq!(run["phases"]["challenge_and_token"]["direct"]["count"], 5);
    assert!(run["phases"]["challenge_and_token"]["via"].is_null());
    // Each request has a connection of its own: two a blob, and the token's.
    assert_eq!(run["phases"]["connect"]["via"]["count"], 5 * 10);
    assert_eq!(run["phases"]["connect"]["direct"]["count"], 5 * 11);

    // The preflight is one pull more on each side, without its layers.
    let requests = azure.requests();
    let challenged = |request: &Recorded| request.hop == Hop::Data && request.target == "/v2/" && request.status == 401;
    assert_eq!(count(&requests, challenged), 6);
    let of_one = |request: &Recorded| request.hop == Hop::Token && request.body.contains("hub%2Flibrary%2Fbusybox");
    assert_eq!(count(&requests, of_one), 6);
    assert_eq!(count(&requests, |request| request.hop == Hop::Exchange), 2, "the proxy's and the direct side's");
    assert_eq!(count(&requests, |request| request.hop == Hop::Storage), 2 * (5 * 3 + 1));
    let leaked = |request: &Recorded| request.hop == Hop::Storage && request.header("authorization").is_some();
    assert_eq!(count(&requests, leaked), 0);
    let read = |path: &PathBuf| std::fs::read_to_string(path).expect("written");
    assert!(read(&svg).starts_with("<svg") && read(&html).starts_with("<!doctype html>"));
    assert!(table.starts_with("Through the proxy a pull takes ") && table.contains(" ms, a direct one "), "{table}");
    let command = format!("acr-cache-proxy bench --via {}", proxy.url(""));
    for written in [table, read(&json), read(&html)] {
        assert!(written.contains(&command) && written.contains("version"), "{written}");
        assert!(!written.contains(SECRET) && !written.contains("sig="), "{written}");
    }
    // Nothing is left of how they were written.
    let names: Vec<_> = std::fs::read_dir(bench.files.path()).expect("there").flatten().collect();
    assert!(names.iter().all(|entry| !entry.file_name().to_string_lossy().ends_with(".new")), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_cannot_be_written_is_an_error_before_the_first_request() {
    let azure = testkit::azure().await;
    for flag in ["--json", "--svg", "--html"] {
        let output = Bench::new(&azure).direct().args(&format!("--image {IMAGE} {flag} /nonexistent/report")).run();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        let expected = format!("acr-cache-proxy: {flag}: /nonexistent/report: there is no directory /nonexistent");
        assert!(said.starts_with(&expected) && said.lines().count() == 1, "{said}");
    }
    assert!(azure.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn any_part_goes_to_standard_output_in_place_of_the_table() {
    let azure = testkit::azure().await;
    for (part, begins, ends) in [("--html", "<!doctype html>", "</html>\n"), ("--svg", "<svg", "</svg>\n")] {
        let output = Bench::new(&azure).direct().args(&format!("--image {IMAGE} --pulls 2 {part} -")).run();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let said = text(&output.stdout);
        assert!(said.starts_with(begins) && said.ends_with(ends), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_pull_follows_to_a_data_endpoint_whose_secret_is_in_no_report() {
    let options = acr_emulator::Options { data_endpoints: true, ..testkit::options() };
    let azure = Emulator::start(options).await.expect("the emulator starts");
    let pushed = azure.push(Image::small("hub/library/busybox", "latest"));
    let report = Bench::new(&azure).direct().args(&format!("--image {IMAGE} --pulls 2")).report();
    let side = &report["runs"][0]["sides"]["direct"];
    assert_eq!((&side["pulls"], &side["errors"]), (&2.into(), &0.into()), "{report:#}");
    // What an error quotes of a request is as little.
    azure.inject(Hop::Storage, Fault::Status(403));
    let output = Bench::new(&azure).direct().args(&format!("--image {IMAGE}")).run();
    let said = text(&output.stderr);
    assert!(said.contains("GET from blob storage 127.0.0.1:") && said.contains(": 403 AuthenticationFailed"), "{said}");
    for written in [said, report.to_string()] {
        assert!(!written.contains("s=") && !written.contains(&pushed.blobs[0]), "{written}");
    }
}

/// The proxy and engines take it for library/busybox; directly it was not found.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_alone_is_an_image_of_docker_hub_on_both_sides() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let report =
        Bench::new(&azure).direct().args(&format!("--via {} --image busybox --pulls 1", proxy.url(""))).report();
    let sides = &report["runs"][0]["sides"];
    assert_eq!((&sides["via"]["errors"], &sides["direct"]["errors"]), (&0.into(), &0.into()), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_image_host_or_credential_is_one_sentence_before_the_run() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    // It has the port and does not listen.
    let silent = tokio::net::TcpSocket::new_v4().expect("a socket");
    silent.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let closed = silent.local_addr().expect("an address");
    let authority = format!("example.azurecr.io:{}", azure.registry_addr().port());
    let new = || Bench::new(&azure);
    let image = format!("--image {IMAGE}");
    for (bench, says) in [
        (
            new().via(&proxy.url("")).args("--image library/none:1"),
            format!("via {}: GET /v2/library/none/manifests/1: 404 ", proxy.url("")),
        ),
        (
            new().direct().args("--image library/busybox:none"),
            format!("direct {authority}: GET /v2/hub/library/busybox/manifests/none: 404 MANIFEST_UNKNOWN"),
        ),
        (
            new().via(&format!("http://{closed}")).args(&image),
            format!("via http://{closed}: GET /v2/: connect {closed}: "),
        ),
        (new().args("--direct nosuch.invalid/hub").args(&image), "direct nosuch.invalid: DNS look-up: ".to_owned()),
        (
            Bench { secret: "wrong".to_owned(), ..new() }.direct().args(&image),
            format!("direct {authority}: entra: client secret: 401 invalid_client: the client secret is wrong"),
        ),
        (
            new().direct().args(&image).args("--platform plan9/mips"),
            "the index has no manifest for plan9/mips".to_owned(),
        ),
    ] {
        azure.clear_requests();
        let output = bench.run();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{says}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("acr-cache-proxy: bench: ") && said.contains(&says), "{says}: {said}");
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
        assert_eq!(count(&azure.requests(), is_layer), 0, "{says}");
    }
    let output = new().args("--image X --via here --pulls 0").run();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stderr).lines().count(), 3, "{}", text(&output.stderr));
}

/// It was refused by "--upstream-domain: cannot be set beside routes", a flag that nobody had given.
#[tokio::test(flavor = "multi_thread")]
async fn a_direct_pull_takes_what_the_route_to_its_registry_says() {
    let azure = testkit::azure().await;
    let bench = Bench::new(&azure).direct().args(&format!("--image {IMAGE} --pulls 1"));
    let (domain, ca) = (&bench.domain, bench.ca.display());
    let routes = format!(
        "default: ghcr.io\nca_file: {ca}\nidentity: {{kind: azure_cli}}\nroutes:\n  - {{source: ghcr.io, domain: other.azurecr.io}}\n  \
         - {{source: quay.io, domain: '{domain}', prefix: quay, addresses: [192.0.2.1]}}\n  \
         - {{source: docker.io, domain: '{domain}', prefix: hub, addresses: [127.0.0.1], identity: {{kind: client_secret}}}}\n"
    );
    std::fs::write(bench.path("config.yaml"), routes).expect("written");
    let report = bench.report();
    assert_eq!(report["runs"][0]["sides"]["direct"]["pulls"], 1, "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxys_side_has_no_credentials() {
    let azure = testkit::azure().await;
    // The registry itself in the proxy's place sees what a proxy would.
    let output =
        Bench::new(&azure).via(&format!("https://{}", azure.registry_addr())).args(&format!("--image {IMAGE}")).run();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("GET /v2/: 401 UNAUTHORIZED"), "{}", text(&output.stderr));
    let requests = azure.requests();
    assert!(!requests.is_empty() && requests.iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_requested_as_the_flag_says() {
    let azure = testkit::azure().await;
    for (how, method, bytes) in [("none", "GET", false), ("head", "HEAD", false), ("full", "GET", true)] {
        azure.clear_requests();
        let bench = Bench::new(&azure).direct().args(&format!("--image {IMAGE} --pulls 2 --layers {how}"));
        let report = bench.report();
        assert_eq!(report["layers"], how);
        let redirects = &report["runs"][0]["phases"]["blob_redirect"]["direct"]["count"];
        let layers = if how == "none" { 0 } else { 4 };
        assert_eq!(redirects.as_u64().unwrap_or(0), layers, "{how}: {report:#}");
        // Three configs, one of them the preflight's, and the layers.
        let requests = azure.requests();
        let storage: Vec<_> = requests.iter().filter(|request| request.hop == Hop::Storage).collect();
        assert_eq!(storage.len() as u64, 3 + layers, "{how}: {storage:?}");
        let asked = storage.iter().filter(|request| request.method == method).count() as u64;
        assert_eq!(asked, if method == "HEAD" { layers } else { 3 + layers }, "{how}");
        let loaded = report["runs"][0]["sides"]["direct"]["bytes"].as_u64().expect("bytes");
        assert_eq!(loaded > 2 * 2 * 20_000, bytes, "{how}: {loaded}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_live_for_a_request_a_pull_or_the_run() {
    const PULLS: u64 = 6;
    let azure = testkit::azure().await;
    let line = format!("--image {IMAGE} --pulls {PULLS} --warm --cold --per-pull");
    let report = Bench::new(&azure).direct().args(&line).report();
    let names: Vec<_> = (0..3).map(|run| report["runs"][run]["connections"].as_str().expect("a name")).collect();
    assert_eq!(names, ["cold", "per-pull", "warm"]);
    let connects = |run: usize| report["runs"][run]["phases"]["connect"]["direct"]["count"].as_u64().expect("a count");
    assert_eq!(connects(0), PULLS * 11);
    // Two layers at once, from the registry and from storage: at least one connection to each of them, at most two.
    assert!((PULLS * 2..=PULLS * 4).contains(&connects(1)), "{}", connects(1));
    assert!(connects(2) <= 4, "{}", connects(2));
}

/// As containerd was recorded (`resolver` and `fetcher` do not share a token).
#[tokio::test(flavor = "multi_thread")]
async fn a_pull_in_containerds_order_is_challenged_twice_and_pings_nobody() {
    const PULLS: u64 = 3;
    let azure = testkit::azure().await;
    let report = Bench::new(&azure).direct().args(&format!("--image {IMAGE} --pulls {PULLS} --per-pull")).report();
    let phases = &report["runs"][0]["phases"];
    assert!(phases["ping"]["direct"].is_null(), "{phases:#}");
    assert_eq!(phases["challenge_and_token"]["direct"]["count"], PULLS * 2);
    assert_eq!(phases["manifest_head"]["direct"]["count"], PULLS);
    let requests = azure.requests();
    let refused = |method: &str| {
        let is = |request: &Recorded| {
            request.status == 401 && request.method == method && request.target.contains("/manifests/")
        };
        count(&requests, is)
    };
    assert_eq!((refused("HEAD"), refused("GET")), (PULLS, PULLS));
    // The preflight is docker's.
    assert_eq!(count(&requests, |request| request.target == "/v2/"), 1);
    assert_eq!(count(&requests, |request| request.hop == Hop::Token), PULLS * 2 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_loop_counts_from_the_intended_start() {
    /// Of each answer; a pull has seven in a row: ping, token, HEAD, index, manifest, config and its redirect.
    const LATENCY: Duration = Duration::from_millis(20);
    const PULLS: u32 = 10;
    const RATE: u32 = 50;
    let options = acr_emulator::Options { latency: LATENCY, ..testkit::options() };
    let azure = Emulator::start(options).await.expect("the emulator starts");
    azure.push(Image::small("hub/library/busybox", "latest"));
    let line = format!("--image {IMAGE} --pulls {PULLS} --layers none --warm --rate {RATE} --concurrency 1");
    let open = Bench::new(&azure).direct().args(&line).report();
    let longest = open["runs"][0]["phases"]["whole_pull"]["direct"]["max"].as_u64().expect("a time");
    let longest = Duration::from_micros(longest);
    // The last pull is meant to begin after (PULLS - 1) intervals and ends after all of them, one by one. HdrHistogram
    // is right to a thousandth.
    let queued = LATENCY * 7 * PULLS - Duration::from_secs(1) / RATE * (PULLS - 1);
    assert!(longest >= queued - queued / 1000, "{longest:?} {queued:?}");
    assert_eq!(open["runs"][0]["sides"]["direct"]["pulls"], PULLS);
    assert_eq!(open["runs"][0]["sides"]["direct"]["dropped"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_is_reported_and_a_429_is_an_error() {
    // `timeout` and service managers signal the process, and then its group.
    for signals in [&[Signal::SIGINT][..], &[Signal::SIGTERM], &[Signal::SIGTERM, Signal::SIGTERM]] {
        let azure = testkit::azure().await;
        let line = format!("--image {IMAGE} --pulls 1000000 --concurrency 2 --json -");
        let bench = Bench::new(&azure).direct().args(&line);
        let child = bench.spawn();
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process"));
        wait_for(&azure, "some pulls", |requests| count(requests, is_layer) > 20).await;
        azure.inject(Hop::Data, Fault::Status(429).times(1));
        let throttled = |request: &Recorded| request.status == 429;
        wait_for(&azure, "a 429", |requests| count(requests, throttled) > 0).await;
        let so_far = count(&azure.requests(), is_layer);
        wait_for(&azure, "more pulls", |requests| count(requests, is_layer) > so_far + 20).await;
        for signal in signals {
            kill(pid, *signal).expect("it runs");
        }
        let output = end(child);
        assert_eq!(output.status.code(), Some(0), "{signals:?}: {}", text(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let side = &report["runs"][0]["sides"]["direct"];
        assert_eq!(report["interrupted"], true, "{signals:?}");
        assert!(side["pulls"].as_u64().is_some_and(|pulls| pulls > 0), "{side:#}");
        assert_eq!((&side["errors"], &side["limited"]), (&1.into(), &1.into()), "{side:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_images_of_a_mix_are_pulled() {
    let azure = testkit::azure().await;
    azure.push(Image::small("hub/library/alpine", "3"));
    let bench = Bench::new(&azure).direct();
    let mix = bench.path("mix");
    std::fs::write(&mix, "# two\n1 library/busybox\n3 library/alpine:3\n").expect("written");
    let report = bench.args(&format!("--mix {} --pulls 20 --layers none", mix.display())).report();
    assert_eq!(report["images"].as_array().map(Vec::len), Some(2));
    assert_eq!(report["runs"][0]["sides"]["direct"]["pulls"], 20);
    // The preflight's one of each comes on top.
    let of = |name: &str| count(&azure.requests(), |request| request.method == "HEAD" && request.target.contains(name));
    assert_eq!(of("/busybox/") + of("/alpine/"), 22);
}

#[test]
fn an_emulated_run_needs_no_flags_and_no_azure() {
    for blobs in ["redirect", "proxy_config", "proxy"] {
        let output = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"))
            .args(["bench", "--emulated", "--rtt", "20ms", "--pulls", "3", "--json", "-", "--blobs", blobs])
            .env("HTTPS_PROXY", "http://127.0.0.1:9")
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map(end)
            .expect("the binary starts");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let run = &report["runs"][0];
        assert_eq!((&run["sides"]["via"]["pulls"], &run["sides"]["direct"]["pulls"]), (&3.into(), &3.into()));
        // At least a round trip for TCP and one for TLS, and one for the challenge; the proxy is near.
        let fastest = |phase: &str| run["phases"][phase]["direct"]["p50"].as_u64().expect("a time");
        assert!(fastest("connect") >= 40_000 && fastest("ping") >= 20_000, "{run:#}");
        let redirected = run["phases"]["blob_redirect"]["via"].is_object();
        assert_eq!(redirected, blobs != "proxy", "{run:#}");
        assert!(run["phases"]["blob_redirect"]["direct"].is_object(), "{run:#}");
    }
}
