//! The registry token of a request: found before it goes out, judged when the response comes.

use std::sync::Arc;

use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora_core::Result;

use super::attempts::Attempts;
use super::context::Admitted;
use super::fail::Trouble;
use super::refused::Refused;
use super::retry;
use crate::answer::{challenge, correlation};
use crate::token::{Bearer, Tokens, Unavailable};

/// `proxy_upstream_filter`: all that a request needs before it goes to the registry: that this may be asked, a token, and its
/// turn.
pub(crate) async fn ready(admitted: &mut Admitted) -> Result<(), Trouble> {
    let Admitted { target, destination, .. } = &*admitted;
    let (destination, endpoint) = (Arc::clone(destination), target.endpoint());
    destination.may_ask(endpoint)?;
    let waiting = async {
        authorize(admitted).await?;
        if admitted.attempts.has_turn() { Ok(()) } else { destination.upstream.health.turn().await }
    };
    destination.unless_down(waiting).await.flatten()?;
    admitted.attempts.give_turn();
    // Something may have happened in the time that this took.
    destination.may_ask(endpoint)
}

/// The token for the request; waits for it if a call is under way.
async fn authorize(admitted: &mut Admitted) -> Result<(), Trouble> {
    let tokens = &admitted.destination.upstream.tokens;
    match tokens.token_for(admitted.target.repository(), admitted.client).await {
        Ok(bearer) => {
            admitted.attempts.authorize(bearer);
            Ok(())
        }
        Err(unavailable) => Err(no_token(unavailable, &mut admitted.attempts)),
    }
}

/// The response to a request with a token: a 401 renews the token and sends the request again, once. If the renewed one
/// is refused as well and the challenge asks for a token of this repository alone, one of these is tried, once. A 401 that
/// remains is not the client's to solve, so it never sees the challenge.
pub(crate) async fn check_response(response: &ResponseHeader, admitted: &mut Admitted) -> Result<()> {
    admitted.attempts.set_correlation(correlation(&response.headers));
    if response.status == StatusCode::UNAUTHORIZED {
        return match Box::pin(replace(response, admitted)).await {
            Ok(Replaced::Yes) => Err(retry::again(response)),
            // A 401 to a renewed token is about roles, not about the token's age.
            Ok(Replaced::No) => {
                // The body, which may say more, is read where something that is kept depends on it: by a flight.
                let about = Refused::of(response.status, &response.headers, b"").unwrap_or(Refused::Unclear);
                Err(Trouble::Unauthorized(about).into_error())
            }
            Err(unavailable) => Err(no_token(unavailable, &mut admitted.attempts).into_error()),
        };
    }
    if (response.status.is_success() || response.status.is_redirection())
        && let Some(bearer) = admitted.attempts.bearer()
    {
        admitted.destination.upstream.tokens.accepted(bearer);
    }
    Ok(())
}

/// Whether there is another token to try.
enum Replaced {
    Yes,
    No,
}

/// Another token in place of the one that was answered with 401, if any can help.
async fn replace(
    response: &ResponseHeader,
    Admitted { target, destination, client, attempts }: &mut Admitted,
) -> Result<Replaced, Unavailable> {
    let tokens: &Tokens = &destination.upstream.tokens;
    let repository = target.repository();
    let Some(seen) = attempts.bearer().map(Arc::<Bearer>::clone) else { return Ok(Replaced::No) };
    let left = attempts.time_left();
    if attempts.has_repository_token() {
        tokens.rejected(&seen);
        return Ok(Replaced::No);
    }
    if !attempts.is_renewed()
        && let Some(newer) = tokens.replace(repository, *client, &seen, left).await?
    {
        attempts.renew(newer);
        return Ok(Replaced::Yes);
    }
    let asks_for_it = || challenge(&response.headers).is_some_and(|challenge| challenge.is_for_pull_of(repository));
    if seen.is_own() || !asks_for_it() {
        return Ok(Replaced::No);
    }
    match tokens.repository_token(repository, *client, left).await {
        Ok(Some(token)) => {
            attempts.use_repository_token(token);
            Ok(Replaced::Yes)
        }
        Ok(None) => Ok(Replaced::No),
        // The registry does not grant this one either, so its 401 stays the reason that the client is told.
        Err(Unavailable { failure: Some(failure), .. }) if failure.permanent => Ok(Replaced::No),
        Err(unavailable) => Err(unavailable),
    }
}

/// The id that the client is told is that of the token call, if the registry answered that.
fn no_token(unavailable: Unavailable, attempts: &mut Attempts) -> Trouble {
    if let Some(correlation) = unavailable.failure.as_ref().and_then(|failure| failure.correlation.clone()) {
        attempts.set_correlation(Some(correlation));
    }
    Trouble::NoToken(unavailable)
}
