//! The media types of manifests, and which of them a request accepts.
//!
//! Registries that descend from distribution, as ACR does, know no `*/*` in `Accept`, and no weight: a type that is not named is
//! not served. Here a weight of 0 counts, which says that the type is not wanted.

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

    /// The type with this name, in any letter case (RFC 9110 section 8.3.1), which may have parameters behind it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::named(split(name).0)
    }

    fn named(name: &str) -> Option<Self> {
        // Nearly all are written as they are here, which is compared sooner.
        let all = || Self::ALL.into_iter();
        all().find(|known| known.name() == name).or_else(|| all().find(|known| known.name().eq_ignore_ascii_case(name)))
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
        let named = types.filter_map(|name| {
            let (name, parameters) = split(std::str::from_utf8(name).ok()?);
            ManifestType::named(name).filter(|_| parameters.is_empty() || !is_unwanted(parameters))
        });
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

/// Its weight is 0 (RFC 9110 section 12.4.2).
fn is_unwanted(parameters: &str) -> bool {
    parameters.split(';').any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        name.trim().eq_ignore_ascii_case("q") && value.trim().parse().is_ok_and(|weight: f32| weight == 0.0)
    })
}

/// A media type and its parameters.
fn split(name: &str) -> (&str, &str) {
    let (name, parameters) = name.split_once(';').unwrap_or((name, ""));
    (name.trim(), parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_named_in_any_case_unless_their_weight_is_0() {
        let all = ManifestType::ALL;
        for (accept, expected) in [
            (&["*/*"][..], &[][..]),
            (&[], &[]),
            (&["application/json", "application/*"], &[]),
            (&[ManifestType::ACCEPT_ALL], &all[..]),
            (&["application/vnd.oci.image.index.v1+json;q=0.1 , */*"], &[ManifestType::OciIndex]),
            (&["text/plain", "application/vnd.docker.distribution.manifest.v2+json"], &[ManifestType::DockerManifest]),
            (&["application/vnd.oci.image.index.v1+jsonx"], &[]),
            (&["Application/Vnd.OCI.Image.Index.v1+JSON"], &[ManifestType::OciIndex]),
            (&["application/vnd.oci.image.index.v1+json;q=0"], &[]),
            (&["application/vnd.oci.image.index.v1+json; Q=0.000, */*"], &[]),
            (&["application/vnd.oci.image.index.v1+json;x=0;q=0.001"], &[ManifestType::OciIndex]),
        ] {
            let accepted = Accepted::parse(accept.iter().map(|value| value.as_bytes()));
            let found: Vec<_> = all.into_iter().filter(|known| accepted.includes(*known)).collect();
            assert_eq!(found, expected, "{accept:?}");
            assert_eq!(accepted.is_empty(), expected.is_empty(), "{accept:?}");
        }
    }
}
