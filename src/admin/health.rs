//! `/readyz`: whether pulls can be sent here.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::State;
use crate::access::Reason;
use crate::failure::Hop;
use crate::load::{Limit, Load};
use crate::proxy::{Upstream, has_kept, upstreams};
use crate::token;

/// Whether pulls can be sent here, and what is said of each registry and of the load. They can if every registry of the table
/// has a valid token or, while it has none, answers that are kept for such a time; and if the process is not about to end.
pub(super) fn readiness(state: &State) -> (bool, Value) {
    let upstreams = upstreams(&state.routes);
    let states: Vec<_> = upstreams.iter().map(|upstream| Readiness::of(state, upstream)).collect();
    let is_stopping = state.load.is_stopping();
    let ready = !is_stopping && states.iter().all(Readiness::is_ready);
    let upstreams: Vec<_> = upstreams.iter().zip(&states).map(|(upstream, state)| state.told(upstream)).collect();
    // After the end of the listeners it means nothing.
    let lost = if is_stopping { Vec::new() } else { (state.lost)() };
    let summary = [vec![summary(is_stopping, &upstreams)], lost].concat().join("; ");
    let body = json!({
        "ready": ready,
        "stopping": is_stopping,
        "summary": summary,
        "upstreams": upstreams,
        "load": limits(&state.load),
    });
    (ready, body)
}

/// Why there is or is not readiness, in a sentence for people.
fn summary(is_stopping: bool, upstreams: &[Value]) -> String {
    if is_stopping {
        return "not ready: this process is about to end, and finishes what is under way".to_owned();
    }
    let told = |upstream: &Value| {
        let text = |name: &str| upstream[name].as_str().unwrap_or_default().to_owned();
        let domain = text("domain");
        // Two identities at one registry: pulls by the other may be fine.
        let is_one_of_several = upstreams.iter().filter(|other| other["domain"] == upstream["domain"]).count() > 1;
        let whose = if is_one_of_several { by_identity(&upstream["identity"]) } else { String::new() };
        format!("{domain}{whose}: {}", text("message"))
    };
    let of = |serves: &str| -> Vec<_> {
        upstreams.iter().filter(|upstream| upstream["serves"] == serves).map(told).collect()
    };
    let nothing: Vec<_> = of("nothing");
    let kept: Vec<_> = of("kept");
    match (nothing.is_empty(), kept.is_empty()) {
        (false, _) => format!("not ready: no token for {}", nothing.join("; ")),
        (true, false) => {
            format!("ready: only what is kept is served, because there is no token for {}", kept.join("; "))
        }
        (true, true) => {
            let down =
                |upstream: &Value| Some(format!("{}: {}", upstream["domain"].as_str()?, upstream["down"].as_str()?));
            let down: Vec<_> = upstreams.iter().filter_map(down).collect();
            if down.is_empty() {
                return "ready".to_owned();
            }
            format!("ready: only what is kept is served, because the registry is down: {}", down.join("; "))
        }
    }
}

/// Who signs in, behind the registry's name.
fn by_identity(identity: &Value) -> String {
    let words: Vec<_> = ["kind", "id"].iter().filter_map(|key| identity[key].as_str()).collect();
    format!(" by {}", words.join(" "))
}

/// How one registry can be served.
pub(super) struct Readiness {
    tokens: token::Readiness,
    has_kept: bool,
}

impl Readiness {
    /// Now.
    pub(super) fn of(state: &State, upstream: &Arc<Upstream>) -> Self {
        let tokens = upstream.tokens.readiness();
        Self { tokens, has_kept: has_kept(&state.routes, upstream) }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.tokens.ready || self.has_kept
    }

    /// What clients get: all, what is kept, or nothing.
    pub(super) fn serves(&self) -> &'static str {
        match (self.tokens.ready, self.has_kept) {
            (true, _) => "all",
            (false, true) => "kept",
            (false, false) => "nothing",
        }
    }

    /// What is said of it.
    pub(super) fn told(&self, upstream: &Upstream) -> Value {
        let mut told = json!({
            "domain": upstream.domain.authority(),
            "identity": identity(upstream),
            "ready": self.is_ready(),
            "serves": self.serves(),
        });
        if let Some(cause) = upstream.health.why_down() {
            told["down"] = json!(cause.to_string());
        }
        // Also while the token is still valid and only its renewal fails: there is time to act then.
        if let Some(failure) = &self.tokens.failure {
            told["hop"] = json!(hop(failure.hop));
            told["message"] = json!(failure.message);
            told["permanent"] = json!(failure.permanent);
            told["since"] = json!(self.tokens.since.map(timestamp));
        } else if !self.tokens.ready {
            told["message"] = json!("the first sign-in is under way");
        }
        told
    }
}

/// Who signs in: two entries may be for the same registry.
pub(super) fn identity(upstream: &Upstream) -> Value {
    let (kind, id) = &upstream.identity;
    json!({"kind": kind, "id": id})
}

fn limits(load: &Load) -> Value {
    let Load { connections, requests, bad_headers, gate, .. } = load;
    let limit = |limit: &Limit| json!({ "now": limit.count(), "max": limit.max(), "refused": limit.refused() });
    json!({
        "connections": limit(connections),
        "requests": limit(requests),
        "bad_headers": bad_headers.load(Ordering::Relaxed),
        "limited_last_hour": gate.refusals().limited_last_hour().map(|(reason, count)| (reason.name(), json!(count))).collect::<Value>(),
        "refused": Reason::ALL.iter().map(|reason| (reason.name(), json!(gate.refusals().get(*reason)))).collect::<Value>(),
    })
}

fn hop(hop: Hop) -> &'static str {
    match hop {
        Hop::Identity => "identity",
        Hop::Exchange => "exchange",
        Hop::Token => "token",
    }
}

/// A date in the format of HTTP (RFC 9110 section 5.6.7).
fn timestamp(time: SystemTime) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write!(text, "{}", httpdate::HttpDate::from(time));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_identities_at_one_registry_were_not_told_apart() {
        let entry = |domain: &str, id: Option<&str>, serves: &str| json!({"domain": domain, "identity": {"kind": "client_secret", "id": id}, "serves": serves, "message": "no"});
        for (upstreams, expected) in [
            (vec![entry("a.azurecr.io", Some("1"), "nothing")], "not ready: no token for a.azurecr.io: no"),
            (
                vec![entry("a.azurecr.io", Some("1"), "all"), entry("a.azurecr.io", Some("2"), "nothing")],
                "not ready: no token for a.azurecr.io by client_secret 2: no",
            ),
            (
                vec![entry("a.azurecr.io", Some("1"), "all"), entry("a.azurecr.io", None, "kept")],
                "ready: only what is kept is served, because there is no token for a.azurecr.io by client_secret: no",
            ),
        ] {
            assert_eq!(summary(false, &upstreams), expected);
        }
    }
}
