//! What several releases of podman make of one host, taken together.

use super::Release;
use crate::doctor::finding::{Examined, Finding, Way, listed};

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
        found.asked.extend(examined.asked);
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
