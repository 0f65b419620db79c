//! The login server of a cache registry, or where its blobs are.

use http::HeaderValue;
use oci::authority;

/// The port of `https`.
const DEFAULT_PORT: u16 = 443;
/// RFC 1035 section 2.3.4.
const MAX_HOST: usize = 253;
const MAX_LABEL: usize = 63;

/// A server that is asked by HTTPS, a registry's login server or a storage: a host name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Domain {
    host: String,
    port: u16,
    authority: String,
}

impl Domain {
    /// `example.azurecr.io`, `example.azurecr.io:5000`, `10.0.0.5`, `[fd00::5]:5000`. The error says what to use.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("{text:?} {what}, such as example.azurecr.io"));
        if text.contains("://") {
            return wrong("has a scheme: use the login server alone, without https://");
        }
        if text.contains(['/', '@', '?', '#']) {
            return wrong("is more than a host: a cache rule's path goes into the prefix; use the login server alone");
        }
        let (host, port) = authority::split(text);
        let port = port.map_or(Some(DEFAULT_PORT), authority::port).filter(|&port| port != 0);
        let Some(port) = port else {
            return wrong("has no port from 1 to 65535 after the colon: use the login server");
        };
        if authority::ip(host).is_none() && !is_host_name(host) {
            return wrong("is not a host name: use the login server");
        }
        Ok(Self::of(host, port))
    }

    /// Of a host, an IPv6 address in brackets, and a port.
    pub(crate) fn of(host: &str, port: u16) -> Self {
        let host = host.to_ascii_lowercase();
        let authority = if port == DEFAULT_PORT { host.clone() } else { format!("{host}:{port}") };
        Self { host, port, authority }
    }

    /// The host, an IPv6 address in brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The port, 443 by default.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What goes into `Host`: the port only where it is not 443.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The same as a header's value.
    pub(crate) fn to_header(&self) -> HeaderValue {
        // A host is letters, digits, hyphens, dots, colons and brackets: each is good in a header.
        HeaderValue::from_str(&self.authority).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    /// What the certificate has to be for: the host without brackets.
    pub(crate) fn server_name(&self) -> &str {
        authority::without_brackets(&self.host)
    }
}

/// Letters, digits and hyphens in labels (RFC 1123 section 2.1). A last label of digits is a mistyped address.
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    text.len() <= MAX_HOST && text.split('.').all(label) && !last_is_number
}
