//! `request_filter`, first half: is this the pull API?

use pingora_core::Result;
use pingora_proxy::Session;

use super::context::Context;
use super::reply::{self, Reply};
use crate::oci::error::{Code, Refusal};
use crate::oci::name::Prefix;
use crate::oci::request::Request;

/// True if the request goes on to the registry, with its target in `context`; false if it has its answer.
pub async fn accept(session: &mut Session, context: &mut Context, prefix: &Prefix) -> Result<bool> {
    let has_body = !session.is_body_empty();
    let request = session.req_header();
    let pulls = request.method == http::Method::GET || request.method == http::Method::HEAD;
    let parsed = if std::str::from_utf8(request.raw_path()).is_err() {
        Err(Refusal::new(http::StatusCode::BAD_REQUEST, Code::NameInvalid, "the path is not UTF-8"))
    } else if pulls && has_body {
        Err(Refusal::new(http::StatusCode::BAD_REQUEST, Code::Unsupported, "a pull request has no body"))
    } else {
        Request::parse(&request.method, request.uri.path(), request.uri.query())
    };
    match parsed {
        Ok(Request::Ping) => {
            context.endpoint = Request::Ping.endpoint();
            reply::ping(session).await?;
            Ok(false)
        }
        Ok(request) => {
            context.endpoint = request.endpoint();
            let target = request.upstream_target(prefix);
            let name_length = request.name().map_or(0, |name| prefix.joined_len(name));
            context.target = target;
            context.name_length = name_length;
            Ok(true)
        }
        Err(refusal) => {
            // The body of a refused request is not read; the connection ends with the answer.
            if has_body {
                session.set_keepalive(None);
            }
            reply::write(session, &Reply::refusal(&refusal)).await?;
            Ok(false)
        }
    }
}
