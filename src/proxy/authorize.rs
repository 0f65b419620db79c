//! The registry token of a request: found before it goes out, judged when the answer comes.

use std::sync::Arc;

use pingora::http::ResponseHeader;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::context::Context;
use super::fail::Trouble;
use super::forward;
use super::reply::{self, CORRELATION_ID};
use crate::token::Unavailable;

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

/// `upstream_response_filter`: a 401 renews the token and sends the request again, once. A 401 that remains is
/// not the client's to solve, so it never sees the challenge.
pub async fn check(response: &ResponseHeader, context: &mut Context) -> Result<()> {
    context.correlation = response.headers.get(&CORRELATION_ID).cloned();
    if response.status != http::StatusCode::UNAUTHORIZED {
        return Ok(());
    }
    let destination = Arc::clone(context.destination()?);
    let tokens = &destination.upstream.tokens;
    let mut error = Error::explain(ErrorType::HTTPStatus(401), "the registry refused the token");
    error.as_up();
    let replaced = match &context.bearer {
        Some(seen) if !context.renewed => {
            Box::pin(tokens.replace(context.repository(), seen, forward::spare(context.elapsed()))).await
        }
        _ => Ok(None),
    };
    match replaced {
        Ok(Some(newer)) => {
            context.renewed = true;
            context.bearer = Some(newer);
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

/// The answer that says so comes of a token call, if that had one.
fn no_token(unavailable: Unavailable, context: &mut Context) -> Trouble {
    let correlation = unavailable.failure.as_ref().and_then(|failure| failure.correlation.clone());
    context.correlation = correlation.or(context.correlation.take());
    Trouble::NoToken(unavailable)
}
