//! Which part of the pull API a request is for, and what that means on its way through the proxy.

use oci::request::Resource;

/// The part of the API, decided once, when the request is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `/v2/<name>/manifests/<reference>`
    Manifest,
    /// `/v2/<name>/blobs/<digest>`
    Blob,
    /// `/v2/<name>/tags/list`
    Tags,
    /// `/v2/<name>/referrers/<digest>`
    Referrers,
}

impl Endpoint {
    /// The one that a parsed request is for.
    pub(crate) fn of(resource: &Resource<'_>) -> Self {
        match resource {
            Resource::Manifest(_) => Self::Manifest,
            Resource::Blob(_) => Self::Blob,
            Resource::Tags(_) => Self::Tags,
            Resource::Referrers(..) => Self::Referrers,
        }
    }

    /// Lists come in pages. The registry is asked for a whole page without compression, so that it can be read here.
    pub(crate) fn is_list(self) -> bool {
        matches!(self, Self::Tags | Self::Referrers)
    }

    /// The body of a good answer contains the repository's name.
    pub(crate) fn names_repository(self) -> bool {
        self == Self::Tags
    }

    /// The content may be in blob storage, to which the registry redirects, and clients may fetch it in ranges.
    pub(crate) fn is_blob(self) -> bool {
        self == Self::Blob
    }

    /// The first request of a pull: a client that fails here can turn to its next endpoint.
    pub(crate) fn starts_pull(self) -> bool {
        self == Self::Manifest
    }
}
