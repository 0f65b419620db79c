//! Requests to the proxy and to blob storage: one deadline each, answers within bounds, and what passes by itself is waited
//! out within bounds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header};
use oci::manifest::MAX_DOCUMENT;
use oci::media_type::ManifestType;
use oci::quote::registry_error;
use reqwest::{ClientBuilder, Url};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, sleep_until};

use super::failure::{self, Failure, Hop};
use super::{Layers, Options};
use crate::answer::{MAX_PAUSE, retry_after, with_causes};
use crate::net::addresses::{Names, Resolver};
use crate::net::trust::TrustRoots;
use crate::net::{self, client};

/// A whole request, from the connection to the last byte that is read. The proxy itself answers within 40 s, token and
/// look-up included.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// How often a request is sent in all.
pub(super) const TRIES: u32 = 5;
/// After this time without any answer but refusals that pass by themselves, nothing is repeated or begun any more: each
/// image of a long list would wait as long again. It is longer than two pauses.
pub(super) const STALLED: Duration = Duration::from_secs(180);
/// Between two requests to the proxy: 2,000 a minute. Each may be a read of the registry, which allows one identity 5,000 a
/// minute on its smaller tiers, and pulls go on meanwhile.
const SPACING: Duration = Duration::from_millis(30);
/// The body of an error or a redirect; real ones have hundreds of bytes.
const MAX_SMALL_BODY: usize = 64 << 10;

/// How much of an answer's body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// All of it, [`MAX_DOCUMENT`] at most.
    All,
    /// What comes first: one byte, and a second one if it has come with it, which tells that more than one was sent.
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
pub(super) const MANIFEST: &[(http::HeaderName, &str)] = &[(header::ACCEPT, ManifestType::ACCEPT_OF_ENGINES)];
/// Those of a request for one byte.
pub(super) const ONE_BYTE: &[(http::HeaderName, &str)] = &[(header::RANGE, "bytes=0-0")];

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// Why the request is not sent again, where that was thought of.
    pub given_up: Option<String>,
}

impl Answer {
    /// A header as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the proxy had it from an earlier request.
    fn is_kept(&self) -> bool {
        let status = self.header("cache-status").unwrap_or_default();
        let mut words = status.split(';').map(str::trim).skip(1);
        match words.next() {
            Some("hit") => true,
            // A fresh one in place of a stale one is stored.
            Some("fwd=stale") => words.all(|word| word != "stored"),
            _ => false,
        }
    }

    /// Whether it is an error in the form of the distribution specification, as the proxy answers.
    fn is_of_a_registry(&self) -> bool {
        registry_error(&self.body, &[]).0.is_some()
    }

    /// Whether asking again may help without anybody's doing.
    fn passes_by_itself(&self) -> bool {
        matches!(self.status.as_u16(), 429 | 502 | 503 | 504)
    }
}

/// Sends requests.
pub(super) struct Client {
    /// To the proxy, with the certificate that it may ask for.
    proxy: reqwest::Client,
    /// To storage.
    storage: reqwest::Client,
    via: Url,
    /// As it was written.
    address: String,
    /// When something was answered last.
    alive: Mutex<Instant>,
    /// When the next request may go to the proxy.
    next: Mutex<Instant>,
    pauses: AtomicUsize,
    /// Why a request was sent again, of the first one.
    repeated: OnceCell<String>,
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
        let names = Names::pull();
        let builder = || -> reqwest::Result<ClientBuilder> {
            let builder = client::builder(&roots, Resolver(Arc::clone(&names)))?;
            Ok(builder.user_agent(format!("{} warm", net::USER_AGENT)).timeout(REQUEST_LIMIT))
        };
        let storage = builder().and_then(ClientBuilder::build).map_err(failed)?;
        let proxy = match &options.presented {
            Some(presented) => {
                let tls = presented.client(&roots).map_err(|wrong| format!("warm: {wrong}"))?;
                let presenting = |builder: ClientBuilder| builder.tls_backend_preconfigured(tls).build();
                builder().and_then(presenting).map_err(failed)?
            }
            None => storage.clone(),
        };
        let via = Url::parse(&options.via).map_err(|cause| format!("warm: {}: {cause}", options.via))?;
        Ok(Self {
            proxy,
            storage,
            via,
            address: options.via.clone(),
            alive: Mutex::new(Instant::now()),
            next: Mutex::new(Instant::now()),
            pauses: AtomicUsize::new(0),
            repeated: OnceCell::new(),
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
        if url.origin() == self.via.origin() {
            let back =
                format!("a redirect back to {}, which is no blob storage: name the proxy with --via", self.address);
            return Err(Failure::content(&call.hop, &call.name, back));
        }
        let is_kept = match &call.hop {
            Hop::Proxy(_) => answer.is_kept(),
            Hop::Storage { is_kept, .. } => *is_kept,
        };
        let hop = Hop::Storage { host: url.host_str().unwrap_or_default().to_owned(), is_kept };
        // Storage that redirects is named by its host, and the request by what led to the first one.
        let name = match &call.hop {
            Hop::Proxy(_) => format!("{} where {} redirects to", call.method, call.name),
            Hop::Storage { .. } => call.name.clone(),
        };
        Ok(Call { hop, method: call.method.clone(), url, name, headers: &[], take: Take::All })
    }

    /// Whether there is a proxy that lets this host pull. It is asked once.
    pub(super) async fn find_proxy(&self) -> Result<(), Failure> {
        let call = self.to_proxy(Method::GET, "/v2/", None);
        let answer = self.once(&call).await?;
        match answer.status {
            StatusCode::OK => Ok(()),
            // Its own refusals: plain HTTP to TLS, `access`, and the limits, which let some through after a moment.
            StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN if answer.is_of_a_registry() => {
                Err(self.refused(&call, &answer))
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE if answer.is_of_a_registry() => Ok(()),
            status => Err(Failure::content(
                &call.hop,
                &call.name,
                format_args!("what answers is no acr-cache-proxy: name it with --via: {}", status.as_u16()),
            )),
        }
    }

    /// The answer, whatever its status. What passes by itself is asked for again, after the pause that the answer names or
    /// one of a second and longer.
    pub(super) async fn send(&self, call: &Call) -> Result<Answer, Failure> {
        let (begun, mut tries) = (Instant::now(), 0);
        loop {
            if matches!(call.hop, Hop::Proxy(_)) {
                sleep_until(self.slot()).await;
            }
            tries += 1;
            let mut outcome = self.once(call).await;
            let asked = match &outcome {
                Ok(answer) if !answer.passes_by_itself() => {
                    *lock(&self.alive) = Instant::now();
                    return outcome;
                }
                Ok(answer) => retry_after(&answer.headers),
                Err(failure) if failure.lasts() => return outcome,
                Err(_) => None,
            };
            let Some(pause) = pause(tries, asked).filter(|_| !self.is_stalled()) else {
                let why = given_up(tries, asked, begun.elapsed());
                match &mut outcome {
                    Ok(answer) => answer.given_up = Some(why),
                    Err(failure) => failure.give_up(why),
                }
                return outcome;
            };
            let why = || async {
                match &outcome {
                    Ok(answer) => self.explained(call, answer).await.to_string(),
                    Err(failure) => failure.to_string(),
                }
            };
            self.repeated.get_or_init(why).await;
            self.pauses.fetch_add(1, Ordering::Relaxed);
            sleep(pause).await;
            self.pauses.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// When the next request may go to the proxy.
    fn slot(&self) -> Instant {
        let mut next = lock(&self.next);
        let slot = (*next).max(Instant::now());
        *next = slot + SPACING;
        slot
    }

    /// The failure that an answer of another status is.
    pub(super) fn refused(&self, call: &Call, answer: &Answer) -> Failure {
        let mut failure = Failure::refused(&call.hop, &call.name, answer.status, &answer.headers, &answer.body);
        if let Some(why) = &answer.given_up {
            failure.give_up(why.clone());
        }
        failure
    }

    /// The same with the cause, which an answer to HEAD has no body for: the same request as GET has. It is sent once, and
    /// counts only if it was refused as well.
    pub(super) async fn explained(&self, call: &Call, answer: &Answer) -> Failure {
        if call.method != Method::HEAD {
            return self.refused(call, answer);
        }
        sleep_until(self.slot()).await;
        let Call { hop, url, name, headers, take, .. } = call;
        let (hop, url, name) = (hop.clone(), url.clone(), name.clone());
        let why = self.once(&Call { hop, method: Method::GET, url, name, headers, take: *take }).await.ok();
        let why = why.filter(|why| why.status == answer.status);
        let why = why.map(|why| Answer { given_up: answer.given_up.clone(), ..why });
        self.refused(call, why.as_ref().unwrap_or(answer))
    }

    /// Whether nothing was answered for so long that going on is of no use.
    pub(super) fn is_stalled(&self) -> bool {
        lock(&self.alive).elapsed() >= STALLED
    }

    /// Requests that wait to be sent again.
    pub(super) fn pauses(&self) -> usize {
        self.pauses.load(Ordering::Relaxed)
    }

    /// Why the first request that was sent again was.
    pub(super) fn repeated(&self) -> Option<&str> {
        self.repeated.get().map(String::as_str)
    }

    async fn once(&self, call: &Call) -> Result<Answer, Failure> {
        let failed = |cause| Failure::unreachable(&call.hop, &call.name, cause);
        let http = if matches!(call.hop, Hop::Proxy(_)) { &self.proxy } else { &self.storage };
        let mut request = http.request(call.method.clone(), call.url.clone());
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
                body.extend(part.iter().take(2));
                if body.is_empty() { continue } else { break }
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
        Ok(Answer { status, headers, body, given_up: None })
    }
}

/// No panic leaves an instant half changed.
fn lock(instant: &Mutex<Instant>) -> MutexGuard<'_, Instant> {
    instant.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long to wait after so many tries: as long as the answer asks for, or twice as long each time. `None` if that is too
/// long, or was the last try.
fn pause(tries: u32, asked: Option<Duration>) -> Option<Duration> {
    let pause = asked.unwrap_or(Duration::from_secs(1 << tries.saturating_sub(1).min(5)));
    (tries < TRIES && pause <= MAX_PAUSE).then_some(pause)
}

/// Why there is no further try after so many, and after this time.
fn given_up(tries: u32, asked: Option<Duration>, took: Duration) -> String {
    match asked.filter(|asked| *asked > MAX_PAUSE) {
        Some(asked) => {
            format!(
                "not sent again, because it asks for a pause of {} s: the longest is {} s",
                asked.as_secs(),
                MAX_PAUSE.as_secs()
            )
        }
        None if tries >= TRIES => format!("sent {TRIES} times in {} s", took.as_secs()),
        None => format!("not sent again, because nothing was answered for {} s", STALLED.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Platforms;
    use super::*;

    fn client() -> Client {
        client_of("http://127.0.0.1:8080")
    }

    fn client_of(via: &str) -> Client {
        let options = Options {
            images: Vec::new(),
            platforms: Platforms::All,
            signatures: false,
            layers: Layers::Head,
            via: via.to_owned(),
            ca_file: None,
            presented: None,
        };
        Client::new(&options).expect("a client")
    }

    #[test]
    fn a_pause_is_what_the_answer_asks_for_within_bounds() {
        for (tries, asked, expected) in [
            (1, None, Some(1)),
            (2, None, Some(2)),
            (4, None, Some(8)),
            (5, None, None),
            (1, Some(0), Some(0)),
            (4, Some(60), Some(60)),
            (5, Some(0), None),
            (1, Some(61), None),
        ] {
            let seconds = Duration::from_secs;
            assert_eq!(pause(tries, asked.map(seconds)), expected.map(seconds), "{tries} {asked:?}");
        }
    }

    /// It ended after 15 s with the cause alone, although it had said that it waits for 180 s.
    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_given_up_says_why() {
        // It has the port and does not listen.
        let silent = tokio::net::TcpSocket::new_v4().expect("a socket");
        silent.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let via = format!("http://{}", silent.local_addr().expect("an address"));
        let client = client_of(&via);
        let call = client.to_proxy(Method::GET, "/v2/", None);
        let said = client.send(&call).await.expect_err("nobody is there").to_string();
        assert!(said.starts_with(&format!("proxy {via}: GET /v2/: sent 5 times in 15 s: start it, or ")), "{said}");
        tokio::time::advance(STALLED).await;
        let said = client.send(&call).await.expect_err("nobody is there").to_string();
        assert!(
            said.contains(": GET /v2/: not sent again, because nothing was answered for 180 s: start it"),
            "{said}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_is_stalled_when_nothing_was_answered_for_longer_than_two_pauses() {
        let client = client();
        tokio::time::advance(2 * MAX_PAUSE).await;
        assert!(!client.is_stalled());
        tokio::time::advance(STALLED - 2 * MAX_PAUSE).await;
        assert!(client.is_stalled());
    }

    /// ACR allows one identity 5,000 reads a minute on Basic and Standard; pulls need the rest.
    #[tokio::test(start_paused = true)]
    async fn a_run_leaves_more_than_half_of_the_smallest_registry_to_others() {
        let client = client();
        let begun = Instant::now();
        let last = (0..2_000).map(|_| client.slot()).last().expect("2,000");
        assert!(last - begun > Duration::from_secs(59), "{:?}", last - begun);
        // What is not used is not saved up.
        tokio::time::advance(Duration::from_secs(600)).await;
        let slots: Vec<_> = (0..2).map(|_| client.slot()).collect();
        assert_eq!(slots, [Instant::now(), Instant::now() + SPACING]);
    }
}
