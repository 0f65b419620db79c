//! Another redirect in place of a kept one that storage refuses.
//!
//! The kept one may be signed by a key that has been changed since, or the blob may have moved.

use std::sync::Arc;

use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::Result;

use super::{key, look_up};
use crate::cache::{Content, Part, Served};
use crate::proxy::blob::locate::{self, Located};
use crate::proxy::blob::storage;
use crate::proxy::context::Context;
use crate::proxy::retry;

/// `upstream_response_filter`: the response of storage. If that refuses a redirect that was kept, the registry is asked for
/// another one, once, and the request goes there.
pub(crate) async fn check_response(
    response: &ResponseHeader,
    client: &RequestHeader,
    context: &mut Context,
) -> Result<()> {
    let admitted = context.admitted()?;
    let redirect = admitted.attempts.storage().and_then(|storage| storage.kept());
    if let Some(redirect) = redirect.filter(|_| is_refusal(response.status)).cloned()
        && admitted.attempts.may_locate_again()
        && Box::pin(locate_again(context, &redirect)).await?
    {
        return Err(retry::again(response));
    }
    storage::check_response(response, client, context.admitted()?)
}

/// How storage says that a signature is not valid, or that there is no such blob.
fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE)
}

/// Forgets this redirect and looks for another one. True if the request goes there from now on.
async fn locate_again(context: &mut Context, refused: &Arc<Content>) -> Result<bool> {
    let admitted = context.admitted()?;
    if let Some(kept) = &admitted.destination.kept {
        kept.cache.forget(&key(admitted, Part::Redirect), refused);
    }
    let found = look_up(context, Part::Redirect).await?;
    let (content, how) = match found.served {
        Served::Entry(entry, how) => (Arc::clone(&entry.content), how),
        Served::Answer(content, how) => (content, how),
        Served::Failed(..) | Served::Pass(_) => return Ok(false),
    };
    context.note(how);
    Ok(matches!(locate::follow_shared(&content, how, context.admitted()?), Ok(Located::InStorage)))
}
