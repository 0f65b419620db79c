//! The adapter of azure_identity: its calls go over our transport, and its errors become sentences.

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::error::ErrorKind;
use azure_core::http::headers::Headers;
use azure_core::http::{AsyncRawResponse, Body, ClientOptions, HttpClient, Request, RetryOptions, StatusCode};
use azure_identity::ClientAssertionCredentialOptions;
use bytes::Bytes;
use serde::Deserialize;

use super::inputs::Inputs;
use super::transport::{FullResponse, Transport};
use crate::answer::with_causes;

/// A year. Entra's longest tokens are valid for about a day; azure_identity adds the seconds to the time that it is, and panics where that
/// is no date any more.
const MAX_EXPIRES_IN: u64 = 365 * 24 * 60 * 60;

/// A source's transport and cloud, as azure_identity takes them.
pub(crate) fn client_options(inputs: &Inputs) -> ClientOptions {
    let mut cloud = CustomConfiguration::default();
    cloud.authority_host.clone_from(&inputs.cloud.authority);
    ClientOptions {
        // The token store repeats failed sign-ins, by its own schedule.
        retry: RetryOptions::none(),
        transport: Some(azure_core::http::Transport::new(Arc::clone(&inputs.transport) as _)),
        cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
        ..ClientOptions::default()
    }
}

/// The same for a credential that signs in with an assertion.
pub(crate) fn assertion_options(inputs: &Inputs) -> ClientAssertionCredentialOptions {
    ClientAssertionCredentialOptions { client_options: client_options(inputs) }
}

/// An error as a sentence. Unexpected JSON, which serde quotes, is not quoted here: it may contain the token.
pub(crate) fn explain(error: &azure_core::Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn Error), |cause| (*cause).source());
    match causes.filter_map(|cause| cause.downcast_ref::<serde_json::Error>()).next() {
        Some(json) => {
            format!("the answer is not the JSON of a token: line {}, column {}", json.line(), json.column())
        }
        None => with_causes(error),
    }
}

/// Whether azure_identity can tell when a token of this answer ends.
fn has_an_end(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Token {
        #[serde(default)]
        expires_in: i64,
    }
    // What is no such object is refused by azure_identity itself.
    serde_json::from_slice(body).map_or(true, |Token { expires_in }| expires_in.unsigned_abs() <= MAX_EXPIRES_IN)
}

#[async_trait]
impl HttpClient for Transport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let method = http::Method::from_bytes(request.method().as_ref().as_bytes())
            .map_err(|cause| azure_core::Error::new(ErrorKind::Other, cause))?;
        let mut outgoing = self.request(method, request.url().as_str());
        for (name, value) in request.headers().iter() {
            outgoing = outgoing.header(name.as_str(), value.as_str());
        }
        let Body::Bytes(body) = request.body() else {
            let message = "a sign-in request has no streamed body";
            return Err(azure_core::Error::with_message(ErrorKind::Other, message));
        };
        let FullResponse { status, headers, body } = self.send(outgoing.body(body.clone())).await?;
        if !has_an_end(&body) {
            return Err(azure_core::Error::with_message(ErrorKind::Credential, "the answer is not a token"));
        }
        let mut copied = Headers::new();
        for (name, value) in &headers {
            if let Ok(value) = value.to_str() {
                copied.insert(name.as_str().to_owned(), value.to_owned());
            }
        }
        Ok(AsyncRawResponse::from_bytes(StatusCode::from(status), copied, Bytes::from_owner(body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_without_an_end_that_is_a_date_is_none() {
        for (body, expected) in [
            (r#"{"access_token":"x","expires_in":3599}"#, true),
            (r#"{"access_token":"x"}"#, true),
            (r#"{"access_token":"x","expires_in":-1}"#, true),
            (r#"{"access_token":"x","expires_in":9223372036854775807}"#, false),
            (r#"{"access_token":"x","expires_in":-9223372036854775808}"#, false),
            (r#"{"access_token":"x","expires_in":253402300800}"#, false),
            (r#"{"error":"invalid_client"}"#, true),
            ("<html>", true),
        ] {
            assert_eq!(has_an_end(body.as_bytes()), expected, "{body}");
        }
    }
}
