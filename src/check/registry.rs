//! The way to one registry: to its answer, the sign-in, its tokens.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::timeout;

use super::reach::Server;
use super::report::{Hop, Status, Value};
use super::steps::{Finding, Steps, Works};
use crate::answer::{FIREWALL, is_about_firewall, server_time};
use crate::net::trust::TrustRoots;
use crate::proxy::Destination;
use crate::proxy::trial::{self, Answer};
use crate::secret::Secret;
use crate::serve::registry::Built;
use crate::token::acr::AcrIssuer;
use crate::token::{Granted, Issuer as _, WILDCARD};

/// How far the clocks may be apart before it is told: `Date` has whole seconds, and an answer takes its time.
const CLOCKS_DIFFER: u64 = 60;
/// How far Entra ID lets the times in a client's assertion be off (AADSTS700024).
const ASSERTION_TOLERANCE: u64 = 300;

/// A registry answers `/v2/` within milliseconds; what comes after it has the rest of the time.
const PING_LIMIT: Duration = Duration::from_secs(10);

/// What the routes of a registry go on with.
pub(super) struct Ready {
    pub issuer: Arc<AcrIssuer>,
    pub login: Secret,
    /// The token for all repositories, if the registry gives one.
    pub wildcard: Option<Granted>,
    pub roots: TrustRoots,
}

/// From the registry's name to a token of its. `None` if that is not reached. Where the sign-in needs what is `elsewhere`, a clause, it is
/// not tried.
pub(super) async fn reach(
    built: &Built,
    destination: &Destination,
    roots: TrustRoots,
    elsewhere: Option<String>,
    steps: &mut Steps,
) -> Option<Ready> {
    let issuer = &built.issuer;
    let is_there = answers(built, destination, &roots, steps).await;
    // Whether somebody can sign in is another matter than whether the registry is there.
    if let Some(elsewhere) = elsewhere {
        steps.note(Hop::Identity, Status::Skipped, elsewhere, None);
        steps.ended.get_or_insert(Hop::Identity);
        steps.skip([Hop::Exchange, Hop::Token]);
        return None;
    }
    let entra = steps.step(Hop::Identity, async {
        let entra = issuer.sign_in().await.map_err(Finding::failed)?;
        let text = match &entra {
            Some(entra) => format!("an Entra token, by {}", entra.by),
            None => "nobody signs in: the pulls are anonymous".to_owned(),
        };
        Ok(Works::new(entra, text))
    });
    let entra = entra.await;
    let Some(entra) = entra.filter(|_| is_there) else {
        steps.skip([Hop::Exchange, Hop::Token]);
        return None;
    };
    let login = match entra {
        Some(entra) => {
            let exchange = async {
                let login = issuer.exchange(&entra.secret).await.map_err(Finding::failed)?;
                let text = format!("a refresh token for {}", minutes(login.lifetime));
                Ok(Works::new(login, text))
            };
            let login = steps.step(Hop::Exchange, exchange).await;
            let Some(login) = login else {
                steps.skip([Hop::Token]);
                return None;
            };
            login
        }
        None => issuer.login().await.ok()?,
    };
    let token = async {
        let all = match login.per_repository {
            true => None,
            false => Some(issuer.access(&login.token, WILDCARD).await.map_err(Finding::failed)?),
        };
        let all = all.filter(|granted| !granted.per_repository);
        let text = match &all {
            Some(granted) => format!("a token for all repositories, for {}", minutes(granted.lifetime)),
            None => "the registry is in ABAC mode: each repository has a token of its own".to_owned(),
        };
        Ok(Works::new(all, text))
    };
    let wildcard = steps.step(Hop::Token, token).await?;
    Some(Ready { issuer: Arc::clone(issuer), login: login.token, wildcard, roots })
}

/// Whether the registry is there and answers.
async fn answers(built: &Built, destination: &Destination, roots: &TrustRoots, steps: &mut Steps) -> bool {
    let upstream = &built.upstream;
    let name = upstream.domain.server_name();
    let host = Server { way: &upstream.way, name, is_storage: false, only_warns: false };
    if host.reach(steps, roots).await {
        if let Some(answer) = steps.step(Hop::Registry, ping(destination)).await {
            clock(&answer, steps);
        }
    } else {
        steps.skip([Hop::Registry]);
    }
    steps.ended.is_none()
}

/// A token's time, for people.
pub(super) fn minutes(time: Duration) -> String {
    format!("{} min", time.as_secs() / 60)
}

/// What the registry says without a token.
async fn ping(destination: &Destination) -> Result<Works<Answer>, Finding> {
    let answer = timeout(PING_LIMIT, trial::ping(destination)).await.map_err(|_| {
        let limit = PING_LIMIT.as_secs();
        Finding::failed(format!(
            "no answer within {limit} s: is a middlebox between? Try again, and look at Azure's status"
        ))
    })?;
    let answer = answer.map_err(Finding::failed)?;
    let said = answer.error();
    match answer.status.as_u16() {
        200 | 401 => Ok(Works::new(answer, "answers as a registry does")),
        403 if is_about_firewall(&answer.body) => Err(Finding::failed(format!("{FIREWALL}: {said}"))),
        429 => Err(Finding::failed(format!("it limits requests: try again in a minute: {said}"))),
        500..=599 => Err(Finding::failed(format!("it has trouble: try again, and look at Azure's status: {said}"))),
        _ => Err(Finding::failed(format!(
            "is this domain an Azure container registry, and nothing between? Check the domain and a private endpoint's DNS: {said}"
        ))),
    }
}

/// Compares the clocks.
fn clock(answer: &Answer, steps: &mut Steps) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok());
    let (Some(registrys), Some(ours)) = (server_time(&answer.headers), now) else {
        let text = "the registry's answer has no Date to compare this host's clock with";
        return steps.note(Hop::Clock, Status::Skipped, text.to_owned(), None);
    };
    let ahead = ours.saturating_sub(registrys);
    let (apart, value) = (ahead.unsigned_abs(), Some(Value::Ahead(ahead)));
    if apart <= CLOCKS_DIFFER {
        return steps.note(Hop::Clock, Status::Ok, format!("{apart} s from the registry's"), value);
    }
    let side = if ahead > 0 { "ahead of" } else { "behind" };
    let text = format!(
        "this host's clock is {apart} s {side} the registry's: set it (timedatectl, chronyc makestep): from {ASSERTION_TOLERANCE} s on \
         Entra refuses to sign in a client certificate, and good certificates may count as ended or not begun"
    );
    steps.note(Hop::Clock, Status::Warning, text, value);
}
