//! The registry's redirect of a blob, and the storage that it leads to.
//!
//! What signs the request is in the redirect's address, so the address goes into no log and to no client.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use zeroize::Zeroizing;

use super::hosts::{BlobHosts, HTTPS};
use crate::answer::DIGEST;
use crate::cache::Content;
use crate::config::Domain;
use crate::proxy::fail::Trouble;
use oci::rename::own_path;

/// Where a redirect leads.
pub(crate) struct Storage {
    domain: Domain,
    /// Path and query as they came: the signature covers them, and is in them.
    target: Zeroizing<Vec<u8>>,
    /// What the registry said of the blob.
    digest: Option<HeaderValue>,
    /// The redirect, if it was kept and not asked for by this request or a simultaneous one.
    kept: Option<Arc<Content>>,
}

impl Storage {
    /// The storage's name, in lower case.
    pub(crate) fn host(&self) -> &str {
        self.domain.host()
    }

    /// The same with its port.
    pub(crate) fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Path and query, with the signature.
    pub(crate) fn target(&self) -> &[u8] {
        &self.target
    }

    /// The blob's digest, as the registry said it.
    pub(crate) fn digest(&self) -> Option<&HeaderValue> {
        self.digest.as_ref()
    }

    /// The redirect that led here, if it was kept.
    pub(crate) fn kept(&self) -> Option<&Arc<Content>> {
        self.kept.as_ref()
    }

    /// The same, led to by a redirect that was kept.
    pub(crate) fn by_kept(self, redirect: Arc<Content>) -> Self {
        Self { kept: Some(redirect), ..self }
    }

    #[cfg(test)]
    pub(crate) fn example() -> Self {
        let hosts = BlobHosts::new("example.azurecr.io", &[]);
        let headers = HeaderMap::from_iter([(
            header::LOCATION,
            HeaderValue::from_static("https://x.blob.core.windows.net/a?sig=s"),
        )]);
        let storage = storage_of(StatusCode::TEMPORARY_REDIRECT, &headers, "example.azurecr.io", &hosts);
        storage.expect("allowed").expect("a redirect")
    }
}

/// Where a response of the registry `authority` redirects a blob to. `None` if the response is the client's: no redirect,
/// or one within the registry. `Err` says where it leads, if no blob may come from there.
pub(crate) fn storage_of(
    status: StatusCode,
    headers: &HeaderMap,
    authority: &str,
    hosts: &BlobHosts,
) -> Result<Option<Storage>, Trouble> {
    let leads_to = |what: &str| Trouble::Storage(format!("the registry redirects the blob to {what}"));
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let Some(location) = location.filter(|_| status.is_redirection()) else {
        return Ok(None);
    };
    if own_path(location, authority).is_some() {
        return Ok(None);
    }
    let uri = location.parse::<Uri>().ok();
    let target = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.host()?, port_of(uri)?)));
    let Some(("https", host, port)) = target else {
        return Err(leads_to("an address that is not https://HOST or https://HOST:PORT"));
    };
    let domain = Domain::of(host, port);
    let host = domain.host();
    if !hosts.allow(host, port) {
        return Err(leads_to(&format!("{host}:{port}, which is not a known storage host: blob_hosts can add it")));
    }
    Ok(Some(Storage {
        target: Zeroizing::new(signed_target(location).into_bytes()),
        digest: headers.get(DIGEST).cloned(),
        domain,
        kept: None,
    }))
}

/// The port of an address, `None` if it is none. The library takes that for no port at all.
fn port_of(uri: &Uri) -> Option<u16> {
    oci::authority::split(uri.authority()?.as_str()).1.map_or(Some(HTTPS), oci::authority::port)
}

/// Path and query of an address, byte for byte: a parser that writes them anew would break the signature. The address of
/// a data endpoint may have no path, only a query; a request needs one.
fn signed_target(location: &str) -> String {
    let rest = location.split_once("://").map_or(location, |(_, rest)| rest);
    let rest = rest.split('#').next().unwrap_or_default();
    let target = &rest[rest.find(['/', '?']).unwrap_or(rest.len())..];
    if target.starts_with('/') { target.to_owned() } else { format!("/{target}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTRY: &str = "example.azurecr.io";

    #[test]
    fn the_address_of_a_data_endpoint_that_has_no_path_keeps_its_query() {
        for (location, target) in [
            ("https://x.blob.core.windows.net/a//data?se=1&sig=a%2Fb", "/a//data?se=1&sig=a%2Fb"),
            ("https://x.westeurope.data.azurecr.io?r=a/b&d=sha256:0&s=c&v=1", "/?r=a/b&d=sha256:0&s=c&v=1"),
            ("https://x.westeurope.data.azurecr.io/?r=a/b&s=c", "/?r=a/b&s=c"),
            ("https://x.blob.core.windows.net/a?sig=b#part", "/a?sig=b"),
            ("https://x.blob.core.windows.net", "/"),
        ] {
            assert_eq!(signed_target(location), target, "{location}");
        }
    }

    #[test]
    fn a_redirect_of_the_registry_to_itself_goes_to_the_client_also_by_its_default_port() {
        let hosts = BlobHosts::new(REGISTRY, &[]);
        let storage = |location| {
            let headers = HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_static(location))]);
            storage_of(StatusCode::TEMPORARY_REDIRECT, &headers, REGISTRY, &hosts)
        };
        for location in ["/v2/hub/x/blobs/y", "https://example.azurecr.io:443/v2/x", "https://EXAMPLE.azurecr.io/v2/x"]
        {
            assert!(matches!(storage(location), Ok(None)), "{location}");
        }
        let no_port = "https://x.blob.core.windows.net:99999/a";
        for location in ["https://example.azurecr.io:8443/v2/x", "//example.azurecr.io/v2/x", "x", no_port] {
            assert!(storage(location).is_err(), "{location}");
        }
    }
}
