//! Many hosts that pull one image at the same time, each over one kept connection, as engines do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use acr_emulator::{Emulator, Pushed};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use oci::media_type::ManifestType;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// An image as clients name it; in the registry it is below `hub`.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// `library/busybox`
    pub name: &'static str,
    /// `latest`
    pub tag: &'static str,
}

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
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: mirror\r\nAccept: {}\r\n\r\n", ManifestType::ACCEPT_OF_ENGINES);
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
    async fn pull(&mut self, image: Named, arch: &str) -> Pull {
        let path = |rest: &str| format!("/v2/{}/{rest}", image.name);
        let head = self.ask("HEAD", &path(&format!("manifests/{}", image.tag))).await;
        assert_eq!(head.status, 200);
        let index = self.ask("GET", &path(&format!("manifests/{}", head.headers["docker-content-digest"]))).await;
        assert_eq!((index.status, &index.headers["content-length"]), (200, &head.headers["content-length"]));
        let list: Value = serde_json::from_slice(&index.body).expect("JSON");
        let entries = list["manifests"].as_array().expect("an index");
        let entry = entries.iter().find(|entry| entry["platform"]["architecture"] == arch).expect("the platform");
        let manifest = self.ask("GET", &path(&format!("manifests/{}", text(&entry["digest"])))).await;
        assert_eq!(manifest.status, 200);
        let described: Value = serde_json::from_slice(&manifest.body).expect("JSON");
        let layers = described["layers"].as_array().expect("layers").iter();
        let mut locations = Vec::new();
        for descriptor in [&described["config"]].into_iter().chain(layers) {
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

/// What one host got.
#[derive(PartialEq, Eq)]
pub struct Pull {
    /// The index.
    pub index: Vec<u8>,
    /// The manifest for its platform.
    pub manifest: Vec<u8>,
    /// Where the configuration and the layers are.
    pub locations: Vec<String>,
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

/// This many hosts connect, each to one of the proxies in turn, and then begin to pull at the same time.
///
/// # Panics
/// If one of them gets an error, a body without its length, or the redirect of another blob.
pub async fn pull_by_all(hosts: usize, proxies: &[SocketAddr], image: Named, arch: &'static str) -> Vec<Pull> {
    let start = Arc::new(Barrier::new(hosts));
    let mut pulls = JoinSet::new();
    for address in proxies.iter().cycle().take(hosts).copied() {
        let start = Arc::clone(&start);
        pulls.spawn(async move {
            let mut host = Host::connect(address).await;
            start.wait().await;
            host.pull(image, arch).await
        });
    }
    pulls.join_all().await
}

/// What one architecture of the image consists of, as the registry is asked for it: each object once.
pub fn objects(azure: &Emulator, image: Named, pushed: &Pushed, arch: &str) -> BTreeMap<String, usize> {
    let repository = format!("hub/{}", image.name);
    let (_, manifest) = pushed.manifests.iter().find(|(of, _)| of == arch).expect("the platform");
    let described: Value =
        serde_json::from_slice(&azure.manifest(&repository, manifest).expect("pushed")).expect("JSON");
    let layers = described["layers"].as_array().expect("layers").iter();
    let blobs = [&described["config"]].into_iter().chain(layers).map(|blob| format!("blobs/{}", text(&blob["digest"])));
    let manifests = [format!("manifests/{}", image.tag), format!("manifests/{manifest}")];
    let names = manifests.into_iter().chain(blobs);
    names.map(|name| (format!("GET /v2/{repository}/{name}"), 1)).collect()
}

/// A thousand connections need more descriptors than a shell gives by default.
pub fn raise_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raised to what is allowed");
}
