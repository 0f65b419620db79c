//! The HTTP client of every call that is not a pull: to Entra ID, to a host's metadata endpoint, and to the token endpoints
//! of a registry.

use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::Resolve;
use reqwest::{Proxy, Url};

use super::addresses::UNACKNOWLEDGED_LIMIT;
use super::trust::TrustRoots;
use super::tunnel::ForwardProxy;

/// The look-up of the name, TCP and TLS handshakes; a connection that takes longer is given up, and the call is repeated.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A whole call. It is less than requests wait by default, so that they are told of one that hangs.
const CALL_LIMIT: Duration = Duration::from_secs(8);

/// A client over these trust roots and this resolver: no redirects, no proxy unless [`through`] adds one (the metadata service
/// refuses proxied requests), no retries of its own. `Err` if a root cannot be used.
pub(crate) fn builder(roots: &TrustRoots, resolver: impl Resolve + 'static) -> reqwest::Result<reqwest::ClientBuilder> {
    Ok(reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_LIMIT)
        .timeout(CALL_LIMIT)
        .tcp_user_timeout(UNACKNOWLEDGED_LIMIT)
        .dns_resolver(Arc::new(resolver))
        .tls_certs_only(roots.reqwest_certificates()?))
}

/// The same client through a forward proxy, for those https addresses that `is_behind` says are behind it. Its credentials
/// are sent with `CONNECT` and with nothing else.
pub(crate) fn through(
    builder: reqwest::ClientBuilder,
    proxy: &ForwardProxy,
    is_behind: impl Fn(&Url) -> bool + Send + Sync + 'static,
) -> reqwest::ClientBuilder {
    let address = format!("{}://{}/", proxy.scheme(), proxy.name);
    let rule = Proxy::custom(move |url| (url.scheme() == "https" && is_behind(url)).then(|| address.clone()));
    builder.proxy(match &proxy.authorization {
        Some(authorization) => rule.custom_http_auth(authorization.clone()),
        None => rule,
    })
}
