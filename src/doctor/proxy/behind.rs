//! A service that answers, and would not by its next start: settings that it has refused, a unit that systemd refuses, a program that it has not
//! taken over. Nothing else tells: the proxy goes on as before.

use super::super::expected::{Expected, by_hand};
use super::super::finding::{Code, Examined, Finding, Fix};
use super::Facts;
use super::down::{JOURNAL, VERIFY};
use super::older::reload;
use crate::installed::{OWN_UNIT as UNIT, RELOAD, RESTART};

/// Pure: a finding for each.
pub(super) fn find(facts: &Facts, expected: &Expected<'_>, found: &mut Examined) {
    let service = &facts.service;
    if let Some(refusal) = &service.last.refusal {
        let text = format!("systemd refuses {UNIT} ({refusal})");
        let why = "the proxy that runs goes on, and neither a restart nor the next boot starts it".to_owned();
        found.find(told(Code::Failed, text, why, by_hand(format!("{VERIFY}systemctl status --no-pager {UNIT}"))));
    }
    if service.last.is_masked && service.is_active() {
        let why = "the proxy that runs goes on, and neither a restart nor the next boot starts it".to_owned();
        let fix = by_hand(format!("systemctl unmask {UNIT}"));
        found.find(told(Code::Failed, "its unit is masked".to_owned(), why, fix));
    }
    if service.last.is_reload_refused && service.is_active() {
        let why = "unless it has read them by another way since, the proxy goes by what it had read before, and its next start may fail";
        let fix = by_hand(format!("{JOURNAL}  # put right what it says, if that is not done; then: {RELOAD}"));
        found.find(told(Code::NotLoaded, "the last reload of its service has failed".to_owned(), why.to_owned(), fix));
    }
    // Of a masked one systemd would not learn that a new process takes over.
    if let Some(program) = service.replaced.as_ref().filter(|_| !service.last.is_masked) {
        let text = format!("the process that runs was started from another file than {program} is by now");
        let why = "the earlier program serves on: the new one has not taken over, of which the journal has the reason";
        let fix = by_hand(format!(
            "kill -USR2 \"$(systemctl show --property=MainPID --value {UNIT})\"  # it takes over within 30 s, or {JOURNAL} says why; else: {RESTART}"
        ));
        found.find(told(Code::NotLoaded, text, why.to_owned(), fix));
    }
    for lack in &facts.not_handed_over {
        let text = format!("{}: {UNIT} hands over no such credential", lack.setting);
        let why = "the proxy does not start with it, and one that runs takes no settings at a reload".to_owned();
        let fix = by_hand(format!(
            "systemctl edit {UNIT}  # [Service] with LoadCredential={}:FILE; then: {RESTART}",
            lack.name
        ));
        found.find(told(Code::Unreadable, text, why, fix));
    }
    identities(facts, expected, found);
}

/// Whoever signs in was changed in the settings, and they were not read since.
fn identities(facts: &Facts, expected: &Expected<'_>, found: &mut Examined) {
    // With other routes, it has not read its settings, which is told already.
    let is_told = found.findings.iter().any(|finding| finding.code == Code::NotLoaded);
    if facts.other_identities.is_empty() || expected.is_of_another_host() || is_told {
        return;
    }
    let text = format!(
        "the proxy that runs signs in otherwise than these settings say: {}",
        facts.other_identities.join("; ")
    );
    let why = "it goes by what it has read: who signs in by these settings is not known to get a token".to_owned();
    let file = expected.file.clone();
    found.find(Finding { file, ..told(Code::NotLoaded, text, why, reload(facts)) });
}

fn told(code: Code, text: String, why: String, fix: Fix) -> Finding {
    Finding { registries: Vec::new(), code, file: None, text, why, fix }
}
