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

    /// A manifest by tag or digest, with its digest.
    pub(crate) fn manifest(&self, repository: &str, reference: &str) -> Option<(String, Manifest)> {
        let content = lock(&self.content);
        let place = content.repositories.get(repository)?;
        let digest = place.tags.get(reference).map_or(reference, String::as_str);
        Some((digest.to_owned(), place.manifests.get(digest)?.clone()))
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
