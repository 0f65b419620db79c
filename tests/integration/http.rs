use std::io::{Read as _, Write as _};
use std::time::Instant;

use acr_emulator::{Emulator, Fault, Hop, Image, Recorded};
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::wire::{self, End, Kept, Whole};
use testkit::{AT_ONCE, Proxy, Setup};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const ACCEPT: &str = "Accept: application/vnd.oci.image.index.v1+json\r\n";
const ABSENT: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const TAGS: [&str; 5] = ["1.35", "1.36", "1.36-musl", "edge", "latest"];
const LARGE: usize = 4 << 20;

/// How clients frame their requests: version, header lines, and whether the connection is kept by it.
const WAYS: [(&str, &str, bool); 4] = [
    ("HTTP/1.1", "", true),
    ("HTTP/1.1", "Connection: close\r\n", false),
    ("HTTP/1.0", "", false),
    ("HTTP/1.0", "Connection: keep-alive\r\n", false),
];

/// How the registry frames its answers.
const FRAMES: [Option<Fault>; 4] = [None, Some(Fault::Chunked), Some(Fault::UntilClose), Some(Fault::Gzip)];

/// A repository by one of its names: as the client has it, the registry that the client says it is of, as the cache has
/// it.
const NAMES: [(&str, Option<&str>, &str); 7] = [
    ("library/busybox", None, "hub/library/busybox"),
    ("library/busybox", Some("docker.io"), "hub/library/busybox"),
    ("busybox", None, "hub/library/busybox"),
    ("docker.io/busybox", None, "hub/library/busybox"),
    ("org/app", Some("ghcr.io"), "ghcr/org/app"),
    ("ghcr.io/org/app", None, "ghcr/org/app"),
    ("ghcr.io/org/app", Some("ghcr.io"), "ghcr/org/app"),
];

/// Two repositories with the same tags, and a proxy that has a route for each.
struct Stage {
    azure: Emulator,
    proxy: Proxy,
    /// Of the index that every tag of `hub/library/busybox` names.
    index: String,
    layer: String,
}

async fn stage() -> Stage {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let [pushed, _] = ["hub/library/busybox", "ghcr/org/app"].map(|repository| {
        let pushed = azure.push(Image::small(repository, TAGS[0]));
        for tag in &TAGS[1..] {
            azure.tag(repository, &pushed.index_digest, tag);
        }
        // One that speaks of itself, by a name that is to stay.
        let own = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": {"name": repository}});
        azure.put_manifest(repository, "zz-own", INDEX, own.to_string());
        pushed
    });
    let proxy = Setup::routes(&azure, &[("docker.io", "hub"), ("ghcr.io", "ghcr")]).flag("--log", "info").start();
    Stage { azure, proxy, index: pushed.index_digest, layer: pushed.blobs[0].clone() }
}

impl Stage {
    /// One request on a connection of its own.
    fn ask(&self, method: &str, path: &str, headers: &str) -> Whole {
        Kept::new(self.proxy.address()).ask(method, path, "HTTP/1.1", headers)
    }

    /// What reached the registry last.
    fn last(&self) -> Recorded {
        self.azure.requests().into_iter().rfind(|request| request.hop == Hop::Data).expect("a request")
    }

    /// Asks in every way of a client and by every frame of the registry. `check` sees how it was asked, and the answer.
    fn in_every_way(&self, method: &str, path: &str, check: impl Fn(&str, &Whole)) {
        for (version, headers, keeps) in WAYS {
            for frame in FRAMES {
                let what = format!("{method} {path} {version} {headers:?} {frame:?}");
                self.azure.clear_faults();
                if let Some(fault) = frame {
                    self.azure.inject(Hop::Data, fault);
                }
                let mut client = Kept::new(self.proxy.address());
                let answer = client.ask(method, path, version, &format!("{headers}{ACCEPT}"));
                check(&what, &answer);
                if keeps && answer.end != End::Close {
                    let again = client.ask(method, path, version, &format!("{headers}{ACCEPT}"));
                    assert_eq!(again.status(), answer.status(), "{what}: again on the same connection");
                } else if !headers.contains("keep-alive") {
                    assert!(client.is_at_its_end(), "{what}: {answer:?}");
                }
            }
        }
        self.azure.clear_faults();
    }
}

/// The body as its `Content-Encoding` has it.
fn unpacked(answer: &Whole) -> Vec<u8> {
    match answer.header("content-encoding") {
        None => answer.body.clone(),
        Some("gzip") => {
            let mut body = Vec::new();
            GzDecoder::new(&answer.body[..]).read_to_end(&mut body).expect("gzip");
            body
        }
        Some(other) => panic!("nobody packs by {other}"),
    }
}

fn json_of(answer: &Whole) -> Value {
    serde_json::from_slice(&unpacked(answer)).unwrap_or_else(|_| panic!("no JSON: {answer:?}"))
}

/// `<name>/<rest>` with `ns` and a query behind it.
fn path_of(name: &str, namespace: Option<&str>, rest: &str) -> String {
    let separator = if rest.contains('?') { '&' } else { '?' };
    let namespace = namespace.map(|namespace| format!("{separator}ns={namespace}")).unwrap_or_default();
    format!("/v2/{name}/{rest}{namespace}")
}

#[tokio::test(flavor = "multi_thread")]
async fn accept_on_six_lines_in_any_order_reaches_the_registry_as_it_is() {
    let stage = stage().await;
    let mut types = [
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        INDEX,
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/json",
    ];
    for _ in 0..types.len() {
        types.rotate_left(1);
        let lines: String = types.iter().map(|kind| format!("Accept: {kind}\r\n")).collect();
        let answer = stage.ask("GET", "/v2/library/busybox/manifests/latest", &lines);
        assert_eq!((answer.status(), answer.header("content-type")), (200, Some(INDEX)), "{answer:?}");
        let seen = stage.last();
        let accepted: Vec<_> =
            seen.headers.iter().filter(|(name, _)| name == "accept").map(|(_, value)| value).collect();
        assert_eq!(accepted, types);
    }
    let one = format!("Accept: {}, */*\r\n", types.join(", "));
    assert_eq!(stage.ask("GET", "/v2/library/busybox/manifests/latest", &one).status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_zstd_gets_what_the_registry_has() {
    let stage = stage().await;
    let takes = "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5";
    let headers = format!("{ACCEPT}Accept-Encoding: {takes}\r\n");
    let index = stage.azure.manifest("hub/library/busybox", "latest").expect("pushed");
    let answer = stage.ask("GET", "/v2/library/busybox/manifests/latest", &headers);
    assert_eq!((answer.status(), answer.header("content-encoding")), (200, None), "{answer:?}");
    assert!(answer.body == index, "byte for byte");
    assert_eq!(stage.last().header("accept-encoding"), Some(takes));
    let answer = stage.ask("GET", &format!("/v2/library/busybox/blobs/{}", stage.layer), &headers);
    assert_eq!((answer.status(), stage.last().header("accept-encoding")), (307, Some(takes)), "{answer:?}");
    // What is read here is not asked for in a form that cannot be.
    let answer = stage.ask("GET", "/v2/library/busybox/tags/list", &headers);
    assert_eq!((answer.status(), stage.last().header("accept-encoding")), (200, None), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_goes_to_the_registry_which_has_the_last_word() {
    let stage = stage().await;
    for (path, status) in [("manifests/latest", 200), (&format!("blobs/{}", stage.layer), 307)] {
        let headers = format!("{ACCEPT}Range: bytes=0-\r\nIf-Range: \"x\"\r\n");
        let answer = stage.ask("GET", &format!("/v2/library/busybox/{path}"), &headers);
        assert_eq!(answer.status(), status, "{answer:?}");
        let seen = stage.last();
        assert_eq!((seen.header("range"), seen.header("if-range")), (Some("bytes=0-"), Some("\"x\"")), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_what_is_read_on_its_way_back_is_not_asked_for() {
    let stage = stage().await;
    for path in ["tags/list", &format!("referrers/{}", stage.index)] {
        let headers = "Range: bytes=3-9\r\nIf-Range: \"x\"\r\n";
        let answer = stage.ask("GET", &format!("/v2/library/busybox/{path}"), headers);
        assert_eq!((answer.status(), answer.header("content-range")), (200, None), "{answer:?}");
        let seen = stage.last();
        assert_eq!((seen.header("range"), seen.header("if-range")), (None, None), "{path}");
    }
}

/// As containerd's parallel fetch does, which asks for the rest of a layer from many places and reads a part of each.
#[tokio::test(flavor = "multi_thread")]
async fn parallel_ranges_that_are_cut_short_leave_nothing_behind() {
    const PARTS: usize = 8;
    const READ: usize = 64 << 10;
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let pushed =
        azure.push(Image::small("hub/library/busybox", "latest").with_layers(1, 16 << 20).with_arches(&["amd64"]));
    let layer = azure.blob(&pushed.blobs[0]).expect("pushed");
    let path = format!("/v2/library/busybox/blobs/{}?ns=docker.io", pushed.blobs[0]);
    let setup = Setup::new(&azure).flag("--log", "info");
    let mut proxy = setup.upstream(&format!("  blobs: proxy\n  blob_hosts: ['{}']\n", azure.storage_addr())).start();
    let address = proxy.address();
    std::thread::scope(|scope| {
        let whole = scope.spawn(|| Kept::new(address).ask("GET", &path, "HTTP/1.1", ""));
        for part in 0..PARTS {
            let (path, layer, first) = (&path, &layer, part * layer.len() / PARTS);
            scope.spawn(move || {
                let mut stream = wire::connect(address);
                write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes={first}-\r\n\r\n").expect("sent");
                let mut answer = vec![0; READ];
                stream.read_exact(&mut answer).expect("more than this");
                assert!(answer.starts_with(b"HTTP/1.1 206 "), "{}", String::from_utf8_lossy(&answer[..100]));
                let body = answer.windows(4).position(|at| at == b"\r\n\r\n").expect("a head") + 4;
                assert!(layer[first..].starts_with(&answer[body..]), "part {part}");
            });
        }
        let whole = whole.join().expect("an answer");
        assert!(whole.status() == 200 && whole.body == layer, "{:?}", whole.head);
    });
    // Whatever is under way would hold this up.
    let begun = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(begun.elapsed() < AT_ONCE, "{:?}:\n{}", begun.elapsed(), proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_already_is_304_without_a_body() {
    let stage = stage().await;
    let path = "/v2/library/busybox/manifests/latest";
    for (version, headers, keeps) in WAYS {
        let mut client = Kept::new(stage.proxy.address());
        let known = format!("{ACCEPT}{headers}If-None-Match: \"x\", \"{}\"\r\n", stage.index);
        for method in ["GET", "HEAD"] {
            let answer = client.ask(method, path, version, &known);
            assert_eq!((answer.status(), answer.header("transfer-encoding")), (304, None), "{version} {answer:?}");
            assert_eq!(answer.header("etag"), Some(format!("\"{}\"", stage.index).as_str()), "{answer:?}");
            if !keeps {
                client = Kept::new(stage.proxy.address());
            }
        }
        // A body that came all the same would be taken for the next answer.
        assert_eq!(client.ask("GET", path, version, &format!("{ACCEPT}{headers}")).status(), 200);
    }
    let other = format!("{ACCEPT}If-None-Match: \"x\"\r\n");
    assert_eq!(stage.ask("GET", path, &other).status(), 200);
}

/// Every kind of answer that there is, with its status to `GET` and `HEAD`.
fn kinds(stage: &Stage) -> Vec<(String, u16, u16)> {
    [
        ("/v2/", 200, 200),
        ("/v2/busybox/manifests/latest", 200, 200),
        (&format!("/v2/busybox/manifests/{}", stage.index), 200, 200),
        (&format!("/v2/busybox/blobs/{}", stage.layer), 307, 200),
        ("/v2/busybox/tags/list?n=2", 200, 200),
        (&format!("/v2/busybox/referrers/{}", stage.index), 200, 200),
        ("/v2/busybox/manifests/none", 404, 404),
        (&format!("/v2/busybox/blobs/{ABSENT}"), 404, 404),
        ("/v2/none/tags/list", 404, 404),
        ("/v2/none/tags/list?ns=quay.io", 404, 404),
        ("/v2/Busybox/manifests/latest", 400, 400),
        ("/v2/busybox/manifests/sha256:0", 400, 400),
        ("/v2/_catalog", 404, 404),
        ("/", 404, 404),
    ]
    .map(|(path, get, head)| (path.to_owned(), get, head))
    .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_everywhere_and_is_get_without_a_body() {
    let stage = stage().await;
    let mut client = Kept::new(stage.proxy.address());
    for (path, get, head) in kinds(&stage) {
        let whole = client.ask("GET", &path, "HTTP/1.1", ACCEPT);
        let bare = client.ask("HEAD", &path, "HTTP/1.1", ACCEPT);
        assert_eq!((whole.status(), bare.status()), (get, head), "{path}: {whole:?} {bare:?}");
        assert!(bare.body.is_empty() && !whole.body.is_empty(), "{path}");
        if get != head {
            // The registry has the length of a blob itself.
            let length = stage.azure.blob(&stage.layer).expect("pushed").len().to_string();
            assert_eq!(bare.header("content-length"), Some(length.as_str()), "{path}: {bare:?}");
            continue;
        }
        for name in ["content-type", "docker-content-digest", "etag", "link", "docker-distribution-api-version"] {
            assert_eq!(bare.header(name), whole.header(name), "{path}: {name}");
        }
        // A length may be left out, but not be another one.
        if let Some(length) = bare.header("content-length") {
            assert_eq!(length, whole.body.len().to_string(), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_has_the_length_of_its_get_in_every_way() {
    let stage = stage().await;
    for (name, namespace, repository) in NAMES {
        for rest in ["tags/list?n=2", "tags/list", "manifests/latest", "manifests/none"] {
            let path = path_of(name, namespace, rest);
            for (version, headers, _) in WAYS {
                for frame in FRAMES {
                    stage.azure.clear_faults();
                    if let Some(fault) = frame.clone() {
                        stage.azure.inject(Hop::Data, fault);
                    }
                    let ask = |method: &str| {
                        let mut client = Kept::new(stage.proxy.address());
                        client.ask(method, &path, version, &format!("{ACCEPT}{headers}"))
                    };
                    let (whole, bare) = (ask("GET"), ask("HEAD"));
                    let what = format!("{path} {version} {headers:?} {frame:?}: {whole:?} {bare:?}");
                    assert_eq!(bare.status(), whole.status(), "{what}");
                    let length = whole.header("content-length").map(str::to_owned);
                    assert_eq!(bare.header("content-length").map(str::to_owned), length, "{what}");
                    // Only where the registry says none is there none; and of gzip of a longer name nobody knows it.
                    let is_rewritten = rest != "manifests/latest";
                    let is_known = match frame {
                        None => true,
                        Some(Fault::Gzip) => !is_rewritten || name.len() <= repository.len(),
                        Some(_) => false,
                    };
                    assert_eq!(length.is_some(), is_known, "{what}");
                }
            }
        }
    }
    stage.azure.clear_faults();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_kept_over_every_kind_of_answer() {
    let stage = stage().await;
    let mut client = Kept::new(stage.proxy.address());
    for _ in 0..3 {
        for (path, get, head) in kinds(&stage) {
            for (method, status) in [("GET", get), ("HEAD", head)] {
                let answer = client.ask(method, &path, "HTTP/1.1", ACCEPT);
                assert_eq!(answer.status(), status, "{method} {path}: {answer:?}");
                assert_ne!(answer.header("connection"), Some("close"), "{method} {path}: {answer:?}");
                assert_ne!(answer.end, End::Close, "{method} {path}: {answer:?}");
            }
        }
        assert_eq!(client.ask("DELETE", "/v2/busybox/manifests/latest", "HTTP/1.1", "").status(), 405);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_after_each_request_is_told_the_same() {
    let stage = stage().await;
    for (path, get, head) in kinds(&stage) {
        for (method, status) in [("GET", get), ("HEAD", head)] {
            let mut client = Kept::new(stage.proxy.address());
            let answer = client.ask(method, &path, "HTTP/1.1", &format!("{ACCEPT}Connection: close\r\n"));
            assert_eq!(answer.status(), status, "{method} {path}: {answer:?}");
            assert_eq!(answer.header("connection"), Some("close"), "{method} {path}: {answer:?}");
            assert!(client.is_at_its_end(), "{method} {path}");
        }
    }
    let connections: Vec<_> = stage.azure.requests().into_iter().filter(|seen| seen.hop == Hop::Data).collect();
    assert!(connections.iter().all(|seen| seen.connection == connections[0].connection), "one for all of them");
    assert!(connections.iter().all(|seen| seen.header("connection") != Some("close")), "{connections:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_percent_encoded_digest_is_a_digest() {
    let stage = stage().await;
    for (place, digest, status) in
        [("manifests", &stage.index, 200), ("blobs", &stage.layer, 307), ("referrers", &stage.index, 200)]
    {
        for colon in ["%3A", "%3a"] {
            let path = format!("/v2/library/busybox/{place}/{}?ns=docker.io", digest.replace(':', colon));
            let answer = stage.ask("GET", &path, ACCEPT);
            assert_eq!(answer.status(), status, "{path}: {answer:?}");
            assert_eq!(stage.last().target, format!("/v2/hub/library/busybox/{place}/{digest}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_4_mib_comes_whole_to_every_client() {
    let stage = stage().await;
    let text = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": {"x": ""}}).to_string();
    let (before, after) = text.split_at(text.len() - 3);
    let large = format!("{before}{}{after}", "hub/library/busybox ".repeat(LARGE / 20 + 1));
    assert!(large.len() > LARGE);
    let digest = stage.azure.put_manifest("hub/library/busybox", "large", INDEX, large.clone());
    for path in ["/v2/library/busybox/manifests/large".to_owned(), format!("/v2/busybox/manifests/{digest}")] {
        stage.in_every_way("GET", &path, |what, answer| {
            assert_eq!(answer.status(), 200, "{what}: {:?}", answer.head);
            assert!(unpacked(answer) == large.as_bytes(), "{what}: {:?}, {} bytes", answer.head, answer.body.len());
        });
    }
    let head = stage.ask("HEAD", "/v2/busybox/manifests/large", ACCEPT);
    assert_eq!(head.header("content-length"), Some(large.len().to_string().as_str()), "{head:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_length_comes_whole_and_its_end_is_seen() {
    let stage = stage().await;
    let index = stage.azure.manifest("hub/library/busybox", "latest").expect("pushed");
    for frame in [Fault::Chunked, Fault::UntilClose] {
        for (version, headers, _) in WAYS {
            stage.azure.inject(Hop::Data, frame.clone());
            let mut client = Kept::new(stage.proxy.address());
            let path = "/v2/library/busybox/manifests/latest";
            let answer = client.ask("GET", path, version, &format!("{ACCEPT}{headers}"));
            assert_eq!((answer.status(), answer.header("content-length")), (200, None), "{frame:?} {answer:?}");
            assert_eq!(
                answer.end,
                if version == "HTTP/1.0" { End::Close } else { End::Chunks },
                "{frame:?} {answer:?}"
            );
            assert!(answer.body == index, "{frame:?} {version}: byte for byte");
            stage.azure.clear_faults();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_untouched_in_every_way_to_ask_for_it() {
    let stage = stage().await;
    for (name, namespace, repository) in NAMES {
        for tag in ["latest", "zz-own"] {
            let pushed = stage.azure.manifest(repository, tag).expect("pushed");
            stage.in_every_way("GET", &path_of(name, namespace, &format!("manifests/{tag}")), |what, answer| {
                assert_eq!((answer.status(), answer.header("content-type")), (200, Some(INDEX)), "{what} {answer:?}");
                assert!(unpacked(answer) == pushed, "{what}: byte for byte");
            });
        }
    }
}

/// The target of a `Link` to the next page.
fn next(answer: &Whole) -> Option<String> {
    let (target, relation) = answer.header("link")?.strip_prefix('<')?.split_once('>')?;
    assert_eq!(relation, "; rel=\"next\"");
    Some(target.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_listed_page_by_page_in_the_clients_names() {
    let stage = stage().await;
    let all: Vec<_> = TAGS.iter().copied().chain(["zz-own"]).collect();
    for (name, namespace, repository) in NAMES {
        let start = format!("/v2/{name}/tags/list?");
        let pages = std::cell::RefCell::new(vec![path_of(name, namespace, "tags/list?n=4")]);
        let mut listed = Vec::new();
        loop {
            let page = pages.borrow().last().cloned().expect("one at least");
            let found = std::cell::RefCell::new(None);
            for method in ["GET", "HEAD"] {
                stage.in_every_way(method, &page, |what, answer| {
                    assert_eq!(answer.status(), 200, "{what}: {answer:?}");
                    let link = next(answer);
                    if method == "HEAD" {
                        assert!(answer.body.is_empty(), "{what}");
                        assert_eq!(found.borrow().as_ref().map(|(link, _)| link), Some(&link), "{what}");
                        return;
                    }
                    let body = json_of(answer);
                    assert_eq!(body["name"], name, "{what}: {body}");
                    let seen = Some((link, body["tags"].clone()));
                    let first = found.replace(seen.clone());
                    assert!(first.is_none() || first == seen, "{what}: {first:?} {seen:?}");
                });
            }
            let Some((link, tags)) = found.into_inner() else { panic!("no answer") };
            listed.extend(serde_json::from_value::<Vec<String>>(tags).expect("tags"));
            // The second page is asked for by all that the registry's own `Link` says.
            let asked = if pages.borrow().len() == 1 { "n=4" } else { "n=4&last=edge&orderby=" };
            assert_eq!(stage.last().target, format!("/v2/{repository}/tags/list?{asked}"));
            let Some(link) = link else { break };
            assert!(link.starts_with(&start), "{link}");
            let says = namespace.map(|namespace| format!("&ns={namespace}")).unwrap_or_default();
            assert!(link.ends_with(&says) && link.matches("ns=").count() == usize::from(namespace.is_some()), "{link}");
            assert!(pages.borrow().len() < all.len(), "the list goes on: {link}");
            pages.borrow_mut().push(link);
        }
        assert_eq!(listed, all, "{name} {namespace:?}");
        assert_eq!(pages.into_inner().len(), 2, "{name} {namespace:?}");
    }
}

/// An answer of the registry's in JSON.
fn said(status: u16, body: &str) -> Fault {
    let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
    Fault::StatusWith { status, headers, body: body.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_long_to_be_held_or_is_none_passes_as_it_is() {
    const LONG_ERROR: usize = 64 << 10;
    let stage = stage().await;
    let tag = "x".repeat(100);
    let list = json!({"name": "hub/library/busybox", "tags": vec![tag; LARGE / 100]}).to_string();
    let message = "hub/library/busybox ".repeat(LONG_ERROR / 20 + 1);
    let error = json!({"errors": [{"code": "DENIED", "message": message}]}).to_string();
    assert!(list.len() > LARGE && error.len() > LONG_ERROR);
    for (status, path, body) in [
        (200, "/v2/busybox/tags/list", list.as_str()),
        (403, "/v2/busybox/manifests/latest", &error),
        (403, "/v2/busybox/manifests/latest", "hub/library/busybox: no JSON"),
        (200, "/v2/busybox/tags/list", "{\"name\":\"hub/library/busybox\""),
    ] {
        stage.azure.inject(Hop::Data, said(status, body));
        for (version, headers, _) in WAYS {
            let mut client = Kept::new(stage.proxy.address());
            let answer = client.ask("GET", path, version, headers);
            let seen = (answer.status(), answer.end);
            assert!(seen == (status, End::Length) && answer.body == body.as_bytes(), "{version}: {:?}", answer.head);
        }
        stage.azure.clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_while_it_is_held_is_not_passed_as_whole() {
    let stage = stage().await;
    for (version, headers, _) in WAYS {
        for fault in [Fault::CutBody(10), Fault::ResetMidBody] {
            for path in ["/v2/busybox/tags/list", "/v2/none/tags/list", "/v2/ghcr.io/org/app/tags/list"] {
                stage.azure.inject(Hop::Data, fault.clone().times(1));
                let request = format!("GET {path} {version}\r\nHost: x\r\n{headers}\r\n");
                let answer = wire::parse(&wire::send(stage.proxy.address(), request.as_bytes()));
                let what = format!("{version} {headers:?} {fault:?} {path}: {answer:?}");
                let length = answer.header("content-length").and_then(|length| length.parse::<usize>().ok());
                let length = length.unwrap_or_else(|| panic!("no length: {what}"));
                assert!(answer.status == 502 || answer.body.len() < length, "{what}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_in_the_clients_names() {
    let stage = stage().await;
    for (name, namespace, repository) in NAMES {
        // Not the repository itself, but its neighbour, which nobody has pushed.
        let (name, repository) = (format!("{name}-none"), format!("{repository}-none"));
        let path = path_of(&name, namespace, "tags/list");
        stage.in_every_way("GET", &path, |what, answer| {
            let error = json_of(answer)["errors"][0].clone();
            assert_eq!((answer.status(), &error["code"]), (404, &json!("NAME_UNKNOWN")), "{what}: {answer:?}");
            assert_eq!(error["detail"]["name"], name.as_str(), "{what}");
        });
        stage.in_every_way("HEAD", &path, |what, answer| {
            assert_eq!((answer.status(), answer.body.len()), (404, 0), "{what}: {answer:?}");
        });
        let own = path_of(&name, namespace, "manifests/sha256:0");
        let answer = stage.ask("GET", &own, "");
        assert!(answer.status() == 400 && !String::from_utf8_lossy(&answer.body).contains(&repository), "{answer:?}");
        let body = json!({"errors": [{
            "code": "DENIED",
            "message": format!("no pull of {repository}:latest"),
            "detail": [{"Type": "repository", "Name": repository, "Action": "pull"}],
        }]});
        let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        let fault = Fault::StatusWith { status: 403, headers, body: body.to_string() };
        stage.azure.inject(Hop::Data, fault);
        for (version, headers, _) in WAYS {
            let mut client = Kept::new(stage.proxy.address());
            let path = path_of(&name, namespace, "manifests/latest");
            let answer = client.ask("GET", &path, version, &format!("{ACCEPT}{headers}"));
            let error = json_of(&answer)["errors"][0].clone();
            assert_eq!((answer.status(), &error["code"]), (403, &json!("DENIED")), "{answer:?}");
            assert_eq!(error["message"], format!("no pull of {name}:latest"), "{answer:?}");
            assert_eq!(error["detail"][0]["Name"], name.as_str(), "{answer:?}");
        }
        stage.azure.clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_listed_page_by_page_and_filtered() {
    let stage = stage().await;
    let subject = &stage.index;
    for (name, namespace, repository) in NAMES {
        stage.azure.attach(repository, subject, "application/vnd.example.sbom+json", name);
        let path = path_of(
            name,
            namespace,
            &format!("referrers/{subject}?artifactType=application%2Fvnd.example.sbom%2Bjson"),
        );
        stage.in_every_way("GET", &path, |what, answer| {
            assert_eq!((answer.status(), answer.header("content-type")), (200, Some(INDEX)), "{what}: {answer:?}");
            assert_eq!(answer.header("oci-filters-applied"), Some("artifactType"), "{what}: {answer:?}");
            let index = json_of(answer);
            assert!(index["manifests"].as_array().is_some_and(|list| !list.is_empty()), "{what}: {index}");
        });
        // By a name that no specification has.
        let continued = "artifactType=application%2Fvnd.example.sbom%2Bjson&skipTo=a%2Bb%2F%3D";
        let link = format!("</v2/{repository}/referrers/{subject}?{continued}>; rel=\"next\"");
        let headers = [("Content-Type", INDEX), ("Link", &link), ("OCI-Filters-Applied", "artifactType")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let page = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": {"x": repository}});
        let fault = Fault::StatusWith { status: 200, headers, body: page.to_string() };
        for method in ["GET", "HEAD"] {
            for (version, headers, _) in WAYS {
                stage.azure.inject(Hop::Data, fault.clone().times(1));
                let answer = Kept::new(stage.proxy.address()).ask(method, &path, version, headers);
                assert_eq!(answer.header("oci-filters-applied"), Some("artifactType"), "{answer:?}");
                assert!(method == "HEAD" || answer.body == page.to_string().as_bytes(), "byte for byte: {answer:?}");
                let next = next(&answer).unwrap_or_else(|| panic!("no link: {answer:?}"));
                assert!(next.starts_with(&format!("/v2/{name}/referrers/{subject}?{continued}")), "{next}");
                assert_eq!(stage.ask("GET", &next, "").status(), 200, "{next}");
                assert_eq!(stage.last().target, format!("/v2/{repository}/referrers/{subject}?{continued}"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_several_links_is_the_clients() {
    let stage = stage().await;
    let authority = format!("example.azurecr.io:{}", stage.azure.registry_addr().port());
    let links = [
        "</v2/hub/library/busybox/tags/list?last=a>; rel=\"next\"",
        "<https://elsewhere.example/x>; rel=\"help\"",
        &format!("<https://{authority}/v2/hub/library/busybox/tags/list>; rel=\"first\""),
    ];
    let headers = links.map(|link| ("Link".to_owned(), link.to_owned())).into();
    stage.azure.inject(Hop::Data, Fault::StatusWith { status: 200, headers, body: String::new() });
    let answer = stage.ask("GET", "/v2/busybox/tags/list?ns=docker.io", "");
    let lines = answer.head.head.lines().filter_map(|line| line.strip_prefix("Link: ").or(line.strip_prefix("link: ")));
    assert_eq!(
        lines.collect::<Vec<_>>(),
        [
            "</v2/busybox/tags/list?last=a&ns=docker.io>; rel=\"next\"",
            "<https://elsewhere.example/x>; rel=\"help\"",
            "</v2/busybox/tags/list?ns=docker.io>; rel=\"first\"",
        ],
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_of_the_registry_to_itself_leads_back_here_and_any_other_is_left_alone() {
    let stage = stage().await;
    let authority = format!("example.azurecr.io:{}", stage.azure.registry_addr().port());
    for (name, namespace, repository) in NAMES {
        let (there, here) =
            (format!("/v2/{repository}/blobs/{ABSENT}"), path_of(name, namespace, &format!("blobs/{ABSENT}")));
        for (location, expected) in [
            (there.clone(), here.clone()),
            (format!("https://{authority}{there}"), here),
            (format!("https://elsewhere.example{there}"), format!("https://elsewhere.example{there}")),
            (
                format!("https://x.blob.example/{repository}//data?sig=a%2Bb%3D&se=2026-01-01T00%3A00%3A00Z"),
                format!("https://x.blob.example/{repository}//data?sig=a%2Bb%3D&se=2026-01-01T00%3A00%3A00Z"),
            ),
        ] {
            let headers = vec![("Location".to_owned(), location.clone())];
            stage.azure.inject(Hop::Data, Fault::StatusWith { status: 307, headers, body: String::new() });
            for method in ["GET", "HEAD"] {
                for (version, headers, _) in WAYS {
                    let path = path_of(name, namespace, &format!("blobs/{}", stage.layer));
                    let answer = Kept::new(stage.proxy.address()).ask(method, &path, version, headers);
                    let seen = (answer.status(), answer.header("location"));
                    assert_eq!(seen, (307, Some(expected.as_str())), "{method} {path}: {answer:?}");
                    if expected.starts_with('/') {
                        Kept::new(stage.proxy.address()).ask(method, &expected, version, headers);
                        assert_eq!(stage.last().target, there, "{method} {path}");
                    }
                }
            }
            stage.azure.clear_faults();
        }
    }
}
