//! Engines that do not run because their service has failed.

use super::ask::Properties;
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
    for part in parts.iter_mut().filter(|part| part.runs == Some(false) || part.is_silent) {
        let Some(unit) = unit(part.part).filter(|unit| host.has_unit(unit)) else { continue };
        let shown = Properties::show(&["--property=ActiveState,SubState,NRestarts", unit]).await;
        if let Some(how) = shown.and_then(|shown| failure(&shown)) {
            judge(part, unit, &how);
        }
    }
}

/// How a service has failed. One that is started again and again is not in the state `failed`.
pub(super) fn failure(shown: &Properties) -> Option<String> {
    let again: u32 = shown.get("NRestarts").parse().unwrap_or_default();
    match shown.get("ActiveState") {
        "failed" => Some("has failed".to_owned()),
        "activating" if again > 0 => Some("fails at each start, and systemd starts it again and again".to_owned()),
        "activating" if shown.get("SubState").starts_with("auto-restart") => {
            Some("has ended by itself, and systemd starts it again in a moment".to_owned())
        }
        _ => None,
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
fn judge(part: &mut Examined, unit: &str, how: &str) {
    let name = part.part.name();
    part.find(Finding {
        code: Code::Failed,
        file: None,
        text: format!("{unit} {how}"),
        why: format!("{name} pulls nothing until it starts"),
        registries: Vec::new(),
        fix: by_hand(format!("systemctl status --no-pager --full {unit}; systemctl restart {unit}")),
    });
    // What takes connections is systemd, for a socket of the engine's.
    part.runs = Some(false);
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
        judge(&mut part, "docker.service", "has failed");
        assert_eq!(part.findings.first().map(|finding| finding.code), Some(Code::Failed));
        assert!(part.ways.values().all(|way| *way == Way::Nowhere), "{part:?}");
    }

    /// Between two starts, too, it was "ok: pulls through the proxy".
    #[test]
    fn a_service_that_is_started_again_and_again_is_not_right() {
        for (active, sub, again, says) in [
            ("failed", "failed", 5, Some("has failed")),
            // It was killed once.
            ("activating", "auto-restart", 0, Some("starts it again in a moment")),
            ("activating", "auto-restart-queued", 3, Some("again and again")),
            ("activating", "start", 3, Some("fails at each start")),
            ("activating", "start", 0, None),
            ("active", "running", 3, None),
            ("inactive", "dead", 0, None),
        ] {
            let said = format!("NRestarts={again}\nActiveState={active}\nSubState={sub}\n");
            let how = failure(&Properties::of(&said));
            assert_eq!(how.is_some(), says.is_some(), "{said}");
            assert!(how.is_none_or(|how| says.is_some_and(|says| how.contains(says))), "{said}");
        }
    }
}
