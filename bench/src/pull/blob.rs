//! Config and layers, with redirects to blob storage.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, StatusCode, header};
use oci::manifest::{Descriptor, MAX_DOCUMENT};

use super::Session;
use crate::client::{Request, Response};
use crate::failure::Failure;
use crate::meter::Meter;
use crate::origin::Origin;
use crate::phase::Phase;

/// dockerd's `max-concurrent-downloads` and containerd's default.
pub(crate) const LAYERS_AT_ONCE: usize = 3;
/// From the registry to storage is one; a dedicated data endpoint may add one.
const MAX_REDIRECTS: usize = 3;

/// How much of the layers is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// Nothing.
    None,
    /// Where they are, and HEAD there.
    Head,
    /// All bytes.
    Full,
}

impl Layers {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Head, Self::Full];

    /// The name in flags and JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Head => "head",
            Self::Full => "full",
        }
    }
}

impl Session<'_> {
    pub(super) async fn config(&self, config: &Descriptor, meter: &mut Meter) -> Result<(), Failure> {
        let (response, redirect) = self.blob(Method::GET, &config.digest, meter).await?;
        let sent = response.sent;
        meter.bytes += self.content(response, &config.digest, MAX_DOCUMENT as u64, |_| {}).await?;
        meter.time(Phase::Config, redirect.unwrap_or_default() + sent.elapsed());
        Ok(())
    }

    /// All layers, [`LAYERS_AT_ONCE`] at a time. The pull fails with the first failure, after the layers under way have
    /// ended.
    pub(super) async fn layers(&self, layers: &[Descriptor], how: Layers, meter: &mut Meter) -> Result<(), Failure> {
        if how == Layers::None {
            return Ok(());
        }
        let next = AtomicUsize::new(0);
        let lane = || async {
            let mut meter = Meter::default();
            while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(failure) = self.layer(layer, how, &mut meter).await {
                    next.store(layers.len(), Ordering::Relaxed);
                    return (meter, Err(failure));
                }
            }
            (meter, Ok(()))
        };
        const { assert!(LAYERS_AT_ONCE == 3, "as many lanes are joined below") };
        let lanes = tokio::join!(lane(), lane(), lane());
        let mut outcome = Ok(());
        for (measured, result) in [lanes.0, lanes.1, lanes.2] {
            meter.merge(measured);
            outcome = outcome.and(result);
        }
        outcome
    }

    async fn layer(&self, layer: &Descriptor, how: Layers, meter: &mut Meter) -> Result<(), Failure> {
        let method = if how == Layers::Head { Method::HEAD } else { Method::GET };
        let (response, redirect) = self.blob(method, &layer.digest, meter).await?;
        if let Some(redirect) = redirect {
            meter.time(Phase::Redirect, redirect);
        }
        if how == Layers::Head {
            meter.time(Phase::FirstByte, response.latency());
            // A registry that does not redirect sends the layer. It is not read, and its connection is closed.
            return if redirect.is_some() { response.discard().await } else { Ok(()) };
        }
        let sent = response.sent;
        let mut first = None;
        let length = self
            .content(response, &layer.digest, layer.size, |_| {
                first.get_or_insert_with(|| sent.elapsed());
            })
            .await?;
        meter.bytes += length;
        meter.throughput(length, sent.elapsed());
        meter.time(Phase::FirstByte, first.unwrap_or_else(|| sent.elapsed()));
        Ok(())
    }

    /// Requests a blob and follows redirects, by `method` and without credentials. Returns the response with the content,
    /// and how long the redirects took, if there were any.
    async fn blob(
        &self,
        method: Method,
        digest: &str,
        meter: &mut Meter,
    ) -> Result<(Response<'_>, Option<Duration>), Failure> {
        let target = format!("/v2/{}/blobs/{digest}", self.repository);
        let mut response = self.pool.send(&self.request(Method::GET, &target), meter).await?;
        let mut redirects = None;
        for _ in 0..MAX_REDIRECTS {
            if !response.status.is_redirection() {
                break;
            }
            *redirects.get_or_insert_default() += response.latency();
            let location = response.header(header::LOCATION.as_str()).and_then(Origin::parse_url);
            let (origin, target) =
                location.ok_or_else(|| response.failure("a redirect to no http or https address"))?;
            response.discard().await?;
            response = self.pool.send(&Request::new(&origin, method.clone(), &target), meter).await?;
        }
        if response.status != StatusCode::OK {
            return Err(response.into_failure().await);
        }
        Ok((response, redirects))
    }
}
