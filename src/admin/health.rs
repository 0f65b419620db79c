//! `/readyz`: whether a pull would have its token.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::access::Reason;
use crate::failure::Hop;
use crate::load::{Limit, Load};
use crate::proxy::{Table, upstreams};

/// Whether every registry of the table has a valid token and the process is not about to end, and what is said of each and of the load.
pub(super) fn readiness(routes: &Table, load: &Load) -> (bool, Value) {
    let upstreams = upstreams(routes);
    let states: Vec<_> =
        upstreams.iter().map(|upstream| (upstream.domain.authority(), upstream.tokens.readiness())).collect();
    let is_stopping = load.is_stopping();
    let ready = !is_stopping && states.iter().all(|(_, state)| state.ready);
    let upstreams: Vec<_> = states
        .into_iter()
        .map(|(domain, state)| {
            let mut upstream = json!({ "domain": domain, "ready": state.ready });
            // Also while the token is still valid and only its renewal fails: there is time to act then.
            if let Some(failure) = state.failure {
                upstream["hop"] = json!(hop(failure.hop));
                upstream["message"] = json!(failure.message);
                upstream["permanent"] = json!(failure.permanent);
                upstream["since"] = json!(state.since.map(timestamp));
            } else if !state.ready {
                upstream["message"] = json!("the first sign-in is under way");
            }
            upstream
        })
        .collect();
    (ready, json!({ "ready": ready, "stopping": is_stopping, "upstreams": upstreams, "load": limits(load) }))
}

fn limits(load: &Load) -> Value {
    let Load { connections, requests, bad_headers, gate, .. } = load;
    let limit = |limit: &Limit| json!({ "now": limit.count(), "max": limit.max(), "refused": limit.refused() });
    json!({
        "connections": limit(connections),
        "requests": limit(requests),
        "bad_headers": bad_headers.load(Ordering::Relaxed),
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
