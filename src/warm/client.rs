//! Requests to the proxy and to blob storage: one deadline each, answers within bounds, and what passes by itself is waited
//! out within bounds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header};
use oci::manifest::MAX_DOCUMENT;
use reqwest::Url;
use tokio::time::{Instant, sleep};

use super::failure::{self, Failure, Hop};
use super::{Layers, Options};
use crate::answer::{retry_after, with_causes};
use crate::net::addresses::{Names, Resolver};
use crate::net::client;
use crate::net::trust::TrustRoots;

/// A whole request, from the connection to the last byte that is read. The proxy itself answers within 40 s, token and
/// look-up included.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// How often a request is sent in all.
const TRIES: u32 = 5;
/// The longest pause between two of them: a registry's `Retry-After` counts down from 60 s.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// After this time without any answer but refusals that pass by themselves, nothing is repeated or begun any more: each
/// image of a long list would wait as long again. It is longer than two pauses.
pub(super) const STALLED: Duration = Duration::from_secs(180);
/// The body of an error or a redirect; real ones have hundreds of bytes.
const MAX_SMALL_BODY: usize = 64 << 10;
/// The media types that an engine names, and by which the proxy keeps manifests.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// How much of an answer's body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// All of it, [`MAX_DOCUMENT`] at most.
    All,
    /// What comes first.
    FirstByte,
}

/// A request, without anything that a client could be known by.
#[derive(Debug)]
pub(super) struct Call {
    pub hop: Hop,
    pub method: Method,
    pub url: Url,
    /// Its name in sentences.
    pub name: String,
    pub headers: &'static [(http::HeaderName, &'static str)],
    pub take: Take,
}

/// The headers of a request for a manifest.
pub(super) const MANIFEST: &[(http::HeaderName, &str)] = &[(header::ACCEPT, ACCEPT)];
/// Those of a request for one byte.
pub(super) const ONE_BYTE: &[(http::HeaderName, &str)] = &[(header::RANGE, "bytes=0-0")];

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// A header as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether asking again may help without anybody's doing.
    fn passes_by_itself(&self) -> bool {
        matches!(self.status.as_u16(), 429 | 502 | 503 | 504)
    }
}

/// Sends requests.
pub(super) struct Client {
    http: reqwest::Client,
    via: Url,
    /// As it was written.
    address: String,
    alive: Mutex<Instant>,
    pauses: AtomicUsize,
}

impl Client {
    /// CA certificates are needed only for TLS, which storage speaks.
    pub(super) fn new(options: &Options) -> Result<Self, String> {
        // reqwest takes the process's provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let needs_tls = options.layers == Layers::FirstByte || options.via.starts_with("https://");
        let roots = if needs_tls || options.ca_file.is_some() {
            TrustRoots::load(options.ca_file.as_deref()).map_err(|cause| format!("warm: {cause}"))?
        } else {
            TrustRoots::none()
        };
        let failed = |cause: reqwest::Error| format!("warm: TLS client: {}", with_causes(&cause));
        let builder = client::builder(&roots, Resolver(Names::pull())).map_err(failed)?;
        let name = concat!("acr-cache-proxy/", env!("CARGO_PKG_VERSION"), " warm");
        let http = builder.user_agent(name).timeout(REQUEST_LIMIT).build().map_err(failed)?;
        let via = Url::parse(&options.via).map_err(|cause| format!("warm: {}: {cause}", options.via))?;
        Ok(Self {
            http,
            via,
            address: options.via.clone(),
            alive: Mutex::new(Instant::now()),
            pauses: AtomicUsize::new(0),
        })
    }

    /// A request to the proxy. The path needs no encoding, and neither does the query.
    pub(super) fn to_proxy(&self, method: Method, path: &str, query: Option<&str>) -> Call {
        let mut url = self.via.clone();
        url.set_path(path);
        url.set_query(query);
        let hop = Hop::Proxy(self.address.clone());
        Call { hop, name: failure::request(&method, path), method, url, headers: &[], take: Take::All }
    }

    /// A request to where an answer redirects. It has nothing of the first one's but the method.
    pub(super) fn to_location(&self, call: &Call, answer: &Answer) -> Result<Call, Failure> {
        let location = answer.header(header::LOCATION.as_str()).and_then(|location| call.url.join(location).ok());
        let location = location.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = location
            .ok_or_else(|| Failure::content(&call.hop, &call.name, "a redirect to no http or https address"))?;
        let hop = Hop::Storage(url.host_str().unwrap_or_default().to_owned());
        let name = format!("{} where {} redirects to", call.method, call.name);
        Ok(Call { hop, method: call.method.clone(), url, name, headers: &[], take: Take::All })
    }

    /// Whether there is a proxy. It is asked once.
    pub(super) async fn find_proxy(&self) -> Result<(), Failure> {
        let call = self.to_proxy(Method::GET, "/v2/", None);
        let answer = self.once(&call).await?;
        match answer.status {
            StatusCode::OK => Ok(()),
            status => Err(Failure::content(
                &call.hop,
                &call.name,
                format_args!("this is no proxy of ours: name one with --via: {}", status.as_u16()),
            )),
        }
    }

    /// The answer, whatever its status. What passes by itself is asked for again, after the pause that the answer names or
    /// one of a second and longer.
    pub(super) async fn send(&self, call: &Call) -> Result<Answer, Failure> {
        let mut pause = Duration::from_secs(1);
        for tries in 1.. {
            let outcome = self.once(call).await;
            let asked = match &outcome {
                Ok(answer) if !answer.passes_by_itself() => {
                    *self.alive() = Instant::now();
                    return outcome;
                }
                Ok(answer) => retry_after(&answer.headers),
                Err(_) => None,
            };
            let wait = asked.unwrap_or(pause);
            if tries == TRIES || wait > MAX_PAUSE || self.is_stalled() {
                return outcome;
            }
            self.pauses.fetch_add(1, Ordering::Relaxed);
            sleep(wait).await;
            self.pauses.fetch_sub(1, Ordering::Relaxed);
            pause *= 2;
        }
        unreachable!("the loop ends with its last try")
    }

    /// The failure that an answer of another status is.
    pub(super) fn refused(&self, call: &Call, answer: &Answer) -> Failure {
        Failure::refused(&call.hop, &call.name, answer.status, &answer.headers, &answer.body)
    }

    /// Whether nothing was answered for so long that going on is of no use.
    pub(super) fn is_stalled(&self) -> bool {
        self.alive().elapsed() >= STALLED
    }

    /// Requests that wait to be sent again.
    pub(super) fn pauses(&self) -> usize {
        self.pauses.load(Ordering::Relaxed)
    }

    async fn once(&self, call: &Call) -> Result<Answer, Failure> {
        let failed = |cause| Failure::unreachable(&call.hop, &call.name, cause);
        let mut request = self.http.request(call.method.clone(), call.url.clone());
        for (name, value) in call.headers {
            request = request.header(name, *value);
        }
        let mut response = request.send().await.map_err(failed)?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let is_wanted = status.is_success();
        let limit = if is_wanted { MAX_DOCUMENT } else { MAX_SMALL_BODY };
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(failed)? {
            if is_wanted && call.take == Take::FirstByte {
                break;
            }
            if body.len() + part.len() > limit {
                if is_wanted {
                    let what = format!("the content is longer than {limit} bytes");
                    return Err(Failure::content(&call.hop, &call.name, what));
                }
                break;
            }
            body.extend_from_slice(&part);
        }
        Ok(Answer { status, headers, body })
    }

    fn alive(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
