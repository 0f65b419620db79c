//! The media types of manifests, and which of them a request accepts.
//!
//! Registries that descend from distribution, as ACR does, compare the names in `Accept` literally: `*/*` and `q=` count for
//! nothing there, and a type that is not named is not served.

/// The type of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestType {
    /// An OCI image manifest.
    OciManifest,
    /// An OCI image index.
    OciIndex,
    /// A Docker manifest, schema 2.
    DockerManifest,
    /// A Docker manifest list.
    DockerList,
    /// A Docker manifest, schema 1.
    Schema1,
    /// The same, signed.
    Schema1Signed,
}

impl ManifestType {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::OciManifest, Self::OciIndex, Self::DockerManifest, Self::DockerList, Self::Schema1, Self::Schema1Signed];
    /// An `Accept` that names all of them, so that the registry gives each manifest as it is and converts none.
    pub const ACCEPT_ALL: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
         application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
         application/vnd.docker.distribution.manifest.v1+prettyjws, application/vnd.docker.distribution.manifest.v1+json";

    /// The `Accept` of dockerd and containerd, which no longer name schema 1.
    pub const ACCEPT_OF_ENGINES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
         application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::OciManifest => "application/vnd.oci.image.manifest.v1+json",
            Self::OciIndex => "application/vnd.oci.image.index.v1+json",
            Self::DockerManifest => "application/vnd.docker.distribution.manifest.v2+json",
            Self::DockerList => "application/vnd.docker.distribution.manifest.list.v2+json",
            Self::Schema1 => "application/vnd.docker.distribution.manifest.v1+json",
            Self::Schema1Signed => "application/vnd.docker.distribution.manifest.v1+prettyjws",
        }
    }

    /// The type with this name, which may have parameters behind it.
    pub fn parse(name: &str) -> Option<Self> {
        let name = essence(name);
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// It names further manifests, one a platform.
    pub fn is_index(self) -> bool {
        matches!(self, Self::OciIndex | Self::DockerList)
    }
}

/// The manifest types that a request names in `Accept`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted(u8);

impl Accepted {
    /// Of the values of all `Accept` headers of a request.
    pub fn parse<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let types = values.flat_map(|value| value.split(|&byte| byte == b','));
        let named = types.filter_map(|name| ManifestType::parse(std::str::from_utf8(name).ok()?));
        Self(named.fold(0, |bits, named| bits | bit(named)))
    }

    /// None of them is named.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// This one is named.
    pub fn includes(self, named: ManifestType) -> bool {
        self.0 & bit(named) != 0
    }
}

fn bit(named: ManifestType) -> u8 {
    1 << named as u8
}

/// A media type without its parameters.
fn essence(name: &str) -> &str {
    name.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_named_literally() {
        let all = ManifestType::ALL;
        for (accept, expected) in [
            (&["*/*"][..], &[][..]),
            (&[], &[]),
            (&["application/json", "application/*"], &[]),
            (&[ManifestType::ACCEPT_ALL], &all[..]),
            (&["application/vnd.oci.image.index.v1+json;q=0.1 , */*"], &[ManifestType::OciIndex]),
            (&["text/plain", "application/vnd.docker.distribution.manifest.v2+json"], &[ManifestType::DockerManifest]),
            (&["application/vnd.oci.image.index.v1+jsonx"], &[]),
        ] {
            let accepted = Accepted::parse(accept.iter().map(|value| value.as_bytes()));
            let found: Vec<_> = all.into_iter().filter(|known| accepted.includes(*known)).collect();
            assert_eq!(found, expected, "{accept:?}");
            assert_eq!(accepted.is_empty(), expected.is_empty(), "{accept:?}");
        }
    }
}
