//! Releases of podman, which differ in what they read of the same host. buildah, skopeo and CRI-O have the same library, and do not tell
//! which release of it.

use crate::doctor::finding::{Examined, Finding, Way, listed};

/// A release, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::doctor) enum Release {
    /// As 4.3 is.
    Podman4,
    Podman5,
    /// Drop-ins may be in more directories, and of those with one name one counts; a user's own file hides none of them.
    Podman6,
}

impl Release {
    const ALL: [Self; 3] = [Self::Podman4, Self::Podman5, Self::Podman6];

    /// Those that a version may behave as: of some, and where it is not known, it cannot be told which.
    pub(in crate::doctor) fn of(version: Option<&str>) -> Vec<Self> {
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

    fn name(self) -> &'static str {
        match self {
            Self::Podman4 => "4",
            Self::Podman5 => "5",
            Self::Podman6 => "6",
        }
    }
}

/// Adds what several releases make of one host. What not all of them do is told with their names, and of where pulls go the worst.
pub(super) fn add(judged: Vec<(Release, Examined)>, found: &mut Examined) {
    let count = judged.len();
    let mut findings: Vec<(Finding, Vec<&str>)> = Vec::new();
    for (release, examined) in judged {
        for finding in examined.findings {
            match findings.iter_mut().find(|(known, _)| *known == finding) {
                Some((_, releases)) => releases.push(release.name()),
                None => findings.push((finding, vec![release.name()])),
            }
        }
        for note in examined.notes {
            if !found.notes.contains(&note) {
                found.notes.push(note);
            }
        }
        found.is_blind |= examined.is_blind;
        for (registry, way) in examined.ways {
            let worst = found.ways.entry(registry).or_insert(way);
            *worst = match (*worst, way) {
                (Way::Nowhere, _) | (_, Way::Nowhere) => Way::Nowhere,
                (Way::Source, _) | (_, Way::Source) => Way::Source,
                (Way::Proxy, Way::Proxy) => Way::Proxy,
            };
        }
    }
    for (mut finding, releases) in findings {
        if releases.len() < count {
            finding.text += &format!(" (by the rules of podman {})", listed(&releases));
        }
        found.find(finding);
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
