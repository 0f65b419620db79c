//! What the registry under test holds.

use acr_emulator::{Emulator, Image};
use serde_json::{Value, json};

/// The repository that has everything, as clients call it and as the registry does.
pub(crate) const NAME: &str = "library/busybox";
pub(crate) const REPOSITORY: &str = "hub/library/busybox";
/// Its tags but for the one that stands in for the referrers API, in lexical order.
pub(crate) const TAGS: [&str; 5] = ["1.35", "1.36", "1.36-musl", "edge", "latest"];
/// A digest that nothing has.
pub(crate) const ABSENT: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const SIGNATURE: &str = "application/vnd.example.signature";
pub(crate) const SBOM: &str = "application/vnd.example.sbom+json";

/// What was pushed.
pub(crate) struct Content {
    /// Of the index that all tags name.
    pub index: String,
    /// Of one architecture's manifest, which is in the index.
    pub manifest: String,
    pub layer: String,
    /// Artifacts that refer to the index, with their types.
    pub referrers: [(String, &'static str); 2],
    /// The tag under which a registry without the referrers API lists them.
    pub referrers_tag: String,
}

impl Content {
    /// Fills the emulator's repository.
    pub(crate) fn push(azure: &Emulator) -> Self {
        let image = Image::small(REPOSITORY, TAGS[0]);
        let pushed = azure.push(image);
        for tag in &TAGS[1..] {
            azure.tag(REPOSITORY, &pushed.index_digest, tag);
        }
        let attach = |artifact_type| azure.attach(REPOSITORY, &pushed.index_digest, artifact_type, "about the image");
        let referrers = [SIGNATURE, SBOM].map(|artifact_type| (attach(artifact_type), artifact_type));
        let descriptors = referrers.each_ref().map(|(digest, artifact_type)| {
            let size = azure.manifest(REPOSITORY, digest).expect("attached").len();
            json!({"mediaType": MANIFEST, "digest": digest, "size": size, "artifactType": artifact_type})
        });
        let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors}).to_string();
        let referrers_tag = pushed.index_digest.replace(':', "-");
        azure.put_manifest(REPOSITORY, &referrers_tag, INDEX, list);
        Self {
            manifest: pushed.manifests[0].1.clone(),
            layer: pushed.blobs[0].clone(),
            index: pushed.index_digest,
            referrers,
            referrers_tag,
        }
    }

    /// Everything that tags and the index lead to, the parts first: reference, media type.
    pub(crate) fn manifests(&self, azure: &Emulator) -> Vec<(String, &'static str)> {
        let index: Value =
            serde_json::from_slice(&azure.manifest(REPOSITORY, &self.index).expect("pushed")).expect("JSON");
        let parts = index["manifests"].as_array().expect("a list").iter();
        let parts = parts.map(|part| part["digest"].as_str().expect("a digest").to_owned());
        let artifacts = self.referrers.iter().map(|(digest, _)| digest.clone());
        let tags = TAGS.iter().copied().chain([self.referrers_tag.as_str()]);
        let named = tags.map(|tag| (tag.to_owned(), INDEX));
        parts.chain(artifacts).map(|digest| (digest, MANIFEST)).chain(named).collect()
    }
}
