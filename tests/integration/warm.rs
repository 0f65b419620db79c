//! Images that are pulled through a proxy before a roll-out.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};

use acr_emulator::{Emulator, Fault, Hop, Image, Pushed};
use serde_json::{Value, json};
use testkit::certificates::Authority;
use testkit::{Proxy, Setup, wire};

use crate::admin::admin;

mod platform;
mod signatures;
mod storage;

const REPOSITORY: &str = "hub/library/busybox";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Runs `warm` with these words, these bytes on its standard input, and the CA of the emulator.
fn warm(azure: &Emulator, via: &str, words: &str, stdin: &str) -> Output {
    warm_trusting(azure.ca_pem(), via, words, stdin)
}

/// The same with these CAs.
fn warm_trusting(cas: &str, via: &str, words: &str, stdin: &str) -> Output {
    let files = tempfile::tempdir().expect("a temporary directory");
    let ca = files.path().join("ca.pem");
    std::fs::write(&ca, cas).expect("the CA is written");
    let mut child = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"))
        .arg("warm")
        .args(words.split_whitespace())
        .args(["--via", via, "--ca-file"])
        .arg(&ca)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // A run that reads no list may end before.
    let _ = child.stdin.take().expect("piped").write_all(stdin.as_bytes());
    child.wait_with_output().expect("it ends")
}

/// Its exit status, and what it said on both streams.
fn said(output: &Output) -> (i32, String) {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains("panicked"), "{text}");
    (output.status.code().expect("no signal"), text)
}

/// An emulator with one image for two platforms, and a proxy in front of it.
async fn start() -> (Emulator, Pushed, Proxy) {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let pushed = azure.push(Image::small(REPOSITORY, "latest"));
    let proxy = Setup::new(&azure).cache("off").flag("--log", "info").start();
    (azure, pushed, proxy)
}

/// What the registry was asked for, below `/v2/`, without the query.
fn asked(azure: &Emulator) -> BTreeSet<String> {
    let requests = azure.requests().into_iter().filter(|request| request.hop == Hop::Data);
    let path = |target: String| target.split('?').next().unwrap_or_default().to_owned();
    requests.filter_map(|request| path(request.target).strip_prefix("/v2/").map(str::to_owned)).collect()
}

/// The paths of an image for these architectures: tag, index, manifests, configurations and layers.
fn paths(azure: &Emulator, pushed: &Pushed, architectures: &[&str], layers: bool) -> BTreeSet<String> {
    let mut paths = BTreeSet::from([
        format!("{REPOSITORY}/manifests/latest"),
        format!("{REPOSITORY}/manifests/{}", pushed.index_digest),
    ]);
    for (architecture, digest) in &pushed.manifests {
        if architectures.contains(&architecture.as_str()) {
            paths.insert(format!("{REPOSITORY}/manifests/{digest}"));
            let manifest: Value =
                serde_json::from_slice(&azure.manifest(REPOSITORY, digest).expect("pushed")).expect("a manifest");
            let blob =
                |descriptor: &Value| format!("{REPOSITORY}/blobs/{}", descriptor["digest"].as_str().expect("a digest"));
            paths.insert(blob(&manifest["config"]));
            if layers {
                paths.extend(manifest["layers"].as_array().expect("layers").iter().map(blob));
            }
        }
    }
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_a_rollout_asks_for_is_asked_for_and_nothing_else() {
    for (words, architectures, layers, from_storage) in [
        // Of two layers one byte each, and the configuration.
        ("--platform linux/amd64", &["amd64"][..], true, 3),
        ("--platform linux/amd64,linux/arm64", &["amd64", "arm64"], true, 6),
        ("--platform linux/amd64 --platform linux/arm64", &["amd64", "arm64"], true, 6),
        ("--platform all", &["amd64", "arm64"], true, 6),
        ("--platform linux/arm64 --layers first-byte", &["arm64"], true, 3),
        ("--platform linux/amd64 --layers head", &["amd64"], true, 0),
        ("--platform linux/amd64 --layers none", &["amd64"], false, 0),
    ] {
        let (azure, pushed, proxy) = start().await;
        let (status, text) = said(&warm(&azure, &proxy.url(""), &format!("busybox {words}"), ""));
        assert_eq!(status, 0, "{words}: {text}");
        assert!(text.contains("the image is warm: ") && text.contains("warmed busybox: "), "{words}: {text}");
        assert_eq!(asked(&azure), paths(&azure, &pushed, architectures, layers), "{words}");
        let storage: Vec<_> = azure.requests().into_iter().filter(|request| request.hop == Hop::Storage).collect();
        assert_eq!(storage.len(), from_storage, "{words}");
        let ranges = storage.iter().filter_map(|request| request.header("range"));
        assert!(ranges.clone().all(|range| range == "bytes=0-0"), "{words}");
        assert_eq!(ranges.count(), from_storage / 3 * 2, "{words}: the configuration is fetched whole");
        let credentials = storage.iter().filter(|request| request.header("authorization").is_some());
        assert_eq!(credentials.count(), 0, "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_requires_certificates_gets_one_and_storage_gets_none() {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    azure.push(Image::small(REPOSITORY, "latest"));
    let authority = Authority::new("The mirror's CA");
    let (server, client) =
        (authority.server(&["127.0.0.1"]), authority.client("builder", "spiffe://example.org/builder"));
    let setup = Setup::new(&azure).log("info");
    for (name, content) in
        [("s.pem", &server.certificate), ("s.key", &server.key), ("clients.pem", &authority.pem().to_owned())]
    {
        setup.file(name, content);
    }
    let tls = "[{address: '127.0.0.1:0', tls: {certificate: '{}/s.pem', key: '{}/s.key', client_ca: '{}/clients.pem', client_auth: required}}]";
    let proxy = setup.listen(tls).settings("access: {certificates: [builder]}").start();
    let files = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, content: &str| {
        std::fs::write(files.path().join(name), content).expect("written");
        files.path().join(name).display().to_string()
    };
    let (certificate, key) = (write("c.pem", &client.certificate), write("c.key", &client.key));
    let ca = azure.ca_pem().to_owned() + authority.pem();
    let via = format!("https://{}", proxy.address());
    let run = |words: &str| said(&warm_trusting(&ca, &via, &format!("busybox --platform linux/amd64 {words}"), ""));
    let (status, text) = run("");
    let says = "GET /v2/: it asks for a certificate: present one with --certificate and --key: ";
    assert!(status == 1 && text.contains(&format!("proxy {via}: {says}")), "{status}: {text}");
    let (status, text) = run(&format!("--certificate {certificate} --key {key}"));
    assert_eq!(status, 0, "{text}");
    // It was asked as that client, and one byte of each layer came from storage.
    assert!(proxy.log().contains("builder"), "{}", proxy.log());
    assert_eq!(azure.requests().iter().filter(|request| request.hop == Hop::Storage).count(), 3, "{text}");
    for (words, says) in [
        (format!("--certificate {certificate}"), "--certificate: it is presented with its key: name that with --key"),
        (format!("--certificate {key} --key {key}"), "no certificate is in it"),
    ] {
        let (status, text) = run(&words);
        assert!(status != 0 && text.contains(says), "{status}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_does_not_let_it_pull_is_not_taken_for_something_else() {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    azure.push(Image::small(REPOSITORY, "latest"));
    let authority = Authority::new("The mirror's CA");
    let server = authority.server(&["127.0.0.1"]);
    let tls = || {
        let setup = Setup::new(&azure);
        setup.file("s.pem", &server.certificate);
        setup.file("s.key", &server.key);
        setup.listen("[{address: '127.0.0.1:0', tls: {certificate: '{}/s.pem', key: '{}/s.key'}}]")
    };
    let denied = "see the proxy's log and its /readyz: 403 DENIED: 127.0.0.1 may not pull here";
    for (setup, scheme, says) in [
        (Setup::new(&azure).settings("access: {deny: [127.0.0.1]}"), "http", denied),
        (tls(), "https", "its certificate is not trusted: name its CA with --ca-file: "),
        (tls(), "http", "give --via as https://: 400 UNSUPPORTED: this port speaks TLS: use https"),
        (Setup::new(&azure), "https", "what answers speaks no TLS: give --via as http://: "),
    ] {
        let proxy = setup.start();
        let via = format!("{scheme}://{}", proxy.address());
        let (status, text) = said(&warm(&azure, &via, "busybox", ""));
        assert!(status == 1 && text.lines().count() == 1, "{text}");
        assert!(text.starts_with(&format!("acr-cache-proxy: warm: proxy {via}: GET /v2/: {says}")), "{text}");
    }
}

/// A limit that is used up when it begins is waited for, as in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_with_a_limit_for_each_client_is_waited_for() {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    azure.push(Image::small(REPOSITORY, "latest"));
    let limits = "limits: {requests_per_second_per_client: 3, request_burst_per_client: 1}";
    let proxy = Setup::new(&azure).settings(limits).start();
    while wire::ask(proxy.address(), "GET /v2/", "").status != 429 {}
    let (status, text) = said(&warm(&azure, &proxy.url(""), "busybox --platform linux/amd64 --layers none", ""));
    assert_eq!(status, 0, "{text}");
}

/// What hosts ask for afterwards is what was asked for here.
#[tokio::test(flavor = "multi_thread")]
async fn a_warm_image_costs_the_registry_nothing() {
    let (azure, _, _) = start().await;
    let proxy = Setup::new(&azure).cache("{memory: 8MiB}").flag("--log", "info").start();
    for (words, reads) in [
        // The tag with its index, a manifest, a configuration and two layers.
        ("busybox --platform linux/amd64", 5),
        ("busybox --platform linux/amd64", 0),
        ("docker.io/library/busybox --platform linux/amd64", 0),
        // Its manifest, configuration and layers.
        ("busybox --platform all", 4),
        ("busybox --platform all --layers none", 0),
    ] {
        azure.clear_requests();
        let (status, text) = said(&warm(&azure, &proxy.url(""), words, ""));
        assert_eq!(status, 0, "{words}: {text}");
        let count = azure.requests().into_iter().filter(|request| request.hop == Hop::Data).count();
        assert_eq!(count, reads, "{words}: {:#?}", asked(&azure));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_the_registry_still_imports_is_named() {
    let (azure, _, proxy) = start().await;
    azure.mark_not_imported(REPOSITORY, Some("latest"));
    for (imported, says) in [(false, true), (true, false)] {
        if imported {
            azure.import(REPOSITORY, Some("latest"));
        }
        let (status, text) = said(&warm(&azure, &proxy.url(""), "busybox --platform linux/amd64", ""));
        assert_eq!(status, 0, "{text}");
        let line = "warmed busybox: 2 manifests, 2 layers, from its source: the registry imports it now\n";
        assert_eq!(text.contains(line), says, "{text}");
        assert_eq!(text.contains("1 of them came from the source"), says, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_proxy_that_serves_blobs_itself_storage_is_never_asked_from_here() {
    let (azure, pushed, _) = start().await;
    let lines = format!("  blobs: proxy\n  blob_hosts: ['{}']\n", azure.storage_addr());
    let proxy = Setup::new(&azure).cache("off").upstream(&lines).flag("--log", "info").start();
    let (status, text) = said(&warm(&azure, &proxy.url(""), "busybox --platform linux/amd64", ""));
    assert_eq!(status, 0, "{text}");
    assert_eq!(asked(&azure), paths(&azure, &pushed, &["amd64"], true));
    let log = proxy.end();
    let access: Vec<_> = log.lines().filter(|line| line.contains("/blobs/")).collect();
    assert!(access.len() == 3 && access.iter().all(|line| line.contains(" 200 ")), "no redirect: {access:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_has_one_line_each_and_the_rest_is_warm_all_the_same() {
    let (azure, _, _) = start().await;
    azure.push(Image::small("ghcr/org/app", "1"));
    let proxy = Setup::routes(&azure, &[("docker.io", "hub"), ("ghcr.io", "ghcr")]).flag("--log", "info").start();
    let broken = azure.push(Image::small("ghcr/org/broken", "1"));
    let layer = broken.blobs[0].trim_start_matches("sha256:").to_owned();
    azure.inject(Hop::Storage, Fault::Status(404).on_path(layer));
    let words = "busybox busybox:nope quay.io/org/app ghcr.io/org/app:1 ghcr.io/org/broken:1 \
        --platform linux/amd64,linux/s390x --platform linux/arm64";
    let (status, text) = said(&warm(&azure, &proxy.url(""), words, ""));
    assert_eq!(status, 1, "{text}");
    let via = format!("proxy http://{}", proxy.address());
    for (image, says) in [
        ("busybox", vec!["no manifest for linux/s390x: choose with --platform: it has linux/amd64, linux/arm64"]),
        ("busybox:nope", vec![&via, "manifests/nope: check the image's name and tag: 404 MANIFEST_UNKNOWN"]),
        (
            "quay.io/org/app",
            vec!["check the image's name and the proxy's routes: 404 NAME_UNKNOWN: no route for quay.io"],
        ),
        (
            "ghcr.io/org/broken:1",
            vec!["blob storage 127.0.0.1: ", "storage does not have the blob, which the registry says it has: "],
        ),
    ] {
        let line = text.lines().find(|line| line.starts_with(&format!("failed {image}: ")));
        let line = line.unwrap_or_else(|| panic!("no line for {image}: {text}"));
        assert!(says.iter().all(|words| line.contains(words)), "{line}");
        assert!(!line.contains("sig="), "{line}");
    }
    // All but the platform that no image has.
    let two = said(&warm(&azure, &proxy.url(""), "busybox ghcr.io/org/app:1 busybox:nope --platform linux/amd64", ""));
    assert!(two.0 == 1 && two.1.contains("warm: 1 of 3 images failed, with a line each above; 2 warm\n"), "{two:?}");
    assert!(two.1.contains("warmed busybox: ") && two.1.contains("warmed ghcr.io/org/app:1: "), "{two:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_comes_from_a_file_or_from_standard_input() {
    let (azure, _, proxy) = start().await;
    let list = "# what nodes pull\r\nlibrary/busybox:latest # the first\r\n\r\n  docker.io/library/busybox\nbusybox\nbusybox\n";
    let files = tempfile::tempdir().expect("a temporary directory");
    let path = files.path().join("images.txt");
    std::fs::write(&path, list).expect("written");
    for (words, stdin) in [("--file -".to_owned(), list), (format!("--file {}", path.display()), "")] {
        let (status, text) = said(&warm(&azure, &proxy.url(""), &format!("{words} --platform linux/amd64"), stdin));
        assert!(status == 0 && text.contains("the image is warm: "), "{words}: {text}");
        assert!(text.contains("warmed library/busybox:latest: 2 manifests, 2 layers\n"), "{text}");
        assert_eq!(text.matches("warmed ").count(), 1, "one image by three names: {text}");
    }
    let (status, text) = said(&warm(&azure, &proxy.url(""), "--file -", "busybox\nBusybox\nx y\n"));
    let complaints: Vec<_> = text.lines().collect();
    assert!(status == 2 && complaints.len() == 2, "{text}");
    assert!(complaints[0].starts_with("acr-cache-proxy: --file: -:2: \"Busybox\" is not an image"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_proxy_it_says_so_once_and_what_to_do() {
    let (azure, _, _) = start().await;
    let proxy = Setup::new(&azure).flag("--admin-address", ":0").flag("--log", "info").start();
    let other = admin(&proxy);
    // It has the port and does not listen.
    let silent = tokio::net::TcpSocket::new_v4().expect("a socket");
    silent.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let closed = silent.local_addr().expect("an address");
    for (address, says) in [
        (closed, "GET /v2/: start it, or name another one with --via: "),
        (other, "GET /v2/: what answers is no acr-cache-proxy: name it with --via: 404"),
    ] {
        let (status, text) = said(&warm(&azure, &format!("http://{address}"), "busybox nginx alpine", ""));
        assert!(status == 1 && text.lines().count() == 1, "{text}");
        assert!(text.starts_with(&format!("acr-cache-proxy: warm: proxy http://{address}: {says}")), "{text}");
    }
}

/// It said "waited for up to 60 s", and gave up after 5 s without a reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_takes_no_connection_is_waited_for_as_long_as_is_said() {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let full = socket.listen(1).expect("it listens");
    let address = full.local_addr().expect("an address");
    // With these its queue is full, and further ones wait.
    let connect = || tokio::net::TcpStream::connect(address);
    let _held = (connect().await.expect("the first"), connect().await.expect("the second"));
    let (status, text) = said(&warm(&azure, &format!("http://{address}"), "busybox", ""));
    let waits = "the proxy has not answered yet: a connection is waited for 5 s at most, an answer 60 s\n";
    let ends = "GET /v2/: no connection in time: start it, or name another one with --via: ";
    assert!(status == 1 && text.contains(waits) && text.contains(ends), "{status}: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_by_itself_is_waited_out_within_bounds() {
    let throttled = |seconds: &str| Fault::StatusWith {
        status: 503,
        headers: vec![("Retry-After".to_owned(), seconds.to_owned())],
        body: String::new(),
    };
    for (fault, tries, status, given_up) in [
        (throttled("0").times(4), 5, 0, ""),
        (throttled("0").times(5), 5, 1, ": sent 5 times in "),
        (
            throttled("3600").times(9),
            1,
            1,
            ": not sent again, because it asks for a pause of 3600 s: the longest is 60 s: ",
        ),
    ] {
        let (azure, pushed, proxy) = start().await;
        let layer = pushed.blobs[0].trim_start_matches("sha256:").to_owned();
        azure.inject(Hop::Storage, fault.on_path(layer.clone()));
        let (exit, text) = said(&warm(&azure, &proxy.url(""), "busybox --platform linux/amd64", ""));
        assert_eq!(exit, status, "{text}");
        let why = "run it again later, or leave storage out with --layers head: 503";
        let failed = text
            .lines()
            .any(|line| line.starts_with("failed busybox: ") && line.contains(why) && line.contains(given_up));
        assert_eq!(failed, status == 1, "{text}");
        let tried = azure.requests().into_iter().filter(|request| request.target.contains(&layer));
        assert_eq!(tried.filter(|request| request.hop == Hop::Storage).count(), tries, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_says_once_why() {
    let (azure, pushed, proxy) = start().await;
    let layer = pushed.blobs[0].trim_start_matches("sha256:").to_owned();
    let headers = vec![("Retry-After".to_owned(), "1".to_owned())];
    let throttled = Fault::StatusWith { status: 503, headers, body: String::new() };
    azure.inject(Hop::Storage, throttled.times(2).on_path(layer));
    let (status, text) = said(&warm(&azure, &proxy.url(""), "busybox --platform linux/amd64", ""));
    let waits: Vec<_> = text.lines().filter(|line| line.starts_with("waiting, for 180 s at most")).collect();
    assert!(status == 0 && waits.len() == 1 && waits[0].contains("blob storage 127.0.0.1: "), "{text}");
}

/// It said `HEAD …: 503` for three minutes, although only a person can end what the same request as GET has in words.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_a_sign_in_says_its_cause_at_once() {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    azure.push(Image::small(REPOSITORY, "latest"));
    let proxy = Setup::new(&azure).cache("off").secret("another").flag("--log", "info").start();
    proxy.wait_for_log("invalid_client");
    let mut child = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"))
        .args(["warm", "busybox", "--layers", "head", "--via", &proxy.url("")])
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut said = String::new();
    BufReader::new(child.stderr.take().expect("piped")).read_line(&mut said).expect("a line");
    child.kill().and_then(|()| child.wait()).expect("it ends");
    assert!(
        said.starts_with("waiting, for 180 s at most") && said.contains(": HEAD /v2/busybox/manifests/latest: "),
        "{said}"
    );
    assert!(said.contains("invalid_client"), "{said}");
}

/// Windows' base layers may not be distributed: a registry has their descriptor only.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_no_registry_holds_is_not_asked_for() {
    let (azure, pushed, proxy) = start().await;
    let config = azure.manifest(REPOSITORY, &pushed.manifests[0].1).expect("pushed");
    let mut manifest: Value = serde_json::from_slice(&config).expect("a manifest");
    let absent = format!("sha256:{}", "ab".repeat(32));
    let foreign = json!({"digest": absent, "size": 9, "urls": ["https://go.example/layer"]});
    manifest["layers"].as_array_mut().expect("layers").insert(0, foreign);
    azure.put_manifest(REPOSITORY, "foreign", MANIFEST, manifest.to_string());
    let (status, text) = said(&warm(&azure, &proxy.url(""), "busybox:foreign", ""));
    assert!(status == 0 && text.contains("warmed busybox:foreign: 1 manifest, 2 layers\n"), "{text}");
    assert!(!asked(&azure).iter().any(|path| path.contains(&absent)));
}

/// The proxy checks what it keeps; this command checks also what one passes on that keeps nothing.
#[tokio::test(flavor = "multi_thread")]
async fn content_of_another_digest_is_a_failure() {
    let (azure, pushed, _) = start().await;
    let digest = pushed.manifests[0].1.clone();
    let via = liar(&format!("/v2/busybox/manifests/{digest}?ns=docker.io"));
    let (status, text) = said(&warm(&azure, &format!("http://{via}"), &format!("busybox@{digest}"), ""));
    assert_eq!(status, 1, "{text}");
    let line = format!(
        "failed busybox@{digest}: proxy http://{via}: GET /v2/busybox/manifests/{digest}: do not use this image: its content is not {digest}"
    );
    assert!(text.lines().any(|said| said == line), "{text}");
}

/// A server that answers `{}` to everything, and is asked for the ping and this target alone.
fn liar(target: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let allowed = ["/v2/".to_owned(), target.to_owned()];
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let (mut request, mut part) = (Vec::new(), [0; 1024]);
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read(&mut part).expect("a request") {
                    0 => return,
                    length => request.extend_from_slice(&part[..length]),
                }
            }
            let request = String::from_utf8_lossy(&request);
            let asked = request.split(' ').nth(1).expect("a target");
            assert!(allowed.iter().any(|allowed| allowed == asked), "{asked}");
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
            stream.write_all(answer.as_bytes()).expect("sent");
        }
    });
    address
}

/// It ended without a word of what was done.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_stopped_says_what_is_warm_and_what_is_left() {
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let (azure, _, proxy) = start().await;
        azure.inject(Hop::Data, Fault::Hang.on_path("/busybox/manifests/hangs"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"))
            .args(["warm", "busybox", "busybox:hangs", "--layers", "none", "--via", &proxy.url("")])
            .env_clear()
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut said = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("a line");
        assert!(line.starts_with("warmed busybox: "), "{line}");
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
        let ended = child.wait().expect("it ends");
        let mut rest = String::new();
        said.read_to_string(&mut rest).expect("text");
        assert_eq!(ended.code(), Some(status), "{rest}");
        let sum = "acr-cache-proxy: warm: stopped: 1 of 2 images warm, 0 failed, 1 left\n";
        assert!(rest.ends_with(sum), "{rest}");
    }
}
