//! One route, asked for an image: its manifest, where one of its blobs is, and the first bytes from there.

use std::sync::Arc;

use http::StatusCode;
use oci::manifest::{Descriptor, Document, DocumentError, MAX_INDEXES, for_platform_and_indexes};
use oci::name::Prefix;
use oci::platform::Platform;
use oci::route::{Blobs, DOCKER_HUB, Source};
use tokio::time::Instant;

use super::images::Wanted;
use super::reach::Server;
use super::registry::{Ready, minutes};
use super::report::{Group, Hop, Kind, Status};
use super::steps::{Finding, Steps, Works};
use crate::answer::is_not_imported;
use crate::digest;
use crate::proxy::trial::{Answer, Trial, is_read_whole};
use crate::proxy::{BlobHosts, Destination, Refused, Storage, Target};
use crate::token::{Bearer, Issuer as _};

/// What comes behind a manifest.
const BEHIND: [Hop; 5] = [Hop::Blob, Hop::StorageDns, Hop::StorageTcp, Hop::StorageTls, Hop::Storage];
/// The longest code of storage has 44 letters.
const MAX_CODE: usize = 64;
/// What to do where a blob is gone.
const AGAIN: &str =
    "try again in a minute; if it stays, delete the image in the registry, so that the cache rule imports it once more";

/// A route, and the images that it is asked for.
pub(super) struct Route {
    pub source: Source,
    pub prefix: Prefix,
    pub destination: Arc<Destination>,
    /// Whose containers pull through this proxy can only be on this host.
    pub is_for_this_host: bool,
    /// Each as it is asked for.
    pub images: Vec<(Wanted, Target)>,
}

/// Tries a route with each of its images. `before` is where the way to its registry ended, and `reached` has the storage that
/// was reached.
pub(super) async fn route(
    route: &Route,
    ready: Option<&Ready>,
    before: Option<Hop>,
    reached: &mut Vec<(String, u16)>,
    until: Instant,
) -> Vec<Group> {
    let prefix = route.prefix.as_str();
    let slash = if prefix.is_empty() { "" } else { "/" };
    let name = format!("{} -> {}{slash}{prefix}", route.source, route.destination.upstream.domain.authority());
    let mut groups = Vec::new();
    if route.images.is_empty() {
        let mut steps = Steps::new(until);
        let text = format!("not tried: no image of {} is known to be there: name one with --image", route.source);
        steps.note(Hop::Manifest, Status::Skipped, text, None);
        groups.push(Group { kind: Kind::Route, name: name.clone(), lines: steps.lines });
    }
    for (wanted, target) in &route.images {
        let mut steps = Steps::new(until);
        steps.ended = before;
        match ready {
            Some(ready) => drop(Pull { route, ready, wanted }.go(target, &mut steps, reached).await),
            None => {
                steps.skip([Hop::Manifest].into_iter().chain(BEHIND));
            }
        }
        groups.push(Group { kind: Kind::Route, name: format!("{name}, by {}", wanted.image), lines: steps.lines });
    }
    groups
}

/// An image of a route.
struct Pull<'a> {
    route: &'a Route,
    ready: &'a Ready,
    wanted: &'a Wanted,
}

impl Pull<'_> {
    async fn go(&self, target: &Target, steps: &mut Steps, reached: &mut Vec<(String, u16)>) -> Option<()> {
        let bearer = match &self.ready.wildcard {
            Some(all) => Bearer::of(all, false),
            None => steps.step(Hop::Token, self.own_token(target.repository())).await,
        };
        let Some(bearer) = bearer else {
            steps.skip([Hop::Manifest].into_iter().chain(BEHIND));
            return None;
        };
        let trial = Trial::new(&self.route.destination, target.clone(), bearer);
        let Some((trial, blob)) = steps.step(Hop::Manifest, self.manifest(trial)).await else {
            steps.skip(BEHIND);
            return None;
        };
        let Some(storage) = steps.step(Hop::Blob, self.blob(&trial, &blob)).await else {
            steps.skip(BEHIND.into_iter().skip(1));
            return None;
        };
        let storage = storage?;
        let upstream = &self.route.destination.upstream;
        let (host, port) = (storage.host().to_owned(), storage.domain().port());
        let way = upstream.egress.way((&host, port), || upstream.storage_names.get(&host, port));
        let name = oci::authority::without_brackets(&host);
        let there = Server { way: &way, name, is_storage: true, only_warns: self.is_clients_matter() };
        if !reached.contains(&(host.clone(), port)) {
            if !there.reach(steps, &self.ready.roots).await {
                steps.skip([Hop::Storage]);
                return None;
            }
            reached.push((host, port));
        }
        steps.step(Hop::Storage, self.stored(&trial, &blob, storage)).await
    }

    /// Whether clients on other hosts fetch layers from storage by themselves: then it is their way that counts.
    fn is_clients_matter(&self) -> bool {
        self.route.destination.blobs == Blobs::Redirect && !self.route.is_for_this_host
    }

    async fn own_token(&self, repository: &str) -> Result<Works<Bearer>, Finding> {
        let granted = self.ready.issuer.access(&self.ready.login, repository).await.map_err(Finding::failed)?;
        let text = format!("a token for {repository}, for {}", minutes(granted.lifetime));
        let bearer = Bearer::of(&granted, true).ok_or_else(|| Finding::failed("a token that no header may carry"))?;
        Ok(Works::new(bearer, text))
    }

    /// The manifest, of any platform where there are several, and its smallest blob.
    async fn manifest(&self, trial: Trial) -> Result<Works<(Trial, Descriptor)>, Finding> {
        let mut trial = trial;
        let mut answer = trial.manifest(None).await.map_err(Finding::failed)?;
        let is_narrow = answer.status == StatusCode::UNAUTHORIZED && !trial.has_own_token();
        // As the proxy does, where the registry grants a token for all and then refuses it.
        if is_narrow && let Ok(own) = self.own_token(trial.repository()).await {
            trial = trial.with(own.result);
            answer = trial.manifest(None).await.map_err(Finding::failed)?;
        }
        let is_imported = !is_not_imported(&answer.headers);
        let mut document = self.document(&answer)?;
        let usual = Platform::parse("linux/amd64").ok();
        let mut indexes = 0;
        let manifest = loop {
            let entries = match document {
                Document::Manifest(manifest) => break manifest,
                Document::Index(entries) => entries,
            };
            indexes += 1;
            if indexes > MAX_INDEXES {
                let wrong = format!("more than {MAX_INDEXES} indexes in one another: name another image with --image");
                return Err(Finding::failed(wrong));
            }
            let entry = usual.as_ref().and_then(|usual| for_platform_and_indexes(&entries, usual).next());
            let Some(entry) = entry.or(entries.first()) else {
                return Err(Finding::failed("its index has no manifest in it"));
            };
            let answer = trial.manifest(Some(&entry.digest)).await.map_err(Finding::failed)?;
            document = self.document(&answer)?;
            if digest::is_of(&entry.digest, &answer.body) == Some(false) {
                return Err(Finding::failed(format!("a manifest that is not {}", entry.digest)));
            }
        };
        let layers = manifest.layers.into_iter().filter(|layer| layer.urls.is_empty());
        let blob = layers.chain([manifest.config]).min_by_key(|blob| blob.size);
        let Some(blob) = blob else { return Err(Finding::failed("a manifest without a blob")) };
        let from = if is_imported { "" } else { ", which the registry imports from its source now" };
        let text = format!("{}{from}", trial.repository());
        Ok(Works::new((trial, blob), text))
    }

    fn document(&self, answer: &Answer) -> Result<Document, Finding> {
        if answer.status != StatusCode::OK {
            return Err(self.refused(answer));
        }
        Document::parse(&answer.body).map_err(|what| {
            Finding::failed(match what {
                DocumentError::Schema1 => format!("{what}: name another image with --image"),
                _ => format!("200 with a body that is {what}: is a proxy or captive portal between?"),
            })
        })
    }

    /// Where a blob is; `None` if the registry serves it itself.
    async fn blob(&self, trial: &Trial, blob: &Descriptor) -> Result<Works<Option<Storage>>, Finding> {
        let answer = trial.blob(blob).await.map_err(Finding::failed)?;
        match answer.status {
            StatusCode::OK if answer.is_of(blob) => {
                return Ok(Works::new(None, "the registry serves it itself, without storage"));
            }
            StatusCode::OK => return Err(Finding::failed(other_than(blob, answer.status))),
            StatusCode::NOT_FOUND => {
                let said = answer.error();
                return Err(Finding::failed(format!(
                    "the registry has the manifest and not this blob of it: {AGAIN}: {said}"
                )));
            }
            status if !status.is_redirection() => return Err(self.refused(&answer)),
            _ => {}
        }
        let destination = &self.route.destination;
        let location = answer.headers.get(http::header::LOCATION).and_then(|location| location.to_str().ok());
        let hosts = match (destination.blobs, location.and_then(|location| location.parse::<http::Uri>().ok())) {
            // Clients follow wherever the registry leads them.
            (Blobs::Redirect, Some(location)) => {
                let host = location.authority().map(ToString::to_string).unwrap_or_default();
                &BlobHosts::new(destination.upstream.domain.host(), &[host])
            }
            _ => &destination.blob_hosts,
        };
        let storage = trial.storage(&answer, hosts).map_err(Finding::failed)?;
        let Some(storage) = storage else {
            return Err(Finding::failed(format!(
                "{} that leads to no storage: is a proxy between?",
                answer.status.as_u16()
            )));
        };
        let text = format!("redirected to {}", storage.domain().authority());
        Ok(Works::new(Some(storage), text))
    }

    async fn stored(&self, trial: &Trial, blob: &Descriptor, storage: Storage) -> Result<Works<()>, Finding> {
        let host = storage.host().to_owned();
        let wrong = match trial.stored(blob, storage).await {
            Ok(answer) if answer.status.is_success() && answer.is_of(blob) => {
                let how = if is_read_whole(blob) {
                    "it has come, and is what its digest says"
                } else {
                    "the first bytes have come"
                };
                return Ok(Works::new((), how));
            }
            Ok(answer) if answer.status.is_success() => {
                format!("blob storage {host}: {}", other_than(blob, answer.status))
            }
            Ok(answer) => storage_refuses(&host, &answer),
            Err(trouble) => trouble.to_string(),
        };
        let finding = Finding::failed(wrong);
        Err(if self.is_clients_matter() { finding.only_warns() } else { finding })
    }

    /// What an error of the registry's is about: what to do, and what it says itself.
    fn refused(&self, answer: &Answer) -> Finding {
        let Answer { status, headers, body, .. } = answer;
        let said = answer.error();
        let image = &self.wanted.image;
        let prefix = self.route.prefix.as_str();
        let advice = match status.as_u16() {
            401 | 403 => Refused::of(*status, headers, body).unwrap_or(Refused::Unclear).to_string(),
            404 => {
                let registry = self.route.destination.upstream.domain.host().split('.').next().unwrap_or_default();
                let is_named = self.wanted.is_named;
                let other = if is_named { "" } else { "; --image tries another one" };
                // A registry says the same of a tag that is nowhere and of a repository without a rule.
                let tag = if is_named { "there is no such tag or digest, or " } else { "" };
                let target = match prefix {
                    "" => "no prefix is set where the target of the cache rule has one".to_owned(),
                    prefix => format!("the prefix {prefix:?} is not the cache rule's target"),
                };
                let text = format!(
                    "{image}: {tag}{target}, or the rule does not cover the name: az acr cache list --registry {registry} shows the rules{other}: {said}"
                );
                // Rules for Docker Hub cover all of it, or at least its own images.
                let is_certain = is_named || self.route.source.registry() == DOCKER_HUB;
                return if is_certain { Finding::failed(text) } else { Finding::warning(text) };
            }
            424 => "the source of the cache rule failed: try again later".to_owned(),
            429 if Refused::is_about_rule(body) => {
                "the limit of the rule's source for the account of the credential set is reached: try again later"
                    .to_owned()
            }
            429 => "the limit of the registry's tier is reached: try again in a minute".to_owned(),
            500..=599 => "the registry has trouble: try again, and look at Azure's status".to_owned(),
            _ => "an answer that the protocol does not know: is a proxy between?".to_owned(),
        };
        Finding::failed(format!("{advice}: {said}"))
    }
}

/// That a body is not the blob.
fn other_than(blob: &Descriptor, status: StatusCode) -> String {
    format!("{} with a body that is not {}: is a proxy or captive portal between?", status.as_u16(), blob.digest)
}

/// What storage answers in place of a blob, and what to do.
fn storage_refuses(host: &str, answer: &Answer) -> String {
    let code = storage_code(&answer.body);
    let advice = match (answer.status.as_u16(), code) {
        (403, Some("AuthenticationFailed")) => {
            "the signature in the address is not valid, or not any more: try again in some minutes; if it stays, a proxy between changes the address"
        }
        (403, Some(_)) => {
            "the storage account denies this host: check service endpoint policies and firewall rules of its network"
        }
        (401 | 403 | 407, None) => "is a proxy or firewall between that does not allow this host?",
        (404, _) => AGAIN,
        (429 | 500..=599, _) => "storage limits requests or has trouble: try again in a minute",
        _ => "an answer that storage does not give: is a proxy between?",
    };
    let code = code.map(|code| format!(" {code}")).unwrap_or_default();
    format!("blob storage {host}: {}{code} to the registry's redirect: {advice}", answer.status.as_u16())
}

/// The code in the XML of an error of Azure's storage, a word in letters.
fn storage_code(body: &[u8]) -> Option<&str> {
    let (_, rest) = std::str::from_utf8(body).ok()?.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let is_word = (1..=MAX_CODE).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_word.then_some(code)
}
