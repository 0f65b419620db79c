//! Requests of browsers, which are refused.
//!
//! Clients are not authenticated, so a page that a user of this host opens in a browser could read private manifests. It could
//! ask for `127.0.0.1` directly, or let its own host name resolve to this host once it is loaded (DNS rebinding); then the
//! browser takes this proxy for the server that the page came from. No container client is a browser.

use http::{HeaderMap, HeaderName, header};
use oci::authority;

/// Where a browser says from which site's page a request comes (W3C Fetch Metadata).
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// By what a browser is known.
pub(crate) static SENT: [HeaderName; 3] = [header::ORIGIN, SITE, header::ACCEPT_LANGUAGE];

/// Whether a browser sent the request. Of each one it says so: by `Origin`, or by `Sec-Fetch-Site`, which it leaves out over plain HTTP
/// to any host but its own, so also to a name that was made to resolve to this host; or else by `Accept-Language`, which no page
/// can remove. Whether a page or the user has asked is not looked at, because there is nothing here for a user either.
pub(crate) fn sent(headers: &HeaderMap) -> bool {
    SENT.iter().any(|name| headers.contains_key(name))
}

/// Whether the admin listener's own page may have been asked for by whoever sent this: the user, by typing the address, or the
/// page itself. A page of another host says who it is (`Origin`, `Sec-Fetch-Site`), or cannot read the answer. It must not be
/// asked for by a name: that might be the other page's, made to resolve to this host.
pub(crate) fn sent_by_own_page(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let (host, _) = authority::split(host);
    let is_other = |site: &http::HeaderValue| site != "none" && site != "same-origin";
    let is_address = host.eq_ignore_ascii_case("localhost") || authority::ip(host).is_some();
    is_address && !headers.contains_key(header::ORIGIN) && !headers.get_all(SITE).iter().any(is_other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_page_is_asked_for_by_an_address_and_by_no_other_page() {
        let language = ("accept-language", "en");
        for (headers, expected) in [
            (&[("host", "127.0.0.1:8081"), language][..], true),
            (&[("host", "[::1]:8081"), language], true),
            (&[("host", "localhost:8081"), language, ("sec-fetch-site", "same-origin")], true),
            (&[("host", "192.0.2.1"), language, ("sec-fetch-site", "none")], true),
            (&[("host", "rebound.example:8081"), language], false),
            (&[("host", "rebound.example:8081"), ("sec-fetch-site", "same-origin")], false),
            (&[("host", "127.0.0.1.example"), language], false),
            (&[("host", "127.0.0.1"), language, ("sec-fetch-site", "cross-site")], false),
            (&[("host", "127.0.0.1"), ("origin", "http://127.0.0.1")], false),
            (&[language], false),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().expect("a value"));
            }
            assert_eq!(sent_by_own_page(&map), expected, "{headers:?}");
        }
    }

    #[test]
    fn a_browser_is_told_from_a_client() {
        for (headers, expected) in [
            (&[][..], false),
            (&[("user-agent", "containerd/2.4"), ("accept", "*/*")], false),
            (&[("origin", "http://evil.example")], true),
            (&[("origin", "null")], true),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "")], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:8080")], true),
            (&[("sec-fetch-site", "none"), ("accept-language", "en")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], true),
            (&[("accept-language", "en")], true),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().expect("a value"));
            }
            assert_eq!(sent(&map), expected, "{headers:?}");
        }
    }
}
