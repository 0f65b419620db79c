//! Index and manifest, by digest.

use std::time::Duration;

use http::{Method, StatusCode};
use oci::manifest::{Document, MAX_DOCUMENT, Manifest, for_platform};
use oci::platform::Platform;

use super::Session;
use crate::failure::Failure;
use crate::meter::Meter;
use crate::phase::Phase;

impl Session<'_> {
    /// The manifest of the platform, by way of the index if `digest` is one.
    pub(super) async fn manifest(
        &mut self,
        digest: &str,
        platform: &Platform,
        meter: &mut Meter,
    ) -> Result<Manifest, Failure> {
        let entries = match self.document(digest, meter).await? {
            (Document::Manifest(manifest), took) => {
                meter.time(Phase::Manifest, took);
                return Ok(manifest);
            }
            (Document::Index(entries), took) => {
                meter.time(Phase::Index, took);
                entries
            }
        };
        let entry = for_platform(&entries, platform).next();
        let entry = entry.ok_or_else(|| Failure::new(format!("{digest}: the index has no manifest for {platform}")))?;
        match self.document(&entry.digest, meter).await? {
            (Document::Manifest(manifest), took) => {
                meter.time(Phase::Manifest, took);
                Ok(manifest)
            }
            (Document::Index(_), _) => Err(Failure::new(format!("{}: an index in an index", entry.digest))),
        }
    }

    async fn document(&mut self, digest: &str, meter: &mut Meter) -> Result<(Document, Duration), Failure> {
        let target = format!("/v2/{}/manifests/{digest}", self.repository);
        let response = self.ask_manifest(Method::GET, &target, meter).await?;
        if response.status != StatusCode::OK {
            return Err(response.into_failure().await);
        }
        let sent = response.sent;
        let request = response.failure("200 with a body that is");
        let mut body = Vec::new();
        let length = self.content(response, digest, MAX_DOCUMENT as u64, |part| body.extend_from_slice(part)).await?;
        let took = sent.elapsed();
        meter.bytes += length;
        let malformed = |what| Failure::new(format!("{} {what}", request.sentence));
        Ok((Document::parse(&body).map_err(malformed)?, took))
    }
}
