//! One image, in an engine's order: HEAD of the tag, index, manifests, configurations, layers.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Method, StatusCode};
use oci::image::Image;
use oci::manifest::{Descriptor, Document, Entry, MAX_INDEXES, Manifest, for_platform};
use oci::name::Digest;
use oci::platform::Platform;
use oci::route::DOCKER_HUB;

use super::client::{Answer, Call, MANIFEST, ONE_BYTE, Take};
use super::content::{check_all, check_first_byte};
use super::failure::Failure;
use super::{Layers, Run};
use crate::answer::{DIGEST, is_not_imported};

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
        let entries = match self.signed(&repository, &digest, warmed).await? {
            Document::Manifest(manifest) => return self.single(&repository, &digest, manifest, warmed).await,
            Document::Index(entries) => entries,
        };
        let (manifests, missing) = self.manifests(&repository, entries, warmed).await?;
        for manifest in &manifests {
            // What the index says of its manifests counts, as for engines.
            self.config(&repository, &manifest.config).await?;
            warmed.configs += 1;
        }
        self.layers(&repository, &manifests, warmed).await?;
        missing.map_or(Ok(()), |missing| Err(self.of_other_platforms(&repository, &digest, missing)))
    }

    /// The manifests of an index that are wanted, also those of indexes in it; and what is missing.
    async fn manifests(
        &self,
        repository: &Repository,
        entries: Vec<Entry>,
        warmed: &mut Warmed,
    ) -> Result<(Vec<Manifest>, Option<String>), Failure> {
        let (mut seen, mut manifests) = (HashSet::new(), Vec::new());
        // Each is one level below the one before it.
        let (mut level, mut all) = (entries, Vec::new());
        for _ in 0..MAX_INDEXES {
            let mut inner = Vec::new();
            for digest in self.platforms.wanted(&level) {
                if !seen.insert(digest.clone()) {
                    continue;
                }
                match self.signed(repository, &digest, warmed).await? {
                    Document::Manifest(manifest) => manifests.push(manifest),
                    Document::Index(entries) => inner.extend(entries),
                }
            }
            all.append(&mut level);
            level = inner;
        }
        if let Some(entry) = level.first() {
            let call = self.manifest_call(Method::GET, repository, &entry.digest);
            let wrong = format!("it is in more than {MAX_INDEXES} indexes in one another");
            return Err(Failure::content(&call.hop, &call.name, wrong));
        }
        all.retain(|entry| !entry.is_index());
        let listed = self.platforms.listed().unwrap_or_default();
        let missing = listed.iter().filter(|platform| for_platform(&all, platform).next().is_none());
        let missing: Vec<_> = missing.map(Platform::to_string).collect();
        let missing = match missing.as_slice() {
            [] => all.is_empty().then(|| what_it_has(&all)),
            missing => Some(format!("no manifest for {}: {}", missing.join(", "), what_it_has(&all))),
        };
        Ok((manifests, missing))
    }

    /// An image without an index. Which platform it is for is in its configuration, and not known where that is not read.
    async fn single(
        &self,
        repository: &Repository,
        digest: &str,
        manifest: Manifest,
        warmed: &mut Warmed,
    ) -> Result<(), Failure> {
        let found = self.config(repository, &manifest.config).await?;
        warmed.configs += 1;
        let Some((found, asked)) = found.zip(self.platforms.listed()) else {
            return self.layers(repository, &[manifest], warmed).await;
        };
        let missing: Vec<_> = asked.iter().filter(|asked| !asked.accepts_image(&found)).collect();
        if missing.len() < asked.len() {
            self.layers(repository, &[manifest], warmed).await?;
        }
        if missing.is_empty() {
            return Ok(());
        }
        let missing: Vec<_> = missing.into_iter().map(Platform::to_string).collect();
        let missing = format!("not for {}: choose with --platform: it is for {found}", missing.join(", "));
        Err(self.of_other_platforms(repository, digest, missing))
    }

    /// An index or a manifest, and its signature: who copies an image with all its platforms looks for that of the index as well.
    async fn signed(&self, repository: &Repository, digest: &str, warmed: &mut Warmed) -> Result<Document, Failure> {
        let document = self.document(repository, digest, warmed).await?;
        self.signature(repository, digest, warmed).await?;
        Ok(document)
    }

    /// What clients with a policy of `sigstoreSigned` look for beside a manifest (cosign's tag), if that is wanted. That there is none is kept
    /// by the proxy as well.
    async fn signature(&self, repository: &Repository, digest: &str, warmed: &mut Warmed) -> Result<(), Failure> {
        if !self.signatures {
            return Ok(());
        }
        let tag = format!("{}.sig", digest.replacen(':', "-", 1));
        let call = self.manifest_call(Method::GET, repository, &tag);
        let answer = self.client.send(&call).await?;
        match answer.status {
            StatusCode::OK => warmed.manifests += 1,
            StatusCode::NOT_FOUND => return Ok(()),
            _ => return Err(self.client.refused(&call, &answer)),
        }
        match Document::parse(&answer.body) {
            Ok(Document::Manifest(manifest)) => self.layers(repository, &[manifest], warmed).await,
            // Whoever looks for a signature takes it for none.
            _ => Ok(()),
        }
    }

    /// The failure of an image that lacks a platform.
    fn of_other_platforms(&self, repository: &Repository, digest: &str, missing: String) -> Failure {
        let call = self.manifest_call(Method::GET, repository, digest);
        Failure::content(&call.hop, &call.name, missing)
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
        check_all(&call, digest, &answer)?;
        warmed.manifests += 1;
        warmed.is_importing |= is_not_imported(&answer.headers);
        Document::parse(&answer.body)
            .map_err(|what| Failure::content(&call.hop, &call.name, format_args!("200 with a body that is {what}")))
    }

    fn manifest_call(&self, method: Method, repository: &Repository, reference: &str) -> Call {
        let path = format!("{}/manifests/{reference}", repository.path);
        Call { headers: MANIFEST, ..self.client.to_proxy(method, &path, Some(&repository.query)) }
    }

    /// The configuration, whole if the proxy has it or storage may be asked, and else where it is. Gives the platform that it
    /// names.
    async fn config(&self, repository: &Repository, config: &Descriptor) -> Result<Option<Platform>, Failure> {
        let (call, answer) = self.blob(repository, &config.digest, Method::GET, Take::All).await?;
        if answer.status.is_redirection() {
            return Ok(None);
        }
        check_all(&call, &config.digest, &answer)?;
        Ok(Platform::of_configuration(&answer.body))
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
            if self.layers == Layers::Head {
                self.blob(repository, &layer.digest, Method::HEAD, Take::FirstByte).await?;
            } else if layer.size == 0 {
                // It has no first byte, and storage would refuse the range.
                let (call, answer) = self.blob(repository, &layer.digest, Method::GET, Take::All).await?;
                check_all(&call, &layer.digest, &answer)?;
            } else {
                let (call, answer) = self.blob(repository, &layer.digest, Method::GET, Take::FirstByte).await?;
                check_first_byte(&call, layer.size, &answer)?;
            }
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

/// What an index has in place of what was asked for, and how to take it.
fn what_it_has(entries: &[Entry]) -> String {
    // What has an empty platform names none.
    let is_named = |platform: &&Platform| **platform != Platform::default();
    let named = entries.iter().filter_map(|entry| entry.platform.as_ref().filter(is_named));
    let named: Vec<_> = named.map(Platform::to_string).collect();
    if entries.is_empty() {
        "the index has no manifests".to_owned()
    } else if named.is_empty() {
        "its manifests name no platform: --platform all takes them all".to_owned()
    } else {
        format!("choose with --platform: it has {}", named.join(", "))
    }
}
