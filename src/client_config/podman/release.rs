//! Releases of podman, which differ in what they read of the same host. buildah, skopeo and CRI-O have the same library, and do not tell
//! which release of it.

/// A release, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// As 4.3 is.
    Podman4,
    /// As 5 is.
    Podman5,
    /// Drop-ins may be in more directories, and of those with one name one counts; a user's own file hides none of them.
    Podman6,
}

impl Release {
    /// All that there are.
    pub(crate) const ALL: [Self; 3] = [Self::Podman4, Self::Podman5, Self::Podman6];

    /// Those that a version may behave as: of some, and where it is not known, it cannot be told which.
    pub(crate) fn of(version: Option<&str>) -> Vec<Self> {
        let numbers = version.and_then(|version| {
            let mut numbers = version.split(['.', '-', '~', '+']);
            Some((numbers.next()?.parse::<u32>().ok()?, numbers.next()?.parse::<u32>().ok()?))
        });
        match numbers {
            None => Self::ALL.to_vec(),
            Some((0..4, _) | (4, 0..=3)) => vec![Self::Podman4],
            Some((4, _)) => vec![Self::Podman4, Self::Podman5],
            Some((5, _)) => vec![Self::Podman5],
            Some(_) => vec![Self::Podman6],
        }
    }

    /// For sentences.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Podman4 => "4",
            Self::Podman5 => "5",
            Self::Podman6 => "6",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Release::{Podman4, Podman5, Podman6};
    use super::*;

    #[test]
    fn a_version_behaves_as_the_releases_that_it_may_be_like() {
        for (version, expected) in [
            (Some("3.4.4"), &[Podman4][..]),
            (Some("4.3.1"), &[Podman4]),
            (Some("4.9.3"), &[Podman4, Podman5]),
            (Some("5.8.2"), &[Podman5]),
            (Some("6.0-rc1"), &[Podman6]),
            (Some("6.1.1"), &[Podman6]),
            (Some("devel"), &Release::ALL),
            (None, &Release::ALL),
        ] {
            assert_eq!(Release::of(version), expected, "{version:?}");
        }
    }
}
