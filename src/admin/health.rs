//! `/readyz`: whether pulls can be sent here.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::State;
use crate::access::Reason;
use crate::label::labels;
use crate::load::{Limit, Load};
use crate::metrics::labels::Hop;
use crate::proxy::{Trouble, Upstream, has_kept, upstreams};
use crate::token;

/// What is known of that at one moment.
pub(super) struct Readiness {
    /// The process is about to end.
    pub is_stopping: bool,
    /// Those of the table.
    pub registries: Vec<Registry>,
}

impl Readiness {
    /// Now.
    pub(super) fn of(state: &State) -> Self {
        let registries = upstreams(&state.routes).into_iter().map(|upstream| Registry::of(state, upstream)).collect();
        Self { is_stopping: state.load.is_stopping(), registries }
    }

    /// Whether pulls can be sent here. They can if every registry has a valid token or, while it has none, answers that are kept for
    /// such a time; and if the process is not about to end.
    pub(super) fn is_ready(&self) -> bool {
        !self.is_stopping && self.registries.iter().all(Registry::is_ready)
    }

    /// The answer, with what is said of each registry and of the load.
    pub(super) fn told(&self, state: &State) -> Value {
        json!({
            "ready": self.is_ready(),
            "stopping": self.is_stopping,
            "summary": self.summary(state),
            "upstreams": self.registries.iter().map(Registry::told).collect::<Vec<_>>(),
            "load": limits(&state.load),
        })
    }

    /// Why there is or is not readiness, in a sentence for people, and which listeners have ended.
    pub(super) fn summary(&self, state: &State) -> String {
        // After the end of the listeners it means nothing.
        let lost = if self.is_stopping { Vec::new() } else { (state.lost)() };
        [vec![self.why()], lost].concat().join("; ")
    }

    fn why(&self) -> String {
        if self.is_stopping {
            return "not ready: this process is about to end, and finishes what is under way".to_owned();
        }
        let of = |serves: Serves| {
            let without_token = self.registries.iter().filter(|registry| !registry.tokens.ready);
            let those = without_token.filter(|registry| registry.serves() == serves);
            let told = |registry: &Registry| {
                let why = registry.message().unwrap_or_default();
                format!("{}{}: {why}", registry.domain(), self.by_identity(registry))
            };
            those.map(told).collect::<Vec<_>>().join("; ")
        };
        let (nothing, kept) = (of(Serves::Nothing), of(Serves::Kept));
        if !nothing.is_empty() {
            return format!("not ready: no token for {nothing}");
        }
        if !kept.is_empty() {
            return format!("ready: only what is kept is served, because there is no token for {kept}");
        }
        let down = |registry: &Registry| Some(format!("{}: {}", registry.domain(), registry.down.as_ref()?));
        let down: Vec<_> = self.registries.iter().filter_map(down).collect();
        if down.is_empty() {
            return "ready".to_owned();
        }
        format!("ready: only what is kept is served, because the registry is down: {}", down.join("; "))
    }

    /// Who signs in, behind the registry's name, where there are two identities at one: pulls by the other may be fine.
    fn by_identity(&self, registry: &Registry) -> String {
        if self.registries.iter().filter(|other| other.domain() == registry.domain()).count() < 2 {
            return String::new();
        }
        match &registry.upstream.identity {
            (kind, Some(id)) => format!(" by {kind} {id}"),
            (kind, None) => format!(" by {kind}"),
        }
    }
}

labels! {
    /// What clients get of a registry.
    Serves {
        /// What they ask for.
        All = "all",
        /// What is kept, because there is no token, or because the registry is down.
        Kept = "kept",
        /// There is no token, and nothing is kept for such a time.
        Nothing = "nothing",
    }
}

/// One registry, and how it can be served.
pub(super) struct Registry {
    /// Which.
    pub upstream: Arc<Upstream>,
    /// Why it is known to be down, if it is.
    pub down: Option<Arc<Trouble>>,
    tokens: token::Readiness,
    has_kept: bool,
}

impl Registry {
    fn of(state: &State, upstream: Arc<Upstream>) -> Self {
        let (tokens, has_kept) = (upstream.tokens.readiness(), has_kept(&state.routes, &upstream));
        Self { down: upstream.health.why_down(), upstream, tokens, has_kept }
    }

    /// As people name it.
    pub(super) fn domain(&self) -> &str {
        self.upstream.domain.authority()
    }

    fn is_ready(&self) -> bool {
        self.serves() != Serves::Nothing
    }

    fn serves(&self) -> Serves {
        match (self.tokens.ready, self.has_kept) {
            (true, _) if self.down.is_none() => Serves::All,
            (true, _) | (false, true) => Serves::Kept,
            (false, false) => Serves::Nothing,
        }
    }

    /// What is wrong with its token. Also while that is still valid and only its renewal fails: there is time to act then.
    fn message(&self) -> Option<&str> {
        match &self.tokens.failure {
            Some(failure) => Some(&failure.message),
            None => (!self.tokens.ready).then_some("the first sign-in is under way"),
        }
    }

    /// What is said of it.
    pub(super) fn told(&self) -> Value {
        let mut told = json!({
            "domain": self.domain(),
            "identity": identity(&self.upstream),
            "ready": self.is_ready(),
            "serves": self.serves().name(),
        });
        if let Some(cause) = &self.down {
            told["down"] = json!(cause.to_string());
        }
        if let Some(message) = self.message() {
            told["message"] = json!(message);
        }
        if let Some(failure) = &self.tokens.failure {
            told["hop"] = json!(Hop::from(failure.hop).name());
            told["permanent"] = json!(failure.permanent);
            told["since"] = json!(self.tokens.since.map(httpdate::fmt_http_date));
        }
        told
    }
}

/// Who signs in: two entries may be for the same registry.
pub(super) fn identity(upstream: &Upstream) -> Value {
    let (kind, id) = &upstream.identity;
    json!({"kind": kind, "id": id})
}

/// What is under way, and what was refused for its bounds.
pub(super) fn limits(load: &Load) -> Value {
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

#[cfg(test)]
mod tests {
    use oci::route::Blobs;

    use super::*;
    use crate::failure::{self, Failure};
    use crate::proxy::Destination;

    /// A registry with this id of its identity, whose token is valid or not, and of which answers are kept or not.
    fn registry((id, ready, has_kept): (Option<&str>, bool, bool)) -> Registry {
        let mut upstream = Destination::example(0, Blobs::Redirect, None).upstream;
        Arc::get_mut(&mut upstream).expect("nobody else has it").identity = ("client_secret", id.map(str::to_owned));
        let failure = Failure::new(failure::Hop::Identity, "no".to_owned());
        let tokens = token::Readiness { ready, failure: Some(Arc::new(failure)), since: None };
        Registry { upstream, down: None, tokens, has_kept }
    }

    #[test]
    fn two_identities_at_one_registry_were_not_told_apart() {
        for (registries, expected) in [
            (&[(Some("1"), false, false)][..], "not ready: no token for example.azurecr.io: no"),
            (
                &[(Some("1"), true, false), (Some("2"), false, false)],
                "not ready: no token for example.azurecr.io by client_secret 2: no",
            ),
            (
                &[(Some("1"), true, false), (None, false, true)],
                "ready: only what is kept is served, because there is no token for example.azurecr.io by client_secret: no",
            ),
            (&[(Some("1"), true, false)], "ready"),
        ] {
            let registries = registries.iter().copied().map(registry).collect();
            assert_eq!(Readiness { is_stopping: false, registries }.why(), expected);
        }
    }
}
