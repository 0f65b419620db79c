//! A blob whose redirect is kept, or was asked for by a flight: it goes on to storage, and the registry is not asked for it.

use std::sync::Arc;

use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::Result;

use super::locate::{self, Located};
use super::storage;
use crate::cache::{Content, How};
use crate::proxy::context::{Admitted, Context};
use crate::proxy::fail::Trouble;
use crate::proxy::{retry, shield};

/// Lets a request go where this redirect leads. [`Located::Answered`] if that is no storage: the redirect, within the
/// registry, is the client's.
pub(crate) fn follow(redirect: &Arc<Content>, how: How, admitted: &mut Admitted) -> Result<Located, Trouble> {
    let response = shield::response(redirect).map_err(|error| Trouble::Internal(error.etype().as_str().to_owned()))?;
    let is_kept = matches!(how, How::Hit | How::Revalidate | How::Stale);
    locate::follow(&response, Some(redirect).filter(|_| is_kept), admitted)
}

/// `upstream_response_filter`: the response of storage. A kept redirect that it refuses may have been signed by a key that
/// has been changed since, or the blob may have moved: the registry is asked for another one, once.
pub(crate) async fn check_response(
    response: &ResponseHeader,
    client: &RequestHeader,
    context: &mut Context,
) -> Result<()> {
    let admitted = context.admitted()?;
    let refused =
        admitted.attempts.storage().and_then(|storage| storage.kept()).filter(|_| is_refusal(response.status));
    if let Some(refused) = refused.cloned()
        && admitted.attempts.may_locate_again()
        && Box::pin(shield::locate_again(context, &refused)).await?
    {
        return Err(retry::again(response));
    }
    storage::check_response(response, client, context.admitted()?)
}

/// How storage says that a signature is not valid, or that there is no such blob.
fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE)
}
