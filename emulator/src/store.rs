//! Repositories and their blobs, in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::image::{Built, Pushed, digest_of};
use crate::lock::lock;

/// A manifest or an index.
#[derive(Clone)]
pub(crate) struct Manifest {
    pub(crate) media_type: String,
    pub(crate) bytes: Bytes,
    /// The digest of the manifest that this one refers to, and its descriptor.
    referrer: Option<(String, Value)>,
}

#[derive(Default)]
struct Repository {
    tags: BTreeMap<String, String>,
    manifests: BTreeMap<String, Manifest>,
    blobs: HashSet<String>,
    /// What is not imported yet: all of it, or these tags.
    is_foreign: bool,
    foreign_tags: HashSet<String>,
}

impl Repository {
    fn is_imported(&self, reference: &str) -> bool {
        let is_foreign = self.is_foreign
            || self.foreign_tags.contains(reference)
            || self.foreign_tags.iter().filter_map(|tag| self.tags.get(tag)).any(|top| self.refers(top, reference));
        !is_foreign
    }

    /// Whether a manifest is, or refers to, this digest.
    fn refers(&self, manifest: &str, digest: &str) -> bool {
        manifest == digest
            || self.manifests.get(manifest).is_some_and(|found| {
                referred(&found.bytes).iter().any(|below| below == digest || self.refers(below, digest))
            })
    }
}

/// The digests of the manifests, the configuration and the layers that a manifest names.
fn referred(manifest: &[u8]) -> Vec<String> {
    let manifest: Value = serde_json::from_slice(manifest).unwrap_or_default();
    let lists = ["manifests", "layers"].into_iter().filter_map(|list| manifest[list].as_array()).flatten();
    let descriptors = lists.chain(manifest.get("config"));
    descriptors.filter_map(|descriptor| Some(descriptor["digest"].as_str()?.to_owned())).collect()
}

#[derive(Default)]
struct Content {
    repositories: BTreeMap<String, Repository>,
    blobs: HashMap<String, Bytes>,
}

/// Everything that was pushed.
#[derive(Default)]
pub(crate) struct Store {
    content: Mutex<Content>,
}

impl Store {
    pub(crate) fn put(&self, repository: &str, tag: &str, built: Built) -> Pushed {
        let mut content = lock(&self.content);
        for (digest, blob) in built.pushed.blobs.iter().zip(built.blobs) {
            content.blobs.insert(digest.clone(), blob);
        }
        let place = content.repositories.entry(repository.to_owned()).or_default();
        place.blobs.extend(built.pushed.blobs.iter().cloned());
        place.tags.insert(tag.to_owned(), built.pushed.index_digest.clone());
        for (media_type, bytes) in built.manifests {
            place.manifests.insert(digest_of(&bytes), Manifest { media_type, bytes, referrer: None });
        }
        built.pushed
    }

    /// Adds a manifest under a tag and returns its digest.
    pub(crate) fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: Bytes) -> String {
        let digest = digest_of(&bytes);
        let mut content = lock(&self.content);
        let place = content.repositories.entry(repository.to_owned()).or_default();
        let manifest = Manifest { media_type: media_type.to_owned(), bytes, referrer: None };
        place.manifests.insert(digest.clone(), manifest);
        place.tags.insert(tag.to_owned(), digest.clone());
        digest
    }

    /// Adds an artifact that refers to `subject` and returns its digest.
    pub(crate) fn attach(&self, repository: &str, subject: &str, artifact_type: &str, payload: Bytes) -> String {
        const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
        const EMPTY: &str = "application/vnd.oci.empty.v1+json";
        let config = Bytes::from_static(b"{}");
        let mut content = lock(&self.content);
        let place = content.repositories.entry(repository.to_owned()).or_default();
        let (subject_type, subject_size) =
            place.manifests.get(subject).map_or((MANIFEST.to_owned(), 0), |m| (m.media_type.clone(), m.bytes.len()));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": artifact_type,
            "config": {"mediaType": EMPTY, "digest": digest_of(&config), "size": config.len()},
            "layers": [{"mediaType": artifact_type, "digest": digest_of(&payload), "size": payload.len()}],
            "subject": {"mediaType": subject_type, "digest": subject, "size": subject_size},
        });
        let bytes = Bytes::from(manifest.to_string());
        let digest = digest_of(&bytes);
        let descriptor = json!({
            "mediaType": MANIFEST,
            "digest": digest,
            "size": bytes.len(),
            "artifactType": artifact_type,
        });
        place.blobs.extend([digest_of(&config), digest_of(&payload)]);
        let referrer = Some((subject.to_owned(), descriptor));
        place.manifests.insert(digest.clone(), Manifest { media_type: MANIFEST.to_owned(), bytes, referrer });
        for blob in [config, payload] {
            content.blobs.insert(digest_of(&blob), blob);
        }
        digest
    }

    /// The digest that a tag names.
    pub(crate) fn tagged(&self, repository: &str, tag: &str) -> Option<String> {
        lock(&self.content).repositories.get(repository)?.tags.get(tag).cloned()
    }

    /// A manifest by its digest.
    pub(crate) fn manifest(&self, repository: &str, digest: &str) -> Option<Manifest> {
        lock(&self.content).repositories.get(repository)?.manifests.get(digest).cloned()
    }

    pub(crate) fn delete_tag(&self, repository: &str, tag: &str) -> bool {
        let mut content = lock(&self.content);
        content.repositories.get_mut(repository).is_some_and(|place| place.tags.remove(tag).is_some())
    }

    /// Removes a manifest with the tags that name it.
    pub(crate) fn delete_manifest(&self, repository: &str, digest: &str) -> bool {
        let mut content = lock(&self.content);
        content.repositories.get_mut(repository).is_some_and(|place| {
            place.tags.retain(|_, named| named != digest);
            place.manifests.remove(digest).is_some()
        })
    }

    /// Whether a tag, or everything in a repository, is imported.
    pub(crate) fn set_imported(&self, repository: &str, tag: Option<&str>, is_imported: bool) {
        let mut content = lock(&self.content);
        let place = content.repositories.entry(repository.to_owned()).or_default();
        match (tag, is_imported) {
            (None, _) => place.is_foreign = !is_imported,
            (Some(tag), true) => drop(place.foreign_tags.remove(tag)),
            (Some(tag), false) => drop(place.foreign_tags.insert(tag.to_owned())),
        }
    }

    /// Whether a manifest, by tag or digest, or a blob is imported.
    pub(crate) fn is_imported(&self, repository: &str, reference: &str) -> bool {
        lock(&self.content).repositories.get(repository).is_none_or(|place| place.is_imported(reference))
    }

    /// The length of a blob that belongs to a repository.
    pub(crate) fn blob_length(&self, repository: &str, digest: &str) -> Option<usize> {
        let content = lock(&self.content);
        content.repositories.get(repository)?.blobs.get(digest)?;
        Some(content.blobs.get(digest)?.len())
    }

    /// A blob of any repository.
    pub(crate) fn blob(&self, digest: &str) -> Option<Bytes> {
        lock(&self.content).blobs.get(digest).cloned()
    }

    /// The tags of a repository in order.
    pub(crate) fn tags(&self, repository: &str) -> Option<Vec<String>> {
        let content = lock(&self.content);
        Some(content.repositories.get(repository)?.tags.keys().cloned().collect())
    }

    /// The names of all repositories in order.
    pub(crate) fn names(&self) -> Vec<String> {
        lock(&self.content).repositories.keys().cloned().collect()
    }

    /// Descriptors of what refers to a manifest; nothing for an unknown repository.
    pub(crate) fn referrers(&self, repository: &str, subject: &str) -> Option<Vec<Value>> {
        let content = lock(&self.content);
        let place = content.repositories.get(repository)?;
        let referrers = place.manifests.values().filter_map(|manifest| manifest.referrer.as_ref());
        Some(referrers.filter(|(of, _)| of == subject).map(|(_, descriptor)| descriptor.clone()).collect())
    }

    /// Adds a tag to an existing manifest.
    pub(crate) fn tag(&self, repository: &str, digest: &str, tag: &str) {
        let mut content = lock(&self.content);
        let place = content.repositories.entry(repository.to_owned()).or_default();
        place.tags.insert(tag.to_owned(), digest.to_owned());
    }
}
