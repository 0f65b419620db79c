//! One pull on either side, in an engine's order: sign-in, HEAD, index, manifest, config, layers.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, StatusCode, header};
use ring::digest::{Context, SHA256};
use serde::Deserialize;

use super::connection::{Answer, Ask, Failure, Pool};
use super::direct::{Challenge, SignIn};
use super::image::Image;
use super::origin::Origin;
use super::phase::Phase;
use super::record::{Meter, Pulled};
use crate::secret::Secret;

/// dockerd's `max-concurrent-downloads` and containerd's default.
pub const LAYERS_AT_ONCE: usize = 3;
/// Manifests, indexes and configurations: what the distribution specification asks registries to take at least.
const MAX_DOCUMENT: u64 = 4 << 20;
/// Docker itself takes 127 at most.
const MAX_LAYERS: usize = 512;
/// From the registry to storage is one; a dedicated data endpoint may add one.
const MAX_REDIRECTS: usize = 3;
/// What dockerd and containerd understand.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// The two ways of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Through the proxy.
    Via,
    /// From the registry.
    Direct,
}

impl Side {
    /// The name in flags, tables and JSON.
    pub fn label(self) -> &'static str {
        match self {
            Self::Via => "via",
            Self::Direct => "direct",
        }
    }
}

/// How much of the layers is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// Nothing.
    None,
    /// Where they are, and HEAD there.
    Head,
    /// All bytes.
    Full,
}

/// What an index is searched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `os/architecture[/variant]`
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// `linux/amd64`, `linux/arm/v7`.
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<_> = text.split('/').collect();
        let valid = (2..=3).contains(&words.len())
            && words.iter().all(|word| {
                !word.is_empty()
                    && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            });
        valid.then(|| Self {
            os: words[0].to_owned(),
            architecture: words[1].to_owned(),
            variant: words.get(2).map(|&variant| variant.to_owned()),
        })
    }

    fn fits(&self, entry: &Entry) -> bool {
        entry.platform.as_ref().is_some_and(|platform| {
            platform.os == self.os
                && platform.architecture == self.architecture
                && self.variant.as_ref().is_none_or(|variant| platform.variant.as_ref() == Some(variant))
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// One side: whom to ask for which repositories, and how to sign in there.
pub struct Route {
    /// Which side it is.
    pub side: Side,
    /// The proxy or the registry.
    pub origin: Origin,
    /// What goes before a repository's name, with its slash, or nothing.
    pub prefix: String,
    /// `None` asks without credentials.
    pub sign_in: Option<SignIn>,
}

impl fmt::Display for Route {
    /// As a sentence about it begins: `via http://127.0.0.1:8080`, `direct example.azurecr.io`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.side {
            Side::Via => write!(f, "via {}", self.origin),
            Side::Direct => write!(f, "direct {}", self.origin.authority()),
        }
    }
}

/// How an engine goes about a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// dockerd: a ping, whose challenge is answered once for the whole pull.
    Docker,
    /// containerd: no ping. It asks for the tag without a token and answers the challenge; what fetches by digest then
    /// knows nothing of that token, so it is challenged once more.
    Containerd,
}

/// What is pulled, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct What<'a> {
    /// The image.
    pub image: &'a Image,
    /// Of its index, this.
    pub platform: &'a Platform,
    /// Of its layers, so much.
    pub layers: Layers,
    /// In this order.
    pub order: Order,
}

/// What an image turned out to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// Its layers.
    pub layers: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Pulls once. `intended` is when the pull was to begin; its whole time counts from there.
pub async fn pull(route: &Route, pool: &Pool, what: What<'_>, intended: Option<Instant>) -> Pulled {
    let mut meter = Meter::default();
    let failure = measure(route, pool, what, intended, &mut meter).await.err();
    Pulled { meter, failure }
}

/// The same once more for the preflight, which wants to know what the image is.
pub async fn look(route: &Route, pool: &Pool, what: What<'_>) -> Result<Size, Failure> {
    measure(route, pool, what, None, &mut Meter::default()).await
}

async fn measure(
    route: &Route,
    pool: &Pool,
    what: What<'_>,
    intended: Option<Instant>,
    meter: &mut Meter,
) -> Result<Size, Failure> {
    // docker has its credentials before it begins.
    let refresh_token = match &route.sign_in {
        Some(sign_in) => Some(sign_in.refresh_token().await?),
        None => None,
    };
    let begun = intended.unwrap_or_else(Instant::now);
    let repository = format!("{}{}", route.prefix, what.image.repository());
    let mut visit = Visit { route, pool, repository, refresh_token, bearer: None };

    if what.order == Order::Docker {
        visit.ping(meter).await?;
    }
    let digest = visit.head(what.image.reference(), meter).await?;
    if what.order == Order::Containerd {
        visit.bearer = None;
    }
    let manifest = visit.manifest(&digest, what.platform, meter).await?;
    visit.config(&manifest.config, meter).await?;
    visit.layers(&manifest.layers, what.layers, meter).await?;
    meter.time(Phase::Whole, begun.elapsed());
    let bytes = manifest.layers.iter().map(|layer| layer.size).sum();
    Ok(Size { layers: manifest.layers.len(), bytes })
}

/// An index or a manifest; which of them it is shows by what it has.
#[derive(Deserialize)]
struct Document {
    manifests: Option<Vec<Entry>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct Entry {
    digest: String,
    platform: Option<EntryPlatform>,
}

#[derive(Deserialize)]
struct EntryPlatform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
}

struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// One pull under way.
struct Visit<'a> {
    route: &'a Route,
    pool: &'a Pool,
    repository: String,
    /// What a challenge is answered with.
    refresh_token: Option<Secret>,
    bearer: Option<HeaderValue>,
}

impl Visit<'_> {
    fn ask<'t>(&'t self, method: Method, target: &'t str) -> Ask<'t> {
        Ask { bearer: self.bearer.clone(), ..Ask::new(&self.route.origin, method, target) }
    }

    async fn ping(&mut self, meter: &mut Meter) -> Result<(), Failure> {
        let answer = self.pool.ask(&self.ask(Method::GET, "/v2/"), meter).await?;
        if answer.status == StatusCode::OK {
            let sent = answer.sent;
            answer.discard().await?;
            meter.time(Phase::Ping, sent.elapsed());
            return Ok(());
        }
        let (challenge, took) = self.challenge(answer).await?;
        meter.time(Phase::Ping, took);
        let took = self.answer(&challenge, meter).await?;
        meter.time(Phase::Token, took);
        Ok(())
    }

    /// What an answer that is no success demands, and how long it took to say so.
    async fn challenge(&self, answer: Answer<'_>) -> Result<(Challenge, Duration), Failure> {
        if answer.status != StatusCode::UNAUTHORIZED || self.route.sign_in.is_none() {
            return Err(answer.refused().await);
        }
        let header = answer.header("www-authenticate").unwrap_or_default();
        let challenge = Challenge::parse(header, &self.route.origin).map_err(|wrong| answer.wrong(&wrong))?;
        let sent = answer.sent;
        answer.discard().await?;
        Ok((challenge, sent.elapsed()))
    }

    /// A token for the repository, and how long it took.
    async fn answer(&mut self, challenge: &Challenge, meter: &mut Meter) -> Result<Duration, Failure> {
        let (Some(sign_in), Some(refresh_token)) = (&self.route.sign_in, &self.refresh_token) else {
            return Ok(Duration::ZERO);
        };
        let (token, took) =
            sign_in.access(self.pool, challenge, &self.route.origin, &self.repository, refresh_token, meter).await?;
        let unsendable = || Failure::new("POST /oauth2/token: the token has a character that no header may carry");
        self.bearer = Some(token.to_bearer().ok_or_else(unsendable)?);
        Ok(took)
    }

    /// Asks for a manifest; whoever has no token yet answers the challenge and asks again.
    async fn ask_manifest<'t>(
        &mut self,
        method: Method,
        target: &'t str,
        meter: &mut Meter,
    ) -> Result<Answer<'t>, Failure>
    where
        Self: 't,
    {
        let ask = Ask { accept: Some(ACCEPT), ..self.ask(method.clone(), target) };
        let answer = self.pool.ask(&ask, meter).await?;
        let unsigned = self.bearer.is_none() && self.route.sign_in.is_some();
        if !unsigned || answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let (challenge, said) = self.challenge(answer).await?;
        let took = self.answer(&challenge, meter).await?;
        meter.time(Phase::Token, said + took);
        let ask = Ask { accept: Some(ACCEPT), ..self.ask(method, target) };
        self.pool.ask(&ask, meter).await
    }

    async fn head(&mut self, reference: &str, meter: &mut Meter) -> Result<String, Failure> {
        let target = format!("/v2/{}/manifests/{reference}", self.repository);
        let answer = self.ask_manifest(Method::HEAD, &target, meter).await?;
        if answer.status != StatusCode::OK {
            // A HEAD has no body; the same as GET says why.
            let ask = Ask { accept: Some(ACCEPT), ..self.ask(Method::GET, &target) };
            let said = self.pool.ask(&ask, &mut Meter::default()).await?;
            let same = said.status == answer.status;
            return Err(if same { said.refused().await } else { answer.refused().await });
        }
        let digest = answer.header("docker-content-digest").map(str::to_owned);
        let digest = digest.ok_or_else(|| answer.wrong("200 without a Docker-Content-Digest"))?;
        meter.time(Phase::Head, answer.took());
        answer.discard().await?;
        Ok(digest)
    }

    async fn manifest(&mut self, digest: &str, platform: &Platform, meter: &mut Meter) -> Result<Manifest, Failure> {
        let (document, took) = self.document(digest, meter).await?;
        let Some(entries) = &document.manifests else {
            meter.time(Phase::Manifest, took);
            return whole(document, digest);
        };
        meter.time(Phase::Index, took);
        let entry = entries.iter().find(|entry| platform.fits(entry));
        let entry = entry.ok_or_else(|| Failure::new(format!("{digest}: the index has no manifest for {platform}")))?;
        let (document, took) = self.document(&entry.digest, meter).await?;
        meter.time(Phase::Manifest, took);
        whole(document, &entry.digest)
    }

    async fn document(&mut self, digest: &str, meter: &mut Meter) -> Result<(Document, Duration), Failure> {
        let target = format!("/v2/{}/manifests/{digest}", self.repository);
        let answer = self.ask_manifest(Method::GET, &target, meter).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.refused().await);
        }
        let sent = answer.sent;
        let malformed = answer.wrong("200 with a body that is not the JSON of a manifest");
        let mut body = Vec::new();
        let length = self.content(answer, digest, MAX_DOCUMENT, |part| body.extend_from_slice(part)).await?;
        let took = sent.elapsed();
        meter.bytes += length;
        Ok((serde_json::from_slice(&body).map_err(|_| malformed)?, took))
    }

    /// Reads a body to its end; it has to have the digest that it was asked for by.
    async fn content(
        &self,
        answer: Answer<'_>,
        digest: &str,
        limit: u64,
        mut take: impl FnMut(&[u8]),
    ) -> Result<u64, Failure> {
        let mut context = Context::new(&SHA256);
        let other = answer.wrong(&format!("the content is not {digest}"));
        let length = answer
            .read(limit, |part| {
                context.update(part);
                take(part);
            })
            .await?;
        if digest.strip_prefix("sha256:") != Some(hex(context.finish().as_ref()).as_str()) {
            return Err(other);
        }
        Ok(length)
    }

    async fn config(&self, config: &Descriptor, meter: &mut Meter) -> Result<(), Failure> {
        let (answer, redirect) = self.blob(Method::GET, &config.digest, meter).await?;
        let sent = answer.sent;
        meter.bytes += self.content(answer, &config.digest, MAX_DOCUMENT, |_| {}).await?;
        meter.time(Phase::Config, redirect.unwrap_or_default() + sent.elapsed());
        Ok(())
    }

    /// All layers, [`LAYERS_AT_ONCE`] at a time. The first failure is the pull's, after what is under way has ended.
    async fn layers(&self, layers: &[Descriptor], how: Layers, meter: &mut Meter) -> Result<(), Failure> {
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
        let (answer, redirect) = self.blob(method, &layer.digest, meter).await?;
        if let Some(redirect) = redirect {
            meter.time(Phase::Redirect, redirect);
        }
        if how == Layers::Head {
            meter.time(Phase::FirstByte, answer.took());
            // A registry that does not redirect sends the layer; it is not read, and its connection not kept.
            return if redirect.is_some() { answer.discard().await } else { Ok(()) };
        }
        let sent = answer.sent;
        let mut first = None;
        let length = self
            .content(answer, &layer.digest, layer.size, |_| {
                first.get_or_insert_with(|| sent.elapsed());
            })
            .await?;
        meter.bytes += length;
        meter.speed(length, sent.elapsed());
        meter.time(Phase::FirstByte, first.unwrap_or_else(|| sent.elapsed()));
        Ok(())
    }

    /// Asks for a blob and follows to where it is, there by `method` and without credentials. Gives the answer that has
    /// the content, and how long the answers took that led there.
    async fn blob(
        &self,
        method: Method,
        digest: &str,
        meter: &mut Meter,
    ) -> Result<(Answer<'_>, Option<Duration>), Failure> {
        let target = format!("/v2/{}/blobs/{digest}", self.repository);
        let mut answer = self.pool.ask(&self.ask(Method::GET, &target), meter).await?;
        let mut led = None;
        for _ in 0..MAX_REDIRECTS {
            if !answer.status.is_redirection() {
                break;
            }
            *led.get_or_insert_default() += answer.took();
            let location = answer.header(header::LOCATION.as_str()).and_then(Origin::parse_url);
            let (origin, target) = location.ok_or_else(|| answer.wrong("a redirect to no http or https address"))?;
            answer.discard().await?;
            answer = self.pool.ask(&Ask::new(&origin, method.clone(), &target), meter).await?;
        }
        if answer.status != StatusCode::OK {
            return Err(answer.refused().await);
        }
        Ok((answer, led))
    }
}

fn whole(document: Document, digest: &str) -> Result<Manifest, Failure> {
    match (document.config, document.layers) {
        (Some(config), Some(layers)) if layers.len() <= MAX_LAYERS => Ok(Manifest { config, layers }),
        (Some(_), Some(layers)) => Err(Failure::new(format!("{digest}: {} layers are too many", layers.len()))),
        _ => Err(Failure::new(format!("{digest}: neither an index nor a manifest with a config and layers"))),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
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
            let found = entries.iter().find(|entry| platform.fits(entry)).map(|entry| entry.digest.as_str());
            assert_eq!(found, digest, "{text}");
        }
        for text in ["linux", "linux/", "Linux/amd64", "linux/arm/v7/x", ""] {
            assert!(Platform::parse(text).is_none(), "{text}");
        }
    }
}
