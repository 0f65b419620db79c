//! One pull, in an engine's order of requests: sign-in, HEAD of the tag, index, manifest, config, layers.
//!
//! - `sign_in`: the registry's challenge, and the token that answers it
//! - `manifest`: index and manifest, by digest
//! - `blob`: config and layers, with redirects to blob storage

use std::time::Instant;

use http::{HeaderValue, Method, StatusCode};
use oci::media_type::ManifestType;
use oci::platform::Platform;

use crate::client::{Pool, Request, Response};
use crate::digest::Check;
use crate::failure::Failure;
use crate::image::Image;
use crate::meter::{Meter, Pulled};
use crate::phase::Phase;
use crate::route::Route;

mod blob;
mod manifest;
pub(crate) mod sign_in;

pub(crate) use blob::LAYERS_AT_ONCE;
pub use blob::Layers;
pub use sign_in::{Login, SignIn};

/// The engine whose order of requests is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// dockerd: a ping, whose challenge is answered once for the whole pull.
    Docker,
    /// containerd: no ping. It asks for the tag without a token and answers the challenge. Its requests by digest do not
    /// share that token, so they are challenged once more.
    Containerd,
}

/// What is pulled.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The image.
    pub image: &'a Image,
    /// The entry of its index.
    pub platform: &'a Platform,
    /// How much of its layers.
    pub layers: Layers,
    /// The order of requests.
    pub order: Order,
}

/// The layers of an image.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// How many.
    pub layers: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Pulls once. The whole time counts from `intended`, or from now.
pub(crate) async fn pull(route: &Route, pool: &Pool, job: Job<'_>, intended: Option<Instant>) -> Pulled {
    let mut meter = Meter::default();
    let failure = measure(route, pool, job, intended, &mut meter).await.err();
    Pulled { meter, failure }
}

/// Pulls once without measuring, and tells how large the image is.
pub async fn inspect(route: &Route, pool: &Pool, job: Job<'_>) -> Result<Size, Failure> {
    measure(route, pool, job, None, &mut Meter::default()).await
}

async fn measure(
    route: &Route,
    pool: &Pool,
    job: Job<'_>,
    intended: Option<Instant>,
    meter: &mut Meter,
) -> Result<Size, Failure> {
    // docker has its credentials before a pull begins.
    let login = match &route.sign_in {
        Some(sign_in) => Some(sign_in.log_in().await.map_err(Failure::new)?),
        None => None,
    };
    let begun = intended.unwrap_or_else(Instant::now);
    let repository = format!("{}{}", route.prefix, job.image.repository());
    let mut session = Session { route, pool, repository, login, bearer: None };

    if job.order == Order::Docker {
        session.ping(meter).await?;
    }
    let digest = session.head(job.image.reference(), meter).await?;
    if job.order == Order::Containerd {
        session.bearer = None;
    }
    let manifest = session.manifest(&digest, job.platform, meter).await?;
    session.config(&manifest.config, meter).await?;
    session.layers(&manifest.layers, job.layers, meter).await?;
    meter.time(Phase::Whole, begun.elapsed());
    let bytes = manifest.layers.iter().map(|layer| layer.size).sum();
    Ok(Size { layers: manifest.layers.len(), bytes })
}

/// A pull under way.
struct Session<'a> {
    route: &'a Route,
    pool: &'a Pool,
    repository: String,
    /// Answers challenges; `None` on the proxy's side.
    login: Option<std::sync::Arc<dyn Login>>,
    bearer: Option<HeaderValue>,
}

impl Session<'_> {
    fn request<'t>(&'t self, method: Method, target: &'t str) -> Request<'t> {
        Request { bearer: self.bearer.clone(), ..Request::new(&self.route.origin, method, target) }
    }

    /// Resolves the tag.
    async fn head(&mut self, reference: &str, meter: &mut Meter) -> Result<String, Failure> {
        let target = format!("/v2/{}/manifests/{reference}", self.repository);
        let response = self.ask_manifest(Method::HEAD, &target, meter).await?;
        if response.status != StatusCode::OK {
            // A response to HEAD has no body; the same request as GET says why.
            let request =
                Request { accept: Some(ManifestType::ACCEPT_OF_ENGINES), ..self.request(Method::GET, &target) };
            let explained = self.pool.send(&request, &mut Meter::default()).await?;
            let same = explained.status == response.status;
            return Err(if same { explained.into_failure().await } else { response.into_failure().await });
        }
        let digest = response.header("docker-content-digest").map(str::to_owned);
        let digest = digest.ok_or_else(|| response.failure("200 without a Docker-Content-Digest"))?;
        meter.time(Phase::Head, response.latency());
        response.discard().await?;
        Ok(digest)
    }

    /// Reads a body to its end. It must have the digest by which it was requested.
    async fn content(
        &self,
        response: Response<'_>,
        digest: &str,
        limit: u64,
        mut take: impl FnMut(&[u8]),
    ) -> Result<u64, Failure> {
        let unknown = || response.failure(&format!("only sha256 and sha512 can be checked, and not {digest}"));
        let mut check = Check::of(digest).ok_or_else(unknown)?;
        let other = response.failure(&format!("the content is not {digest}"));
        let length = response
            .read(limit, |part| {
                check.update(part);
                take(part);
            })
            .await?;
        if check.holds() { Ok(length) } else { Err(other) }
    }
}
