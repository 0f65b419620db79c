//! Scheme, host and port.

use std::fmt;

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    tls: bool,
    /// An IPv6 address in brackets.
    host: String,
    port: u16,
}

impl Origin {
    /// `https://`, for a registry. An IPv6 address has brackets.
    pub fn https(host: &str, port: u16) -> Self {
        Self { tls: true, host: host.to_ascii_lowercase(), port }
    }

    /// `http://host[:port]` or `https://…`, and the path and query after it, `/` if there is none. `None` for anything else.
    pub fn parse_url(url: &str) -> Option<(Self, String)> {
        let uri: http::Uri = url.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let port = match authority.port() {
            Some(port) => port.as_str().parse().ok().filter(|port| *port != 0)?,
            None => Self::default_port(tls),
        };
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        // A data endpoint's address may have a query and no path.
        let slash = if target.starts_with('/') { "" } else { "/" };
        Some((Self { tls, host: authority.host().to_ascii_lowercase(), port }, format!("{slash}{target}")))
    }

    fn default_port(tls: bool) -> u16 {
        if tls { 443 } else { 80 }
    }

    /// The host, an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// 80 or 443 if the URL names none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is `https://`.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The name in the certificate: the host without brackets.
    pub fn server_name(&self) -> &str {
        oci::authority::without_brackets(&self.host)
    }

    /// The value of `Host`.
    pub fn authority(&self) -> String {
        if self.port == Self::default_port(self.tls) {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed_in_all_their_forms() {
        for (url, shown, path) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "/"),
            (
                "https://X.blob.core.windows.net:443/a//b?sig=c%2Fd",
                "https://x.blob.core.windows.net",
                "/a//b?sig=c%2Fd",
            ),
            ("https://x.westeurope.data.azurecr.io?r=a/b&s=c", "https://x.westeurope.data.azurecr.io", "/?r=a/b&s=c"),
            ("http://[::1]:80/", "http://[::1]", "/"),
        ] {
            let (origin, rest) = Origin::parse_url(url).expect(url);
            assert_eq!((origin.to_string().as_str(), rest.as_str()), (shown, path), "{url}");
        }
        for url in ["127.0.0.1:8080", "ftp://a/", "http://", "http://a:0/", "http://user:pw@a/", "/v2/", "http://a b/"]
        {
            assert!(Origin::parse_url(url).is_none(), "{url}");
        }
    }
}
