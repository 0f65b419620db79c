//! One registry of a table of routes, built from its settings: how it is reached, who signs in, what is counted of it.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use super::ServeError;
use crate::config::identity::{Assigned, Kind};
use crate::config::{self, Config};
use crate::identity::{Chain, IdentityError};
use crate::metrics::Meters;
use crate::net::addresses::{Addresses, Names, Way};
use crate::net::egress::{Egress, EgressSettings};
use crate::net::trust::TrustRoots;
use crate::proxy::{Health, Upstream};
use crate::token::Tokens;
use crate::token::acr::AcrIssuer;

/// What all registries of a process are built with.
pub(crate) struct Builder {
    roots: TrustRoots,
    /// The addresses of storage hosts and sign-in hosts, shared by all tables.
    storage_names: Arc<Names>,
    sign_in_names: Arc<Names>,
    meters: Arc<Meters>,
}

/// What all registries have in common, and can be changed while they are in use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shared {
    pub token_wait: Duration,
    pub reads_per_minute: Option<NonZeroU32>,
}

impl Shared {
    /// Of these settings.
    pub(crate) fn of(config: &Config) -> Self {
        Self { token_wait: config.token_wait(), reads_per_minute: config.registry_reads_per_minute() }
    }
}

/// A registry, and what its upkeep needs.
pub(crate) struct Built {
    pub upstream: Arc<Upstream>,
    pub issuer: Arc<AcrIssuer>,
    /// Ends when the [`Upstream`] is dropped.
    pub in_use: oneshot::Receiver<Infallible>,
}

impl Builder {
    /// With these trust roots. Does no network I/O, and neither does what is built.
    pub(crate) fn new(roots: TrustRoots, meters: &Arc<Meters>) -> Self {
        let (storage_names, sign_in_names) = (Names::storage(), Names::sign_in());
        Self { roots, storage_names, sign_in_names, meters: Arc::clone(meters) }
    }

    /// How hosts are reached by these settings and this process's variables.
    pub(crate) fn egress(&self, settings: &EgressSettings) -> Result<Arc<Egress>, ServeError> {
        Egress::of_process(settings, &self.roots).map_err(|wrong| ServeError::Setting(wrong.to_string()))
    }

    /// Builds one registry; `before` is the same one by another egress, whose tokens go on, and what is kept of it.
    pub(crate) fn build(
        &self,
        settings: &config::Upstream,
        shared: Shared,
        egress: &Arc<Egress>,
        before: Option<&Upstream>,
    ) -> Result<Built, ServeError> {
        /// No other registry has the number of an earlier one.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let domain = settings.domain();
        let direct = || Arc::new(Addresses::new(domain.host(), domain.port(), settings.addresses()));
        // Who gives a registry's addresses says that it is reached there.
        let way = match settings.addresses() {
            [] => egress.way((domain.host(), domain.port()), direct),
            [..] => Way::direct(direct()),
        };
        let identity = Chain::new(settings.identity(), &self.roots, &self.sign_in_names, egress);
        let identity = identity.map_err(|cause| match cause {
            IdentityError::Variable(cause) => ServeError::Setting(cause.to_string()),
            IdentityError::Client(cause) => ServeError::Client(cause),
        })?;
        let meter = self.meters.registry(domain.authority());
        let issuer = AcrIssuer::new(domain.clone(), identity, way.clone(), &self.roots, Arc::clone(&meter));
        let issuer = Arc::new(issuer.map_err(ServeError::Client)?);
        let (in_use, upkeep_ends) = oneshot::channel();
        let upstream = Upstream {
            number: before.map_or_else(|| NUMBER.fetch_add(1, Ordering::Relaxed), |before| before.number),
            domain: domain.clone(),
            host: domain.to_header(),
            way,
            tokens: Arc::new(match before {
                Some(before) => Tokens::in_place_of(&before.tokens, shared.token_wait),
                None => Tokens::new(shared.token_wait),
            }),
            identity: identity_of(settings.identity().kind()),
            health: match before {
                Some(before) => Health::in_place_of(&before.health, domain, shared.reads_per_minute),
                None => Health::new(domain, shared.reads_per_minute),
            },
            meter,
            storage_names: Arc::clone(&self.storage_names),
            egress: Arc::clone(egress),
            in_use,
        };
        Ok(Built { upstream: Arc::new(upstream), issuer, in_use: upkeep_ends })
    }
}

/// Who signs in. Where the settings name no client id, the variable that the sign-in reads has it.
fn identity_of(kind: &Kind) -> (&'static str, Option<String>) {
    let (name, id) = kind.told();
    let reads_variable = kind.asks_entra() || matches!(kind, Kind::Default | Kind::ManagedIdentity(Assigned::System));
    let variable = || std::env::var("AZURE_CLIENT_ID").ok().filter(|id| reads_variable && !id.is_empty());
    (name, id.map(str::to_owned).or_else(variable))
}
