//! `/cache/purge`: forgets what is kept of an image.

use http::StatusCode;
use log::info;
use oci::image::Image;
use oci::name::Repository;
use serde_json::json;

use super::named::{self, Choice};
use super::{Reply, State};
use crate::cache::{KeyRef, Part, Purged};
use crate::proxy::{parts_within, upstreams};

/// How an image is named.
const USE: &str = "use POST /cache/purge?image=docker.io/library/nginx:1.27";

/// Forgets what the query names: `image=` and an image as clients name it. Answers with the registry, the repository there,
/// how many entries it was, and how many requests are under way whose answers will not be kept. What other identities have
/// fetched from the repository is forgotten as well: it is the same image.
pub(super) fn purge(state: &State, query: &str) -> Reply {
    named::image(query, USE)
        .and_then(|image| named::choose(&state.routes.load(), &image).map(|choice| forget(state, &image, &choice)))
        .unwrap_or_else(|wrong| wrong)
}

/// Forgets an image of which the route is known.
fn forget(State { routes: live, cache, .. }: &State, image: &Image, choice: &Choice<'_>) -> Reply {
    let upstream = &choice.route.destination.upstream;
    let meant = Meant::new(&choice.repository, image.tag(), image.digest());
    let mut purged = Purged::default();
    if let Some(cache) = cache.get() {
        for known in upstreams(live).iter().filter(|known| known.domain == upstream.domain) {
            let blob = meant.digest.as_ref().map(|digest| format!("/v2/{}/blobs/{digest}", meant.repository));
            let configuration =
                blob.as_deref().map(|path| KeyRef { registry: known.number, part: Part::Configuration, path });
            // That a blob is one only its manifest tells, which stays.
            let configuration = configuration.filter(|key| cache.peek(key).is_some());
            purged += cache.purge(known.number, |path, content| {
                meant.includes(path, content.map(|content| content.digest.as_deref().unwrap_or_default()))
            });
            if let Some(key) = configuration {
                cache.remember(&key);
            }
        }
    }
    let Purged { entries, flights } = purged;
    let (domain, repository) = (upstream.domain.authority(), &meant.repository);
    info!(
        "acr {domain}: {image} is forgotten by request: {entries} entries of {repository}, and {flights} requests under way"
    );
    let body = json!({
        "entries": entries,
        "image": image.to_string(),
        "registry": domain,
        "repository": repository,
        "under_way": flights,
    });
    Reply::json(StatusCode::OK, &body)
}

/// What is to be forgotten, as paths of the registry's API.
struct Meant {
    /// Its whole name in the registry.
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Meant {
    fn new(repository: &Repository<'_>, tag: Option<&str>, digest: Option<&str>) -> Self {
        let mut name = String::new();
        repository.push_to(&mut name);
        Self { repository: name, tag: tag.map(str::to_owned), digest: digest.map(str::to_owned) }
    }

    /// Whether an entry under this path and query is one of these: without tag and digest all of the repository; of a tag
    /// what it stands for, and the lists that it may be on; of a digest the manifest or the blob, what refers to it, and the tags that
    /// serve it: those whose content has it. A flight has none yet, so one for any tag may bring it.
    fn includes(&self, path: &str, content: Option<&str>) -> bool {
        let Some((endpoint, reference)) = parts_within(path, &self.repository) else { return false };
        if self.tag.is_none() && self.digest.is_none() {
            return true;
        }
        let is = |meant: &Option<String>| meant.as_deref() == Some(reference);
        match endpoint {
            "manifests" => {
                let may_serve_it = self.digest.is_some() && !reference.contains(':');
                let serves_it = content.map_or(may_serve_it, |content| self.digest.as_deref() == Some(content));
                is(&self.tag) || is(&self.digest) || serves_it
            }
            "blobs" | "referrers" => is(&self.digest),
            "tags" => self.tag.is_some(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_image_its_own_entries_are_forgotten_and_no_others() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let meant = |tag, digest| Meant::new(&Repository::new("hub", true, "nginx"), tag, digest);
        let (all, tag, by_digest, both) = (
            meant(None, None),
            meant(Some("1.27"), None),
            meant(None, Some(digest.as_str())),
            meant(Some("1.27"), Some(digest.as_str())),
        );
        assert_eq!(all.repository, "hub/library/nginx");
        let of_digest = |endpoint: &str| format!("/v2/hub/library/nginx/{endpoint}/{digest}");
        for (path, expected) in [
            ("/v2/hub/library/nginx/manifests/1.27".to_owned(), [true, true, true, true]),
            ("/v2/hub/library/nginx/manifests/1.28".to_owned(), [true, false, true, true]),
            (of_digest("manifests"), [true, false, true, true]),
            (of_digest("blobs"), [true, false, true, true]),
            (of_digest("referrers") + "?artifactType=a%2Fb", [true, false, true, true]),
            ("/v2/hub/library/nginx/tags/list".to_owned(), [true, true, false, true]),
            ("/v2/hub/library/nginx/tags/list?n=100&last=1/2".to_owned(), [true, true, false, true]),
            ("/v2/hub/library/nginx-unprivileged/manifests/1.27".to_owned(), [false; 4]),
            ("/v2/hub/library/nginx/manifests/manifests/1.27".to_owned(), [false; 4]),
            ("/v2/hub/library/nginx/x/tags/list".to_owned(), [false; 4]),
            ("/v2/hub/nginx/manifests/1.27".to_owned(), [false; 4]),
            ("/v2/other/hub/library/nginx/manifests/1.27".to_owned(), [false; 4]),
        ] {
            let found = [&all, &tag, &by_digest, &both].map(|meant| meant.includes(&path, None));
            assert_eq!(found, expected, "{path}");
        }
        let (path, other) = ("/v2/hub/library/nginx/manifests/1.28", format!("sha256:{}", "cd".repeat(32)));
        for (content, expected) in [(&digest, [true, false, true, true]), (&other, [true, false, false, false])] {
            let found = [&all, &tag, &by_digest, &both].map(|meant| meant.includes(path, Some(content)));
            assert_eq!(found, expected, "a tag that serves {content}");
        }
    }
}
