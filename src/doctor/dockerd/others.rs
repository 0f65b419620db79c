//! Registries besides Docker Hub, by `hosts.toml`: pulls of dockerd 28 with containerd's store, and builds of any dockerd 28.

use oci::route::DOCKER_HUB;

use super::super::expected::{Expected, aside, by_hand, leftover};
use super::super::finding::{Examined, Finding, REGISTRIES, Way, listed};
use super::super::hosts_toml;
use super::{CERTS_D, Facts, READS_HOSTS_TOML};
use crate::client_config::Client;

/// Says what is wrong with the files, and where pulls go by them.
pub(super) fn others(facts: &Facts, expected: &Expected<'_>, found: &mut Examined) {
    // Which store it has, is known of one that runs.
    let reads = match facts.release() {
        Some(release) if release < READS_HOSTS_TOML => Some(false),
        Some(_) if facts.info.is_some() => Some(facts.has_containerds_store()),
        _ => None,
    };
    let builds_by_hosts_toml = facts.release() >= Some(READS_HOSTS_TOML);
    let fix = expected.write(Client::Docker, "");
    let mut past = Vec::new();
    for name in expected.names() {
        let directory = hosts_toml::of(&facts.certs, name);
        match (reads, directory) {
            // With daemon.json alone it pulls through the proxy as well.
            (Some(true), None) if name == DOCKER_HUB => {}
            (Some(true), Some(directory)) => {
                let (way, findings) = hosts_toml::judge(expected, name, directory, facts.reader(), &fix);
                if way != Way::Proxy {
                    found.ways.insert(name.to_owned(), way);
                }
                findings.into_iter().for_each(|finding| found.find(finding));
                if directory.is_denied() {
                    found.ways.remove(name);
                    continue;
                }
                found.ways.entry(name.to_owned()).or_insert(Way::Proxy);
                found.asked.extend(hosts_toml::url(expected, directory).map(|url| (name.to_owned(), url)));
            }
            (Some(true), None) => {
                found.find(hosts_toml::missing(&facts.certs, CERTS_D, &expected.here, name, fix.clone()));
                found.ways.insert(name.to_owned(), Way::Source);
            }
            _ if name == DOCKER_HUB => {}
            (Some(false), _) => {
                found.ways.insert(name.to_owned(), Way::Source);
                past.push(name);
            }
            (None, _) => {}
        }
        if reads == Some(false) && builds_by_hosts_toml {
            let (way, findings) = match directory {
                Some(directory) => hosts_toml::judge(expected, name, directory, facts.reader(), &fix),
                // Builds of images of Docker Hub come by daemon.json as well.
                None if name == DOCKER_HUB => (Way::Proxy, Vec::new()),
                None => {
                    let missing = hosts_toml::missing(&facts.certs, CERTS_D, &expected.here, name, fix.clone());
                    (Way::Source, vec![missing])
                }
            };
            for finding in findings {
                let comes = if way == Way::Nowhere { "is not to be had" } else { "comes from the source" };
                let why = format!("builds go by it, so what they need of {REGISTRIES} {comes}");
                found.find(Finding { why, ..finding.of(name) });
            }
        }
    }
    let others: Vec<_> = expected.names().into_iter().filter(|name| *name != DOCKER_HUB).collect();
    if reads.is_none() && facts.release().is_some() && !others.is_empty() {
        found.notes.push(format!(
            "where dockerd pulls {} from depends on its store, which is known of one that runs and can be asked",
            listed(&others)
        ));
    }
    if !past.is_empty() {
        let builds = if builds_by_hosts_toml { ", and what it builds comes through hosts.toml" } else { "" };
        found.notes.push(format!(
            "this dockerd has mirrors of docker.io alone: what it pulls of {} comes from the source{builds}",
            listed(&past)
        ));
        let closed: Vec<_> = past.into_iter().filter(|name| expected.is_closed(name)).collect();
        found.never_close(&closed, "and this dockerd pulls it from the source");
    }
    for directory in &facts.certs {
        let registry = hosts_toml::registry(&directory.name);
        if registry != "_default"
            && !expected.registries.contains_key(registry.as_str())
            && hosts_toml::is_ours(&expected.here, directory)
        {
            let fix = if hosts_toml::is_foreign(directory) {
                by_hand(aside(directory.path()))
            } else {
                expected.prune(Client::Docker, "")
            };
            found.find(leftover(directory.path(), &registry, fix));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::super::finding::Part;
    use super::*;
    use crate::client_config;
    use crate::config::{Config, Flags};
    use crate::host::Host;

    /// Of one that did not run the registries besides Docker Hub were left out, though its version says that it pulls them from the source.
    #[test]
    fn an_old_dockerd_that_does_not_run_is_known_to_pass_the_proxy() {
        let text = "routes:\n- {source: docker.io, domain: a.azurecr.io, prefix: hub}\n\
                    - {source: ghcr.io, domain: a.azurecr.io, prefix: ghcr, on_failure: closed}\n";
        let config = Config::load(&Flags::default().with_text(Path::new("a.yaml"), text)).expect("right");
        let expected = Expected::new(&config, None, "http://127.0.0.1:8080", false, &[]);
        let root = tempfile::tempdir().expect("a directory");
        for (installed, is_past) in [(Some("20.10.24+dfsg1"), true), (Some("28.5.1"), false), (None, false)] {
            let facts = Facts {
                settings: None,
                refusal: None,
                installed: installed.map(str::to_owned),
                unit: client_config::dockerd(&Host::new(root.path().to_owned())),
                certs: Vec::new(),
                runs: false,
                started: None,
                stopped: None,
                has_old_flags: false,
                is_this: true,
                silent: None,
                info: None,
                refusing: Vec::new(),
                seconds: Vec::new(),
            };
            let mut found = Examined::new(Part::Dockerd);
            others(&facts, &expected, &mut found);
            assert_eq!(found.ways.get("ghcr.io") == Some(&Way::Source), is_past, "{installed:?}: {found:?}");
            assert_eq!(found.never_closed.contains("ghcr.io"), is_past, "{installed:?}: {found:?}");
            // Nothing was said of them where a newer one does not run.
            let is_told = found
                .notes
                .iter()
                .any(|note| note.starts_with("where dockerd pulls ghcr.io from depends on its store"));
            assert_eq!(is_told, installed.is_some() && !is_past, "{installed:?}: {found:?}");
            assert_eq!(found.notes.len(), usize::from(is_told) + if is_past { 2 } else { 0 }, "{found:?}");
        }
    }
}
