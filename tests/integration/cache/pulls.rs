//! A thousand hosts that pull one image at once: what reaches the registry, and what each of them gets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use acr_emulator::{Emulator, Image, Options, Pushed};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::cached::{ACCEPT, Cached, REPOSITORY, path};

const HOSTS: usize = 1000;
const LAYERS: usize = 10;
/// A round trip to the registry, so that the hosts ask while the first answers are on their way.
const ROUND_TRIP: Duration = Duration::from_millis(50);

/// A status, headers in lower case, and a body.
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// One kept connection. The proxy's answers here all state their length, as it promises.
struct Host(BufReader<TcpStream>);

impl Host {
    async fn connect(address: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(address).await.expect("a connection")))
    }

    async fn ask(&mut self, method: &str, path: &str) -> Answer {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: mirror\r\n{ACCEPT}\r\n");
        self.0.write_all(request.as_bytes()).await.expect("sent");
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).await.expect("a header");
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let status = lines.first().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("{method} {path}: {lines:?}"));
        let header = |line: &String| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers: BTreeMap<_, _> = lines.iter().skip(1).filter_map(header).collect();
        let length = headers.get("content-length").and_then(|length| length.parse().ok());
        let length = length.unwrap_or_else(|| panic!("{method} {path}: no length: {lines:?}"));
        let mut body = vec![0; if method == "HEAD" { 0 } else { length }];
        self.0.read_exact(&mut body).await.expect("the whole body");
        Answer { status, headers, body }
    }

    /// What an engine reads of an image: the tag, the index, the manifest for its platform, configuration and layers.
    async fn pull(&mut self, arch: &str) -> Pull {
        let head = self.ask("HEAD", &path("manifests/latest")).await;
        assert_eq!(head.status, 200);
        let index = self.ask("GET", &path(&format!("manifests/{}", head.headers["docker-content-digest"]))).await;
        assert_eq!((index.status, &index.headers["content-length"]), (200, &head.headers["content-length"]));
        let list: Value = serde_json::from_slice(&index.body).expect("JSON");
        let entries = list["manifests"].as_array().expect("an index");
        let entry = entries.iter().find(|entry| entry["platform"]["architecture"] == arch).expect("the platform");
        let manifest = self.ask("GET", &path(&format!("manifests/{}", text(&entry["digest"])))).await;
        assert_eq!(manifest.status, 200);
        let image: Value = serde_json::from_slice(&manifest.body).expect("JSON");
        let layers = image["layers"].as_array().expect("layers").iter();
        let mut locations = Vec::new();
        for descriptor in [&image["config"]].into_iter().chain(layers) {
            let digest = text(&descriptor["digest"]);
            let redirect = self.ask("GET", &path(&format!("blobs/{digest}"))).await;
            assert_eq!(redirect.status, 307, "{digest}");
            let location = redirect.headers["location"].clone();
            assert!(location.contains(&digest["sha256:".len()..]), "{digest} is at {location}");
            locations.push(location);
        }
        Pull { index: index.body, manifest: manifest.body, locations }
    }
}

#[derive(PartialEq)]
struct Pull {
    index: Vec<u8>,
    manifest: Vec<u8>,
    locations: Vec<String>,
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

/// All hosts connect, and then begin to pull at the same time.
async fn pull_by_all(proxies: &[SocketAddr], arch: &'static str) -> Vec<Pull> {
    let start = Arc::new(Barrier::new(HOSTS));
    let mut hosts = JoinSet::new();
    for address in proxies.iter().cycle().take(HOSTS).copied() {
        let start = Arc::clone(&start);
        hosts.spawn(async move {
            let mut host = Host::connect(address).await;
            start.wait().await;
            host.pull(arch).await
        });
    }
    hosts.join_all().await
}

/// What one architecture of the image consists of, as the registry is asked for it: each object once.
fn objects(azure: &Emulator, pushed: &Pushed, arch: &str) -> BTreeMap<String, usize> {
    let (_, manifest) = pushed.manifests.iter().find(|(of, _)| of == arch).expect("the platform");
    let image: Value = serde_json::from_slice(&azure.manifest(REPOSITORY, manifest).expect("pushed")).expect("JSON");
    let layers = image["layers"].as_array().expect("layers").iter();
    let blobs = [&image["config"]].into_iter().chain(layers).map(|blob| format!("blobs/{}", text(&blob["digest"])));
    let manifests = ["manifests/latest".to_owned(), format!("manifests/{manifest}")];
    let names = manifests.into_iter().chain(blobs);
    names.map(|name| (format!("GET /v2/{REPOSITORY}/{name}"), 1)).collect()
}

/// A thousand connections need more descriptors than a shell gives by default.
fn raise_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raised to what is allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_simultaneous_cold_pulls_ask_the_registry_once_for_each_object() {
    raise_descriptors();
    let options = Options { latency: ROUND_TRIP, ..testkit::options() };
    // Longer than the test takes on any machine.
    let cached = Cached::with(options, |setup| setup.cache("{tags: 1h, redirects: 10m}")).await;
    let image = Image::small(REPOSITORY, "latest").with_layers(LAYERS, 1_000);
    let pushed = cached.azure.push(image);
    // A registry counts what it is asked for an image that nobody has asked for yet.
    for (arch, is_cold) in [("amd64", true), ("arm64", false)] {
        let address = cached.proxy.address();
        let pulls = pull_by_all(&[address], arch).await;
        let index = cached.azure.manifest(REPOSITORY, "latest").expect("pushed");
        assert!(pulls.iter().all(|pull| *pull == pulls[0] && pull.index == index), "all get the same");
        let mut expected = objects(&cached.azure, &pushed, arch);
        assert_eq!(expected.len(), 2 + 1 + LAYERS);
        if !is_cold {
            // The other platform's hosts share the tag.
            expected.remove(&format!("GET /v2/{REPOSITORY}/manifests/latest"));
        }
        // The index by its digest is what the tag was answered with, so it need not be asked for.
        let mut reads = cached.azure.reads();
        let by_digest = reads.remove(&format!("GET /v2/{REPOSITORY}/manifests/{}", pushed.index_digest));
        assert!(by_digest.is_none_or(|count| is_cold && count == 1), "{by_digest:?}");
        assert_eq!(reads, expected, "{arch}");
        cached.azure.clear_requests();
    }
    let pulls = pull_by_all(&[cached.proxy.address()], "amd64").await;
    assert_eq!(pulls.len(), HOSTS);
    assert!(cached.azure.requests().is_empty(), "warm: {:?}", cached.azure.reads());
}
