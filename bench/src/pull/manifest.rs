//! Index and manifest, by digest.

use std::time::Duration;

use http::{Method, StatusCode};
use oci::manifest::{Document, MAX_DOCUMENT, MAX_INDEXES, Manifest, for_platform_and_indexes};
use oci::platform::Platform;

use super::Session;
use crate::failure::Failure;
use crate::meter::Meter;
use crate::phase::Phase;

impl Session<'_> {
    /// The manifest of the platform, by way of the index if `digest` is one, and of the indexes in it.
    pub(super) async fn manifest(
        &mut self,
        digest: &str,
        platform: &Platform,
        meter: &mut Meter,
    ) -> Result<Manifest, Failure> {
        // What is to be looked into, the next one last, and in how many indexes it is.
        let mut next = vec![(digest.to_owned(), 0)];
        while let Some((digest, depth)) = next.pop() {
            match self.document(&digest, meter).await? {
                (Document::Manifest(manifest), took) => {
                    meter.time(Phase::Manifest, took);
                    return Ok(manifest);
                }
                (Document::Index(entries), took) => {
                    meter.time(Phase::Index, took);
                    if depth == MAX_INDEXES {
                        return Err(Failure::new(format!("{digest}: more than {MAX_INDEXES} indexes in one another")));
                    }
                    let inner: Vec<_> = for_platform_and_indexes(&entries, platform)
                        .map(|entry| (entry.digest.clone(), depth + 1))
                        .collect();
                    next.extend(inner.into_iter().rev());
                }
            }
        }
        Err(Failure::new(format!("{digest}: the index has no manifest for {platform}")))
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
