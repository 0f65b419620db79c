//! Engines that do not run because their service has failed.

use super::ask;
use super::expected::by_hand;
use super::finding::{Code, Examined, Finding, Part, Way};
use crate::host::Host;
use crate::installed::runs_systemd;

/// Asks systemd of the service of each engine that does not run.
pub(super) async fn find(host: &Host, parts: &mut [Examined]) {
    // In a tree without it, systemctl does nothing and ends well.
    if !host.is_this() || !runs_systemd() {
        return;
    }
    for part in parts.iter_mut().filter(|part| part.runs == Some(false)) {
        let Some(unit) = unit(part.part).filter(|unit| host.has_unit(unit)) else { continue };
        let said = ask::run(&["systemctl", "is-failed", unit], ask::PROGRAM_LIMIT).await;
        if said.is_ok_and(|(has_failed, ..)| has_failed) {
            judge(part, unit);
        }
    }
}

/// The service of an engine; nothing for those of which it is not known whether they run.
fn unit(part: Part) -> Option<&'static str> {
    match part {
        Part::Dockerd => Some("docker.service"),
        Part::Containerd => Some("containerd.service"),
        Part::Crio => Some("crio.service"),
        Part::Buildkitd => Some("buildkit.service"),
        Part::Proxy | Part::Podman | Part::K3s | Part::Rke2 | Part::Kubelet => None,
    }
}

/// Pure: whatever its files say, it pulls nothing.
fn judge(part: &mut Examined, unit: &str) {
    let name = part.part.name();
    part.find(Finding {
        code: Code::Failed,
        file: None,
        text: format!("{unit} has failed"),
        why: format!("{name} pulls nothing until it starts"),
        registries: Vec::new(),
        fix: by_hand(format!("systemctl status --no-pager --full {unit}; systemctl restart {unit}")),
    });
    part.ways.values_mut().for_each(|way| *way = Way::Nowhere);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was "ok: pulls through the proxy".
    #[test]
    fn an_engine_that_has_failed_to_start_is_not_right() {
        let mut part = Examined::new(Part::Dockerd);
        part.lead_all(vec!["docker.io", "ghcr.io"], Way::Proxy);
        judge(&mut part, "docker.service");
        assert_eq!(part.findings.first().map(|finding| finding.code), Some(Code::Failed));
        assert!(part.ways.values().all(|way| *way == Way::Nowhere), "{part:?}");
    }
}
