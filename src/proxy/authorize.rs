//! The registry token of a request: found before it goes out, judged when the answer comes.

use std::sync::Arc;

use http::header::WWW_AUTHENTICATE;
use pingora::http::ResponseHeader;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::context::Context;
use super::fail::Trouble;
use super::forward;
use super::reply::{self, CORRELATION_ID};
use crate::token::{Bearer, Tokens, Unavailable};
use oci::challenge::Challenge;

/// `request_filter`, second half. True (as Pingora wants it) if the request has its answer: there is no token.
pub async fn authorize(session: &mut Session, context: &mut Context) -> Result<bool> {
    let destination = Arc::clone(context.destination()?);
    match destination.upstream.tokens.bearer(context.repository()).await {
        Ok(bearer) => {
            context.bearer = Some(bearer);
            Ok(false)
        }
        Err(unavailable) => {
            let trouble = no_token(unavailable, context);
            Box::pin(reply::write(session, &trouble.reply(session, context))).await?;
            context.trouble = Some(trouble);
            Ok(true)
        }
    }
}

/// `upstream_response_filter`: a 401 renews the token and sends the request again, once. If the fresh one is refused as
/// well and the challenge asks for a token of this repository alone, one of these is tried, once. A 401 that remains is
/// not the client's to solve, so it never sees the challenge.
pub async fn check(response: &ResponseHeader, context: &mut Context) -> Result<()> {
    context.correlation = response.headers.get(&CORRELATION_ID).cloned();
    let destination = Arc::clone(context.destination()?);
    let tokens = &destination.upstream.tokens;
    if response.status != http::StatusCode::UNAUTHORIZED {
        if (response.status.is_success() || response.status.is_redirection())
            && let Some(bearer) = &context.bearer
        {
            tokens.accepted(bearer);
        }
        return Ok(());
    }
    let mut error = Error::explain(ErrorType::HTTPStatus(401), "the registry refused the token");
    error.as_up();
    match Box::pin(another_token(response, tokens, context)).await {
        Ok(Some(bearer)) => {
            context.bearer = Some(bearer);
            error.set_retry(true);
            return Err(error);
        }
        // Only of a fresh token does a 401 say anything about roles.
        Ok(None) => context.trouble = Some(Trouble::Unauthorized),
        Err(unavailable) => context.trouble = Some(no_token(unavailable, context)),
    }
    error.set_retry(false);
    Err(error)
}

/// What to send after a 401, if anything can help.
async fn another_token(
    response: &ResponseHeader,
    tokens: &Tokens,
    context: &mut Context,
) -> std::result::Result<Option<Arc<Bearer>>, Unavailable> {
    let Some(seen) = context.bearer.clone() else { return Ok(None) };
    let left = forward::spare(context.elapsed());
    if context.narrowed {
        tokens.in_vain(&seen);
        return Ok(None);
    }
    if !context.renewed
        && let Some(newer) = tokens.replace(context.repository(), &seen, left).await?
    {
        context.renewed = true;
        return Ok(Some(newer));
    }
    if seen.is_own() || !asks_for_this_repository(response, context.repository()) {
        return Ok(None);
    }
    match tokens.narrow(context.repository(), left).await {
        Ok(Some(narrow)) => {
            context.narrowed = true;
            Ok(Some(narrow))
        }
        // The registry refuses this one, too: what its 401 says of the other remains the answer.
        Err(Unavailable { failure: Some(failure), .. }) if failure.permanent => Ok(None),
        other => other,
    }
}

fn asks_for_this_repository(response: &ResponseHeader, repository: &str) -> bool {
    let challenge = response.headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
    challenge
        .and_then(|challenge| Challenge::parse(challenge).ok())
        .is_some_and(|challenge| challenge.is_for_pull_of(repository))
}

/// The answer that says so comes of a token call, if that had one.
fn no_token(unavailable: Unavailable, context: &mut Context) -> Trouble {
    let correlation = unavailable.failure.as_ref().and_then(|failure| failure.correlation.clone());
    context.correlation = correlation.or(context.correlation.take());
    Trouble::NoToken(unavailable)
}
