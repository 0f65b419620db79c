//! What is asked of the registry: the client's request, admitted and put in the registry's names.

use super::endpoint::Endpoint;
use oci::name::Repository;
use oci::request::Pull;

/// `/v2/` comes before every repository name.
const NAME_START: usize = 4;

/// The admitted request. It never changes, however often it is sent.
#[derive(Clone)]
pub(crate) struct Target {
    endpoint: Endpoint,
    /// Path and query in the registry.
    path: String,
    /// Length of the repository's name in `path`.
    name_length: usize,
    /// Length of the route's prefix, with which that name begins.
    prefix_length: usize,
    /// Length of the client's name for it, in the path of its own request.
    client_name_length: usize,
}

impl Target {
    /// The request as parsed, for this repository of the registry. Allocates the path and nothing else.
    pub(crate) fn new(pull: &Pull<'_>, repository: &Repository<'_>) -> Self {
        Self {
            endpoint: Endpoint::of(&pull.resource),
            path: pull.upstream_target(repository),
            name_length: repository.len(),
            prefix_length: repository.prefix_len(),
            client_name_length: pull.name.as_str().len(),
        }
    }

    /// Which part of the API it is for.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Path and query in the registry.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The repository's whole name in the registry, prefix included.
    pub(crate) fn repository(&self) -> &str {
        self.path.get(NAME_START..NAME_START + self.name_length).unwrap_or_default()
    }

    /// The path without `/v2` and the route's prefix, as in `/library/busybox/manifests/latest`: after the route's source it is the
    /// client's name. What is counted by it goes on when a reload gives the route another prefix.
    pub(crate) fn below_source(&self) -> &str {
        let from = if self.prefix_length == 0 { NAME_START - 1 } else { NAME_START + self.prefix_length };
        self.path.get(from..).unwrap_or_default()
    }

    /// The tag or digest of a manifest, the digest of a blob; empty for a list.
    pub(crate) fn reference(&self) -> &str {
        let rest = self.path.get(NAME_START + self.name_length..).unwrap_or_default();
        let rest = rest.strip_prefix("/manifests/").or_else(|| rest.strip_prefix("/blobs/"));
        rest.unwrap_or_default()
    }

    /// It names its content itself. No tag has a colon.
    pub(crate) fn is_by_digest(&self) -> bool {
        self.reference().contains(':')
    }

    /// The path of another manifest in the same repository.
    pub(crate) fn manifest_path(&self, reference: &str) -> String {
        format!("/v2/{}/manifests/{reference}", self.repository())
    }

    /// A manifest of the same repository.
    pub(crate) fn manifest(&self, digest: &str) -> Self {
        Self { endpoint: Endpoint::Manifest, path: self.manifest_path(digest), ..*self }
    }

    /// A blob of the same repository.
    pub(crate) fn blob(&self, digest: &str) -> Self {
        let path = format!("/v2/{}/blobs/{digest}", self.repository());
        Self { endpoint: Endpoint::Blob, path, ..*self }
    }

    /// Whether a path and query of the registry's API are of the same repository.
    pub(crate) fn shares_repository(&self, path: &str) -> bool {
        parts_within(path, self.repository()).is_some()
    }

    /// The repository's name as the client writes it, cut from the path of its request.
    pub(crate) fn client_name<'a>(&self, client_path: &'a str) -> &'a str {
        client_path.get(NAME_START..NAME_START + self.client_name_length).unwrap_or_default()
    }
}

/// Endpoint and reference of a path of the registry's API, if it is one of this repository, whole name: `manifests` and a tag
/// or digest, `tags` and `list`. The names of other repositories may go on with the same words.
pub(crate) fn parts_within<'a>(path: &'a str, repository: &str) -> Option<(&'a str, &'a str)> {
    let path = path.split('?').next()?;
    let rest = path.strip_prefix("/v2/")?.strip_prefix(repository)?.strip_prefix('/')?;
    rest.split_once('/').filter(|(_, reference)| !reference.contains('/'))
}
