//! A process that was started with other variables than its file has by now, or has not read its settings since they were changed.

use std::path::Path;

use serde_json::Value;

use super::super::expected::{Expected, by_hand};
use super::super::finding::{Code, Examined, Finding, Fix};
use super::Facts;
use crate::admin::ways::Ways;
use crate::installed::{RELOAD, RESTART};
use crate::unit::own::Other;
use crate::{control, service_variables};

/// Which variables of this file the process of this `/status` was started with another value of, if it is one of this host.
pub(super) async fn read(file: Option<&Path>, status: Option<&Value>) -> Option<(String, Vec<&'static str>)> {
    let (file, id) = (file?, u32::try_from(status?["process"]["id"].as_u64()?).ok()?);
    let asked = file.to_owned();
    let names = tokio::task::spawn_blocking(move || control::older_variables(id, &asked)).await.ok()?;
    // The unit may have the variable elsewhere.
    let file = names.first().map(|name| service_variables::file_of(name).unwrap_or_else(|| file.display().to_string()));
    file.map(|file| (file, names))
}

/// Variables count at a start only: a corrected secret changed nothing, and `check`, which has it, found nothing wrong.
pub(super) fn find(facts: &Facts, found: &mut Examined) {
    let Some((file, names)) = &facts.older else { return };
    found.find(Finding {
        registries: Vec::new(),
        code: Code::NotLoaded,
        file: Some(file.clone()),
        text: service_variables::older(names),
        why: "it keeps that until it is started again: neither a reload nor an upgrade changes a variable".to_owned(),
        fix: by_hand(RESTART),
    });
}

/// Routes count once they are read: engines were said to pull through a proxy that answers 404.
pub(super) fn find_routes(facts: &Facts, expected: &Expected<'_>, found: &mut Examined) {
    let is_own = !facts.is_elsewhere && !expected.is_of_another_host();
    let Some(ways) = facts.status.as_ref().and_then(Ways::told).filter(|_| is_own) else { return };
    let wanted = Ways::of(expected.routes);
    if ways == wanted {
        return;
    }
    let missing = expected.routes.iter().filter(|route| !ways.have(route));
    found.unserve(missing.map(|route| route.source.registry()).collect(), "which has not read its settings");
    found.find(Finding {
        registries: Vec::new(),
        code: Code::NotLoaded,
        file: expected.file.clone(),
        text: format!("the proxy that runs serves {ways}, and by these settings it is to serve {wanted}"),
        why: "it goes by what it has read: what it has no route for is answered by 404, and clients go to the source or fail"
            .to_owned(),
        fix: reload(facts),
    });
}

/// Has it read its settings.
pub(super) fn reload(facts: &Facts) -> Fix {
    by_hand(match &facts.service.other {
        Some(Other { flags, is_former: false, .. }) => {
            format!("acr-cache-proxy doctor {flags}  # the settings that the service is started with")
        }
        Some(_) => format!("systemctl daemon-reload && {RESTART}"),
        None if facts.service.has_unit => RELOAD.to_owned(),
        None => "acr-cache-proxy reload".to_owned(),
    })
}
