//! Index and manifest, by digest.

use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;

use super::Session;
use crate::failure::Failure;
use crate::meter::Meter;
use crate::phase::Phase;
use crate::platform::Platform;

/// Manifests, indexes and configs. The distribution specification asks registries to accept at least this much.
pub(super) const MAX_DOCUMENT: u64 = 4 << 20;
/// Docker itself accepts 127.
const MAX_LAYERS: usize = 512;

/// An index has `manifests`, a manifest has `config` and `layers`.
#[derive(Deserialize)]
struct Document {
    manifests: Option<Vec<Entry>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct Entry {
    digest: String,
    platform: Option<Platform>,
}

/// A blob's digest and size.
#[derive(Deserialize)]
pub(super) struct Descriptor {
    pub(super) digest: String,
    pub(super) size: u64,
}

/// The blobs of an image.
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

impl Manifest {
    fn new(document: Document, digest: &str) -> Result<Self, Failure> {
        match (document.config, document.layers) {
            (Some(config), Some(layers)) if layers.len() <= MAX_LAYERS => Ok(Self { config, layers }),
            (Some(_), Some(layers)) => {
                Err(Failure::new(format!("{digest}: {} layers, more than {MAX_LAYERS}", layers.len())))
            }
            _ => Err(Failure::new(format!("{digest}: neither an index nor a manifest with a config and layers"))),
        }
    }
}

impl Session<'_> {
    /// The manifest of the platform, by way of the index if `digest` is one.
    pub(super) async fn manifest(
        &mut self,
        digest: &str,
        platform: &Platform,
        meter: &mut Meter,
    ) -> Result<Manifest, Failure> {
        let (document, took) = self.document(digest, meter).await?;
        let Some(entries) = &document.manifests else {
            meter.time(Phase::Manifest, took);
            return Manifest::new(document, digest);
        };
        meter.time(Phase::Index, took);
        let entry = find(entries, platform);
        let entry = entry.ok_or_else(|| Failure::new(format!("{digest}: the index has no manifest for {platform}")))?;
        let (document, took) = self.document(&entry.digest, meter).await?;
        meter.time(Phase::Manifest, took);
        Manifest::new(document, &entry.digest)
    }

    async fn document(&mut self, digest: &str, meter: &mut Meter) -> Result<(Document, Duration), Failure> {
        let target = format!("/v2/{}/manifests/{digest}", self.repository);
        let response = self.ask_manifest(Method::GET, &target, meter).await?;
        if response.status != StatusCode::OK {
            return Err(response.into_failure().await);
        }
        let sent = response.sent;
        let malformed = response.failure("200 with a body that is not the JSON of a manifest");
        let mut body = Vec::new();
        let length = self.content(response, digest, MAX_DOCUMENT, |part| body.extend_from_slice(part)).await?;
        let took = sent.elapsed();
        meter.bytes += length;
        Ok((serde_json::from_slice(&body).map_err(|_| malformed)?, took))
    }
}

fn find<'a>(entries: &'a [Entry], platform: &Platform) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.platform.as_ref().is_some_and(|other| platform.accepts(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_picks_its_manifest() {
        let index = r#"{"manifests":[
            {"digest":"sha256:a","platform":{"os":"linux","architecture":"amd64"}},
            {"digest":"sha256:b","platform":{"os":"linux","architecture":"arm","variant":"v6"}},
            {"digest":"sha256:c","platform":{"os":"linux","architecture":"arm","variant":"v7"}},
            {"digest":"sha256:d"}]}"#;
        let index: Document = serde_json::from_str(index).expect("an index");
        let entries = index.manifests.expect("manifests");
        for (text, digest) in [
            ("linux/amd64", Some("sha256:a")),
            ("linux/arm", Some("sha256:b")),
            ("linux/arm/v7", Some("sha256:c")),
            ("windows/amd64", None),
        ] {
            let platform = Platform::parse(text).expect(text);
            assert_eq!(platform.to_string(), text);
            assert_eq!(find(&entries, &platform).map(|entry| entry.digest.as_str()), digest, "{text}");
        }
        for text in ["linux", "linux/", "Linux/amd64", "linux/arm/v7/x", ""] {
            assert!(Platform::parse(text).is_none(), "{text}");
        }
    }
}
