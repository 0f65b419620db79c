//! One image, in an engine's order: HEAD of the tag, index, manifests, configurations, layers.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Method, StatusCode};
use oci::image::Image;
use oci::manifest::{Descriptor, Document, Manifest, for_platform};
use oci::name::Digest;
use oci::route::DOCKER_HUB;

use super::client::{Answer, Call, MANIFEST, ONE_BYTE, Take};
use super::failure::Failure;
use super::{Layers, Platforms, Run};
use crate::answer::{DIGEST, is_not_imported};
use crate::digest;

/// Layers of one image at a time: dockerd's `max-concurrent-downloads` and containerd's default.
pub(super) const LAYERS_AT_ONCE: usize = 3;
/// From the registry to storage is one; a dedicated data endpoint may add one.
const MAX_REDIRECTS: usize = 3;

/// What came of an image.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Warmed {
    /// Indexes among them.
    pub manifests: usize,
    /// Configurations.
    pub configs: usize,
    /// Layers, also those that another image of this run has.
    pub layers: usize,
    /// The registry has passed on what its source has, and imports it now.
    pub is_importing: bool,
}

/// The repository of an image at the proxy.
struct Repository {
    /// `/v2/<name>`
    path: String,
    /// The registry, in the words of containerd. The proxy decides by it which cache rule is meant.
    query: String,
}

impl Repository {
    fn of(image: &Image) -> Self {
        let registry = image.registry().unwrap_or(DOCKER_HUB);
        Self { path: format!("/v2/{}", image.repository()), query: format!("ns={registry}") }
    }
}

impl Run {
    /// Asks for all of an image. What is counted counts also if it fails.
    pub(super) async fn warm(&self, image: &Image, warmed: &mut Warmed) -> Result<(), Failure> {
        let repository = Repository::of(image);
        let digest = match image.digest() {
            Some(digest) => digest.to_owned(),
            None => self.resolve(&repository, image.reference(), warmed).await?,
        };
        let (manifests, missing) = match self.document(&repository, &digest, warmed).await? {
            Document::Manifest(manifest) => (vec![manifest], None),
            Document::Index(entries) => {
                let mut wanted: Vec<&str> = Vec::new();
                let mut missing = Vec::new();
                match &self.platforms {
                    Platforms::All => wanted.extend(entries.iter().map(|entry| entry.digest.as_str())),
                    Platforms::Some(platforms) => {
                        for platform in platforms {
                            let before = wanted.len();
                            wanted.extend(for_platform(&entries, platform).map(|entry| entry.digest.as_str()));
                            if wanted.len() == before {
                                missing.push(platform.to_string());
                            }
                        }
                    }
                }
                let mut seen = HashSet::new();
                let mut manifests = Vec::new();
                for digest in wanted.into_iter().filter(|digest| seen.insert(*digest)) {
                    match self.document(&repository, digest, warmed).await? {
                        Document::Manifest(manifest) => manifests.push(manifest),
                        Document::Index(_) => {
                            let call = self.manifest_call(Method::GET, &repository, digest);
                            return Err(Failure::content(&call.hop, &call.name, "an index in an index"));
                        }
                    }
                }
                let has: Vec<_> =
                    entries.iter().filter_map(|entry| Some(entry.platform.as_ref()?.to_string())).collect();
                let missing = (!missing.is_empty()).then(|| {
                    format!("no manifest for {}: choose with --platform: it has {}", missing.join(", "), has.join(", "))
                });
                (manifests, missing)
            }
        };
        for manifest in &manifests {
            self.config(&repository, &manifest.config).await?;
            warmed.configs += 1;
        }
        self.layers(&repository, &manifests, warmed).await?;
        let Some(missing) = missing else { return Ok(()) };
        let call = self.manifest_call(Method::GET, &repository, &digest);
        Err(Failure::content(&call.hop, &call.name, missing))
    }

    /// The digest that the tag names.
    async fn resolve(&self, repository: &Repository, tag: &str, warmed: &mut Warmed) -> Result<String, Failure> {
        let call = self.manifest_call(Method::HEAD, repository, tag);
        let answer = self.client.send(&call).await?;
        if answer.status != StatusCode::OK {
            return Err(self.client.explained(&call, &answer).await);
        }
        warmed.is_importing |= is_not_imported(&answer.headers);
        let digest = answer.header(DIGEST.as_str()).filter(|digest| Digest::parse(digest).is_some());
        let wrong = || Failure::content(&call.hop, &call.name, "200 without a Docker-Content-Digest");
        digest.map(str::to_owned).ok_or_else(wrong)
    }

    /// An index or a manifest, whose content is what its digest says.
    async fn document(&self, repository: &Repository, digest: &str, warmed: &mut Warmed) -> Result<Document, Failure> {
        let call = self.manifest_call(Method::GET, repository, digest);
        let answer = self.client.send(&call).await?;
        if answer.status != StatusCode::OK {
            return Err(self.client.refused(&call, &answer));
        }
        check(&call, digest, &answer.body)?;
        warmed.manifests += 1;
        warmed.is_importing |= is_not_imported(&answer.headers);
        Document::parse(&answer.body)
            .map_err(|what| Failure::content(&call.hop, &call.name, format_args!("200 with a body that is {what}")))
    }

    fn manifest_call(&self, method: Method, repository: &Repository, reference: &str) -> Call {
        let path = format!("{}/manifests/{reference}", repository.path);
        Call { headers: MANIFEST, ..self.client.to_proxy(method, &path, Some(&repository.query)) }
    }

    /// The configuration, whole if the proxy has it or storage may be asked, and else where it is.
    async fn config(&self, repository: &Repository, config: &Descriptor) -> Result<(), Failure> {
        let (call, answer) = self.blob(repository, &config.digest, Method::GET, Take::All).await?;
        if answer.status.is_redirection() { Ok(()) } else { check(&call, &config.digest, &answer.body) }
    }

    /// Every layer of these manifests once, [`LAYERS_AT_ONCE`] at a time. The first failure ends it, after those under way.
    async fn layers(
        &self,
        repository: &Repository,
        manifests: &[Manifest],
        warmed: &mut Warmed,
    ) -> Result<(), Failure> {
        if self.layers == Layers::None {
            return Ok(());
        }
        let mut seen = HashSet::new();
        // A layer with addresses of its own is not in the registry.
        let layers = manifests.iter().flat_map(|manifest| &manifest.layers).filter(|layer| layer.urls.is_empty());
        let layers: Vec<_> = layers.filter(|layer| seen.insert(&layer.digest)).collect();
        let next = AtomicUsize::new(0);
        let lane = || async {
            let mut touched = 0;
            while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(failure) = self.layer(repository, layer).await {
                    next.store(layers.len(), Ordering::Relaxed);
                    return (touched, Err(failure));
                }
                touched += 1;
            }
            (touched, Ok(()))
        };
        const { assert!(LAYERS_AT_ONCE == 3, "as many lanes are joined below") };
        let lanes = tokio::join!(lane(), lane(), lane());
        let mut outcome = Ok(());
        for (touched, result) in [lanes.0, lanes.1, lanes.2] {
            warmed.layers += touched;
            outcome = outcome.and(result);
        }
        outcome
    }

    async fn layer(&self, repository: &Repository, layer: &Descriptor) -> Result<(), Failure> {
        let path = format!("{}/blobs/{}?{}", repository.path, layer.digest, repository.query);
        if self.is_new(&path) {
            let method = if self.layers == Layers::Head { Method::HEAD } else { Method::GET };
            self.blob(repository, &layer.digest, method, Take::FirstByte).await?;
            self.touched(path);
        }
        Ok(())
    }

    /// Asks for a blob. A redirect is followed to storage if that may be asked, without anything of the request; else it is
    /// the answer.
    async fn blob(
        &self,
        repository: &Repository,
        digest: &str,
        method: Method,
        take: Take,
    ) -> Result<(Call, Answer), Failure> {
        let path = format!("{}/blobs/{digest}", repository.path);
        let mut call = Call { take, ..self.client.to_proxy(method, &path, Some(&repository.query)) };
        let mut answer = self.client.send(&call).await?;
        let mut redirects = 0;
        while answer.status.is_redirection() && self.layers == Layers::FirstByte && redirects < MAX_REDIRECTS {
            redirects += 1;
            let headers = if take == Take::FirstByte { ONE_BYTE } else { &[] };
            call = Call { headers, take, ..self.client.to_location(&call, &answer)? };
            answer = self.client.send(&call).await?;
        }
        let followed = self.layers == Layers::FirstByte;
        match answer.status.is_success() || (answer.status.is_redirection() && !followed) {
            true => Ok((call, answer)),
            false => Err(self.client.explained(&call, &answer).await),
        }
    }
}

/// The content is what its digest says.
fn check(call: &Call, digest: &str, body: &[u8]) -> Result<(), Failure> {
    match digest::is_of(digest, body) {
        Some(true) => Ok(()),
        Some(false) => {
            let what = format_args!("do not use this image: its content is not {digest}");
            Err(Failure::content(&call.hop, &call.name, what))
        }
        None => {
            let what = format_args!("its digest cannot be checked, only sha256 and sha512 can: {digest}");
            Err(Failure::content(&call.hop, &call.name, what))
        }
    }
}
