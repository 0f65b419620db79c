//! A registry with known content, and a proxy in front of it.

use acr_emulator::{Emulator, Fault, Hop};
use bytes::Bytes;
use http::HeaderMap;
use reqwest::redirect::Policy;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::content::{Content, INDEX, MANIFEST, NAME, REPOSITORY};
use crate::docker_registry::DockerRegistry;
use testkit::{PATIENCE, Proxy, Setup};

/// A registry with known content, and a proxy in front of it that a client asks.
pub(crate) struct Upstream {
    proxy: Proxy,
    client: reqwest::Client,
    /// Entra ID and the content; the registry, too, unless there is another one.
    azure: Emulator,
    registry: Option<DockerRegistry>,
    pub content: Content,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// A header that is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Of the first error in the body; whatever else the specification wants of it has to be there.
    pub(crate) fn code(&self) -> String {
        let body = self.json();
        let error = &body["errors"][0];
        let code = error["code"].as_str().unwrap_or_else(|| panic!("no code: {self:?}"));
        assert!(code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'), "{self:?}");
        code.to_owned()
    }
}

impl Upstream {
    /// The emulator, with nothing else, behind a proxy with these settings of `cache`.
    pub(crate) async fn emulator(cache: &str) -> Self {
        let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
        let content = Content::push(&azure);
        let proxy = Setup::new(&azure).cache(cache).start();
        Self { proxy, client: client(&azure), azure, registry: None, content }
    }

    /// Debian's `docker-registry` with the same content; the emulator is Entra ID alone.
    pub(crate) async fn docker_registry(cache: &str) -> Self {
        let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
        let content = Content::push(&azure);
        let client = client(&azure);
        let registry = DockerRegistry::start(&azure).await;
        registry.push(&client, &azure, &content).await;
        let proxy = Setup::registry(&azure, registry.address()).cache(cache).start();
        Self { proxy, client, azure, registry: Some(registry), content }
    }

    /// The proxy's answer; no redirect is followed.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.fetch(method, &self.proxy.url(path), headers)
    }

    /// The answer to `GET` of what is below the repository, such as `manifests/latest`.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", &format!("/v2/{NAME}/{path}"), &[("Accept", &format!("{INDEX}, {MANIFEST}"))])
    }

    /// The same as `HEAD`.
    pub(crate) fn head(&self, path: &str) -> Answer {
        self.ask("HEAD", &format!("/v2/{NAME}/{path}"), &[("Accept", &format!("{INDEX}, {MANIFEST}"))])
    }

    /// A blob, as a client gets it: by a redirect, if there is one, which is asked for in the same way.
    pub(crate) fn blob(&self, method: &str, digest: &str, headers: &[(&str, &str)]) -> Answer {
        let answer = self.ask(method, &format!("/v2/{NAME}/blobs/{digest}"), headers);
        match answer.header("location") {
            Some(location) => self.fetch(method, location, headers),
            None => answer,
        }
    }

    fn fetch(&self, method: &str, url: &str, headers: &[(&str, &str)]) -> Answer {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let request = headers
            .iter()
            .fold(self.client.request(method, url), |request, (name, value)| request.header(*name, *value));
        tokio::task::block_in_place(|| {
            Handle::current().block_on(async {
                let answer = request.send().await.unwrap_or_else(|cause| panic!("{url}: {cause:?}"));
                let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
                Answer { status, headers, body: answer.bytes().await.expect("a whole body") }
            })
        })
    }

    /// The bytes of a manifest as they were pushed.
    pub(crate) fn manifest(&self, reference: &str) -> Bytes {
        self.azure.manifest(REPOSITORY, reference).expect("pushed")
    }

    /// The bytes of a blob as they were pushed.
    pub(crate) fn pushed_blob(&self, digest: &str) -> Bytes {
        self.azure.blob(digest).expect("pushed")
    }

    /// From now on the registry takes no token that the proxy can have.
    pub(crate) fn refuse_tokens(&self) {
        match &self.registry {
            Some(registry) => registry.grant_nothing(),
            None => self.azure.inject(Hop::Data, Fault::Challenge401),
        }
    }

    /// From now on the registry answers with this status, which only the emulator can be made to.
    pub(crate) fn fail(&self, status: u16) {
        assert!(self.registry.is_none(), "docker-registry does what it does");
        self.azure.inject(Hop::Data, Fault::Status(status));
    }
}

fn client(azure: &Emulator) -> reqwest::Client {
    // A second call finds the first one's provider, which is no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ca = reqwest::Certificate::from_pem(azure.ca_pem().as_bytes()).expect("a CA");
    let client = reqwest::Client::builder().no_proxy().redirect(Policy::none()).timeout(PATIENCE);
    client.tls_certs_only([ca]).build().expect("a client")
}
