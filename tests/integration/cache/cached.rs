//! A registry with one image, a proxy with a cache in front of it, and how to read its answers.

use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Image, Options, Pushed};

use crate::wire::{Client, Whole};
use testkit::{PATIENCE, Proxy, Setup};

/// The repository as the registry knows it; clients ask for `library/busybox`.
pub(super) const REPOSITORY: &str = "hub/library/busybox";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// What an engine accepts.
pub(super) const ACCEPT: &str = "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json\r\n";

/// A registry with one image, and a proxy in front of it that has signed in.
pub(super) struct Cached {
    pub azure: Emulator,
    pub proxy: Proxy,
    pub pushed: Pushed,
}

impl Cached {
    /// With these settings of the cache.
    pub(super) async fn start(settings: &str) -> Self {
        Self::with(testkit::options(), |setup| setup.cache(settings)).await
    }

    pub(super) async fn with(options: Options, change: impl FnOnce(Setup) -> Setup) -> Self {
        let azure = Emulator::start(options).await.expect("the emulator starts");
        let pushed = azure.push(Image::small(REPOSITORY, "latest"));
        let proxy = change(Setup::new(&azure).flag("--log", "info").flag("--admin-address", ":0")).start();
        Self { azure, proxy, pushed }
    }

    /// One request on a connection of its own.
    pub(super) fn ask(&self, method: &str, path: &str, headers: &str) -> Whole {
        Client::new(self.proxy.address()).ask(method, path, "HTTP/1.1", headers)
    }

    /// One of each kind that there is to ask for, and the status that it gets by GET.
    pub(super) fn objects(&self) -> [(String, u16); 6] {
        let Pushed { index_digest, blobs, .. } = &self.pushed;
        [
            ("manifests/latest".to_owned(), 200),
            (format!("manifests/{index_digest}"), 200),
            ("manifests/none".to_owned(), 404),
            ("tags/list".to_owned(), 200),
            (format!("referrers/{index_digest}"), 200),
            (format!("blobs/{}", blobs[0]), 307),
        ]
    }

    /// `GET` of a path, as an engine asks.
    pub(super) fn get(&self, path: &str) -> Whole {
        self.ask("GET", path, ACCEPT)
    }

    /// How often the registry was asked for anything since the record was last cleared. Whether it is there at all, which
    /// the proxy asks after a failure, is not one of its reads.
    pub(super) fn reads(&self) -> usize {
        self.azure.reads().iter().filter(|(read, _)| !read.ends_with(" /v2/")).map(|(_, count)| count).sum()
    }

    /// The same for one object, by the end of its path.
    pub(super) fn reads_of(&self, path: &str) -> usize {
        self.azure.reads().iter().filter(|(read, _)| read.ends_with(path)).map(|(_, count)| count).sum()
    }
}

/// The path of something in the one repository.
pub(super) fn path(rest: &str) -> String {
    format!("/v2/library/busybox/{rest}")
}

/// The parameters of this proxy's entry in `Cache-Status` (RFC 9211), without spaces: `hit`, `ttl=30`, `fwd=miss`.
pub(super) fn cache_status(answer: &Whole) -> Vec<String> {
    let status = answer.header("cache-status").unwrap_or_else(|| panic!("no Cache-Status: {answer:?}"));
    let (name, parameters) = status.split_once(';').unwrap_or_else(|| panic!("no parameter: {status}"));
    assert_eq!(name.trim(), "acr-cache-proxy", "{status}");
    parameters.split(';').map(|parameter| parameter.trim().to_owned()).collect()
}

pub(super) fn is_hit(answer: &Whole) -> bool {
    cache_status(answer).iter().any(|parameter| parameter == "hit")
}

/// The `ttl` of a hit, in seconds; negative once the answer is stale.
pub(super) fn ttl(answer: &Whole) -> i64 {
    let parameters = cache_status(answer);
    let ttl = parameters.iter().find_map(|parameter| parameter.strip_prefix("ttl="));
    ttl.and_then(|ttl| ttl.parse().ok()).unwrap_or_else(|| panic!("no ttl: {parameters:?}"))
}

/// Asks again until the condition holds; the panic names `what` if it never does.
pub(super) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} never came");
        // Nothing depends on the step.
        std::thread::sleep(Duration::from_millis(20));
    }
}
