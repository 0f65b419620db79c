//! The images, the proxy as their mirror, and what must be true of every pull.

use acr_emulator::{Emulator, Hop, Image, Recorded};
use serde_json::Value;

use crate::home::Home;
use crate::{namespace, program};
use testkit::{Proxy, Setup};

/// Large beside all manifests together, so that it shows who carried a layer.
const LAYER_BYTES: usize = 300_000;
const LAYERS: usize = 2;
const TAG: &str = "1.0";
/// Settings of `cache`: the program's defaults, and without it.
pub(crate) const CACHES: [&str; 2] = ["{}", "off"];
/// How the proxy's own `User-Agent` begins, by which it asks for what it keeps.
const PROXY_AGENT: &str = "acr-cache-proxy/";

/// A proxy in front of the emulator, as a client's mirror of Docker Hub.
pub(crate) struct Mirror {
    pub azure: Emulator,
    pub proxy: Proxy,
    pub home: Home,
    authority: String,
    pulls: Vec<Pull>,
}

/// One image, how a client is to ask for it, and what of it that client needs.
pub(crate) struct Pull {
    /// By what the client asks: the image's name.
    pub name: &'static str,
    /// As `docker.io/library/by-tag:1.0`.
    pub reference: String,
    /// The architecture that is wanted, where it is not that of this machine.
    pub platform: Option<&'static str>,
    /// The architecture that is expected.
    pub arch: &'static str,
    by_tag: bool,
    manifest: String,
    other_manifest: String,
}

/// This machine's architecture and another one, in the words of an image index.
const fn architectures() -> [&'static str; 2] {
    if cfg!(target_arch = "aarch64") { ["arm64", "amd64"] } else { ["amd64", "arm64"] }
}

impl Mirror {
    /// A mirror of a registry on a port of the system's choice, with these settings of `cache`.
    pub(crate) async fn start(cache: &str) -> Self {
        namespace::assert_isolated();
        let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
        let proxy = Setup::new(&azure).cache(cache).flag("--log", "info").start();
        let authority = format!("example.azurecr.io:{}", azure.registry_addr().port());
        Self::of(azure, proxy, &authority)
    }

    /// A mirror of this registry, which goes by `authority` in `Host`. It gets its images here.
    pub(crate) fn of(azure: Emulator, proxy: Proxy, authority: &str) -> Self {
        let [native, foreign] = architectures();
        // Each way of asking has an image of its own: no client can answer one pull from another's layers.
        let pulls = [
            ("by-tag", true, native, false),
            ("by-digest", false, native, true),
            ("other-architecture", true, foreign, false),
        ]
        .map(|(name, by_tag, arch, docker_media_types)| {
            let image = Image::small(&format!("hub/library/{name}"), TAG).with_layers(LAYERS, LAYER_BYTES);
            let image = image.with_arches(&[native, foreign]).with_binary(program::installed("busybox"));
            let pushed = azure.push(if docker_media_types { image.with_docker_media_types() } else { image });
            let manifest_of = |wanted: bool| {
                let mut manifests = pushed.manifests.iter();
                manifests.find(|(found, _)| (found == arch) == wanted).expect("two of them").1.clone()
            };
            Pull {
                name,
                reference: if by_tag {
                    format!("docker.io/library/{name}:{TAG}")
                } else {
                    format!("docker.io/library/{name}@{}", pushed.index_digest)
                },
                platform: (arch == foreign).then_some(foreign),
                arch,
                by_tag,
                manifest: manifest_of(true),
                other_manifest: manifest_of(false),
            }
        });
        let home = Home::new(&[azure.ca_pem()]);
        Self { azure, proxy, home, authority: authority.to_owned(), pulls: pulls.into() }
    }

    /// Every way to ask for an image: by tag, by digest, for another architecture.
    pub(crate) fn pulls(&self) -> &[Pull] {
        &self.pulls
    }

    /// `127.0.0.1:<port>`, where clients find the proxy.
    pub(crate) fn address(&self) -> String {
        self.proxy.address().to_string()
    }

    /// Checks what has been seen of a pull that is just over, and again of those before it: by the proxy, the
    /// registry and its storage. `agents` is how the client's `User-Agent` begins; by whitespace, if it has several.
    pub(crate) fn verify(&self, pull: &Pull, agents: &str) {
        let is_client = |value: &str| agents.split(' ').any(|agent| value.starts_with(agent));
        let requests = self.azure.requests();
        let of = |hop| requests.iter().filter(move |request: &&Recorded| request.hop == hop);

        let is_any = |value: &str| is_client(value) || value.starts_with(PROXY_AGENT);
        for request in of(Hop::Data) {
            assert!(request.target.starts_with("/v2/hub/"), "the prefix: {request:?}");
            assert!(!request.target.contains('?'), "no ns: {request:?}");
            assert_eq!(request.header("host"), Some(self.authority.as_str()), "{request:?}");
            assert!(request.header("authorization").is_some_and(|value| value.starts_with("Bearer ")), "{request:?}");
            assert!(request.header("user-agent").is_some_and(is_any), "{request:?}");
        }

        // A request that went around the proxy would be at the registry and not in its log.
        let answered = self.proxy.wait_until("the lines of all that reached the registry, and no others", |log| {
            let arrived = sorted(self.azure.requests().iter().filter(|request| request.hop == Hop::Data).map(asked));
            let answered: Vec<_> = access_lines(log).filter(|line| !["/v2/", "-"].contains(&&*line.path)).collect();
            (sorted(answered.iter().filter_map(Line::asked)) == arrived).then_some(answered)
        });

        // Neither refused nor challenged: a client that sees a 401 asks for a token at a place of the server's choice.
        let log = self.proxy.log();
        for line in access_lines(&log) {
            // Podman, buildah and skopeo try TLS first, which is no request and has a line with `-` for its path.
            let is_tls = line.path == "-" && line.status == "400";
            assert!(is_tls || matches!(line.status.as_str(), "200" | "307"), "{line:?}");
        }
        for request in of(Hop::Token).chain(of(Hop::Exchange)).chain(of(Hop::Entra)) {
            assert!(request.header("user-agent").is_none_or(|value| !is_client(value)), "{request:?}");
        }

        // Blobs come from storage to the client, without any credentials and past the proxy.
        for request in of(Hop::Storage) {
            assert_eq!((request.status, request.header("authorization")), (200, None), "{request:?}");
            assert!(request.header("user-agent").is_some_and(is_client), "{request:?}");
        }
        assert_eq!(of(Hop::Storage).count(), answered.iter().filter(|line| line.status == "307").count());
        let carried: usize = answered.iter().map(|line| line.bytes).sum();
        assert!(carried < LAYER_BYTES, "the proxy carried {carried} bytes");

        // The image that was asked for, all of it and no other one.
        let manifest = |reference: &str| {
            let path = format!("/v2/library/{}/manifests/{reference}", pull.name);
            answered.iter().any(|line| line.path == path)
        };
        assert_eq!(manifest(TAG), pull.by_tag, "{answered:#?}");
        assert!(manifest(&pull.manifest), "{answered:#?}");
        let fetched = |digest: &String| {
            let hex = digest.trim_start_matches("sha256:");
            of(Hop::Storage).any(|request| request.target.contains(hex))
        };
        let wanted = self.blobs(pull, &pull.manifest);
        assert!(wanted.len() == 1 + LAYERS && wanted.iter().all(fetched), "not all of {wanted:?}: {answered:#?}");
        // A client may look at the config of another architecture, but has no use for its layers.
        let unwanted = self.blobs(pull, &pull.other_manifest);
        assert!(!unwanted.iter().skip(1).any(fetched), "some of {unwanted:?}: {answered:#?}");
    }

    /// The config and the layers that a manifest names.
    pub(crate) fn blobs(&self, pull: &Pull, manifest: &str) -> Vec<String> {
        let bytes = self.azure.manifest(&format!("hub/library/{}", pull.name), manifest).expect("pushed");
        let manifest: Value = serde_json::from_slice(&bytes).expect("JSON");
        let layers = manifest["layers"].as_array().expect("layers").iter();
        std::iter::once(&manifest["config"])
            .chain(layers)
            .map(|blob| blob["digest"].as_str().expect("a digest").to_owned())
            .collect()
    }

    /// The config's digest, by which runtimes know an image.
    pub(crate) fn config(&self, pull: &Pull) -> String {
        self.blobs(pull, &pull.manifest).swap_remove(0)
    }
}

/// A line of the proxy's access log.
#[derive(Debug)]
struct Line {
    method: String,
    path: String,
    status: String,
    bytes: usize,
    /// What the cache did, if there is one.
    cache: Option<String>,
}

impl Line {
    /// What the registry was asked for this request, as [`asked`] has it: by the proxy itself, or the request as it was.
    fn asked(&self) -> Option<String> {
        match self.cache.as_deref() {
            Some("hit" | "collapsed" | "stale") => None,
            Some("miss" | "refresh" | "revalidate") => Some(format!("the proxy: GET {}", self.path)),
            _ => Some(format!("{} {} {}", self.method, self.path, self.status)),
        }
    }
}

/// What the registry was asked, by the client's names.
fn asked(request: &Recorded) -> String {
    let path = request.target.replacen("/v2/hub/", "/v2/", 1);
    if request.header("user-agent").is_some_and(|value| value.starts_with(PROXY_AGENT)) {
        format!("the proxy: {} {path}", request.method)
    } else {
        format!("{} {path} {}", request.method, request.status)
    }
}

fn access_lines(log: &str) -> impl Iterator<Item = Line> {
    log.lines().filter_map(|line| line.split_once(" access] ")).map(|(_, line)| {
        let words: Vec<_> = line.split(' ').collect();
        let bytes = words.get(3).and_then(|word| word.strip_suffix('B')).and_then(|number| number.parse().ok());
        let bytes = bytes.unwrap_or_else(|| panic!("method, path, status and bytes come first: {line}"));
        let [method, path, status] = [0, 1, 2].map(|at| words[at].to_owned());
        let cache = words.iter().find_map(|word| word.strip_prefix("cache=")).map(str::to_owned);
        Line { method, path, status, bytes, cache }
    })
}

fn sorted(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<_> = lines.collect();
    lines.sort_unstable();
    lines
}
