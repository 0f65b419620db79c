//! A registry with two repositories and a proxy in front of it, asked with every framing of HTTP/1.

use std::io::Read as _;

use acr_emulator::{Emulator, Fault, Hop, Image, Recorded};
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::wire::{Client, End, Whole};
use testkit::{Proxy, Setup};

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const ACCEPT: &str = "Accept: application/vnd.oci.image.index.v1+json\r\n";
pub(crate) const ABSENT: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
pub(crate) const TAGS: [&str; 5] = ["1.35", "1.36", "1.36-musl", "edge", "latest"];

/// How a client frames a request: HTTP version, header lines, and whether the connection is kept afterwards.
pub(crate) const CLIENT_FRAMINGS: [(&str, &str, bool); 4] = [
    ("HTTP/1.1", "", true),
    ("HTTP/1.1", "Connection: close\r\n", false),
    ("HTTP/1.0", "", false),
    ("HTTP/1.0", "Connection: keep-alive\r\n", false),
];

/// How the registry frames its answers.
pub(crate) const REGISTRY_FRAMINGS: [Option<Fault>; 4] =
    [None, Some(Fault::Chunked), Some(Fault::UntilClose), Some(Fault::Gzip)];

/// The names of a repository: in the client's path, the registry in the client's `ns` parameter, and in the cache.
pub(crate) const NAMES: [(&str, Option<&str>, &str); 7] = [
    ("library/busybox", None, "hub/library/busybox"),
    ("library/busybox", Some("docker.io"), "hub/library/busybox"),
    ("busybox", None, "hub/library/busybox"),
    ("docker.io/busybox", None, "hub/library/busybox"),
    ("org/app", Some("ghcr.io"), "ghcr/org/app"),
    ("ghcr.io/org/app", None, "ghcr/org/app"),
    ("ghcr.io/org/app", Some("ghcr.io"), "ghcr/org/app"),
];

/// A registry with two repositories of the same tags, and a proxy with a route to each.
pub(crate) struct Fixture {
    pub azure: Emulator,
    pub proxy: Proxy,
    /// Of the index that every tag of `hub/library/busybox` names.
    pub index: String,
    pub layer: String,
}

impl Fixture {
    /// With these settings of `cache`.
    pub(crate) async fn start(cache: &str) -> Self {
        let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
        let [pushed, _] = ["hub/library/busybox", "ghcr/org/app"].map(|repository| {
            let pushed = azure.push(Image::small(repository, TAGS[0]));
            for tag in &TAGS[1..] {
                azure.tag(repository, &pushed.index_digest, tag);
            }
            // A manifest that holds its own name, which must not be rewritten.
            let own =
                json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": {"name": repository}});
            azure.put_manifest(repository, "zz-own", INDEX, own.to_string());
            pushed
        });
        let setup = Setup::routes(&azure, &[("docker.io", "hub"), ("ghcr.io", "ghcr")]).cache(cache);
        let proxy = setup.flag("--log", "info").start();
        Self { azure, proxy, index: pushed.index_digest, layer: pushed.blobs[0].clone() }
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &str) -> Whole {
        Client::new(self.proxy.address()).ask(method, path, "HTTP/1.1", headers)
    }

    /// The last request that reached the registry.
    pub(crate) fn last(&self) -> Recorded {
        self.azure.requests().into_iter().rfind(|request| request.hop == Hop::Data).expect("a request")
    }

    /// Asks with every framing of the client and every framing of the registry. `check` gets a description of the case, and the
    /// answer.
    pub(crate) fn in_every_framing(&self, method: &str, path: &str, check: impl Fn(&str, &Whole)) {
        // What has come packed once passes by itself for a minute: that is the last.
        for framing in REGISTRY_FRAMINGS {
            for (version, headers, keeps) in CLIENT_FRAMINGS {
                let what = format!("{method} {path} {version} {headers:?} {framing:?}");
                self.azure.clear_faults();
                if let Some(fault) = framing.clone() {
                    self.azure.inject(Hop::Data, fault);
                }
                let mut client = Client::new(self.proxy.address());
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

/// The body, decompressed as its `Content-Encoding` says.
pub(crate) fn decompressed(answer: &Whole) -> Vec<u8> {
    match answer.header("content-encoding") {
        None => answer.body.clone(),
        Some("gzip") => {
            let mut body = Vec::new();
            GzDecoder::new(&answer.body[..]).read_to_end(&mut body).expect("gzip");
            body
        }
        Some(other) => panic!("no registry encodes by {other}"),
    }
}

/// The body, decompressed, as JSON.
pub(crate) fn json_of(answer: &Whole) -> Value {
    serde_json::from_slice(&decompressed(answer)).unwrap_or_else(|_| panic!("no JSON: {answer:?}"))
}

/// The path and query of `<name>/<rest>`, with the `ns` parameter if there is one.
pub(crate) fn path_of(name: &str, namespace: Option<&str>, rest: &str) -> String {
    let separator = if rest.contains('?') { '&' } else { '?' };
    let namespace = namespace.map(|namespace| format!("{separator}ns={namespace}")).unwrap_or_default();
    format!("/v2/{name}/{rest}{namespace}")
}
