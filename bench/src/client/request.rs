//! A request.

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use http_body_util::Full;

use crate::origin::Origin;

/// Host, method, target, and the token if there is one.
#[derive(Clone)]
pub struct Request<'a> {
    /// The host.
    pub origin: &'a Origin,
    /// GET, HEAD or POST.
    pub method: Method,
    /// Path and query.
    pub target: &'a str,
    /// The media types of a manifest.
    pub accept: Option<&'static str>,
    /// `Authorization`; only the registry gets one.
    pub bearer: Option<HeaderValue>,
    /// The body of a POST.
    pub form: Option<Bytes>,
}

impl<'a> Request<'a> {
    /// Without credentials.
    pub fn new(origin: &'a Origin, method: Method, target: &'a str) -> Self {
        Self { origin, method, target, accept: None, bearer: None, form: None }
    }

    pub(super) fn build(&self, keep_alive: bool) -> Result<http::Request<Full<Bytes>>, String> {
        let mut request = http::Request::builder()
            .method(&self.method)
            .uri(self.target)
            .header(header::HOST, self.origin.authority())
            .header(header::USER_AGENT, concat!("acr-cache-proxy/", env!("CARGO_PKG_VERSION"), " bench"));
        if let Some(accept) = self.accept {
            request = request.header(header::ACCEPT, accept);
        }
        if let Some(bearer) = &self.bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        if self.form.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        if !keep_alive {
            request = request.header(header::CONNECTION, "close");
        }
        request.body(Full::new(self.form.clone().unwrap_or_default())).map_err(|cause| cause.to_string())
    }

    /// The name in a sentence. It leaves out the query, which may hold a signature.
    pub(super) fn name(&self) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        match path.starts_with("/v2/") || path.starts_with("/oauth2/") {
            true => format!("{} {path}", self.method),
            false => format!("{} from blob storage {}", self.method, self.origin.authority()),
        }
    }
}
