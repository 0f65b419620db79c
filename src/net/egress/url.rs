//! The address of a forward proxy, with the credentials that may be in it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use oci::authority;
use percent_encoding::percent_decode_str;
use reqwest::Url;
use rustls::pki_types::ServerName;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// A longer one is something else.
const MAX_URL: usize = 4 << 10;
/// What an address has to look like.
pub(crate) const PROXY_FORM: &str = "use http://HOST:PORT or https://HOST:PORT, with USER:PASSWORD@ before the host if it wants them, special \
                     characters percent-encoded";

/// A forward proxy as a setting or variable names it. `Debug` masks the credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyUrl {
    host: String,
    port: u16,
    /// What its certificate is for, if it is spoken to over TLS.
    server_name: Option<ServerName<'static>>,
    /// `USER:PASSWORD` in base64.
    credentials: Option<Secret>,
}

impl ProxyUrl {
    /// `http://HOST:PORT` or `https://HOST:PORT`, with `USER:PASSWORD@` before the host if it wants them; without a scheme it is
    /// `http`, and without a port that of the scheme, as with reqwest. The error says what is wrong, and quotes nothing that may be a
    /// secret.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || format!("it is not the address of a proxy: {PROXY_FORM}");
        let scheme = match text.split_once("://") {
            Some((scheme, _)) => scheme.to_ascii_lowercase(),
            None => "http".to_owned(),
        };
        match scheme.as_str() {
            "http" | "https" => {}
            "socks" | "socks4" | "socks4a" | "socks5" | "socks5h" => {
                return Err(format!("a SOCKS proxy is not supported: {PROXY_FORM}"));
            }
            _ => return Err(wrong()),
        }
        if text.is_empty() || text.len() > MAX_URL || text.contains(char::is_control) {
            return Err(wrong());
        }
        let url = if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
        let url = url.map_err(|_| wrong())?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let port = url.port_or_known_default().ok_or_else(wrong)?;
        let server_name = match scheme.as_str() {
            "https" => {
                let name = authority::without_brackets(host).to_owned();
                Some(ServerName::try_from(name).map_err(|_| wrong())?)
            }
            _ => None,
        };
        if port == 0 || url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong());
        }
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some(credentials(user, password.unwrap_or_default()).ok_or_else(wrong)?),
        };
        Ok(Self { host: host.to_owned(), port, server_name, credentials })
    }

    /// The host, an IPv6 address in brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// What its certificate has to be for, if it is spoken to over TLS.
    pub(crate) fn server_name(&self) -> Option<&ServerName<'static>> {
        self.server_name.as_ref()
    }

    /// The port, 80 or 443 by default.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, as the log names the proxy.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// `Basic ...`, for `Proxy-Authorization`. Its clones share one buffer, which is wiped after the last of them.
    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        let credentials = self.credentials.as_ref()?.expose();
        let mut text = Zeroizing::new(Vec::with_capacity("Basic ".len() + credentials.len()));
        text.extend_from_slice(b"Basic ");
        text.extend_from_slice(credentials.as_bytes());
        // Base64 is good in a header.
        let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// As RFC 7617 has them; a user with a colon cannot be told from one with a longer password.
fn credentials(user: &str, password: &str) -> Option<Secret> {
    let user = Zeroizing::new(percent_decode_str(user).collect::<Vec<u8>>());
    let password = Zeroizing::new(percent_decode_str(password).collect::<Vec<u8>>());
    if user.contains(&b':') || user.iter().chain(password.iter()).any(u8::is_ascii_control) {
        return None;
    }
    let mut both = Zeroizing::new(Vec::with_capacity(user.len() + 1 + password.len()));
    both.extend_from_slice(&user);
    both.push(b':');
    both.extend_from_slice(&password);
    Some(Secret::new(STANDARD.encode(&*both)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_a_port_and_perhaps_credentials() {
        for (text, name, basic) in [
            ("http://proxy.corp:3128", "proxy.corp:3128", None),
            ("http://proxy.corp:3128/", "proxy.corp:3128", None),
            ("HTTP://Proxy.Corp", "proxy.corp:80", None),
            ("proxy.corp:3128", "proxy.corp:3128", None),
            ("https://Proxy.Corp", "proxy.corp:443", None),
            ("https://user:pass@[fd00::1]:3129", "[fd00::1]:3129", Some("user:pass")),
            ("user:pass@10.0.0.1:8080", "10.0.0.1:8080", Some("user:pass")),
            ("http://[fd00::1]:3128", "[fd00::1]:3128", None),
            ("http://user@proxy.corp:3128", "proxy.corp:3128", Some("user:")),
            ("http://CORP%5Cuser:p%40ss%3Aw%23rd@proxy.corp:3128", "proxy.corp:3128", Some("CORP\\user:p@ss:w#rd")),
        ] {
            let url = ProxyUrl::parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong}"));
            assert_eq!(url.name(), name, "{text}");
            assert_eq!(url.server_name().is_some(), text.starts_with("https://"), "{text}");
            let expected = basic.map(|basic| format!("Basic {}", STANDARD.encode(basic)));
            let header = url.authorization();
            assert_eq!(header.as_ref().map(HeaderValue::as_bytes), expected.as_deref().map(str::as_bytes), "{text}");
            assert!(header.is_none_or(|header| header.is_sensitive()), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_not_quoted() {
        for (text, says) in [
            ("", "not the address"),
            ("https://user:geheim@-proxy-.corp:3128", "not the address"),
            ("socks5://user:geheim@proxy.corp:1080", "SOCKS"),
            ("ftp://user:geheim@proxy.corp", "not the address"),
            ("http://user:geheim@", "not the address"),
            ("http://user:geheim#x@proxy.corp:3128", "percent-encoded"),
            ("http://user:geheim/x@proxy.corp:3128", "percent-encoded"),
            ("http://user:12#geheim@proxy.corp:3128", "percent-encoded"),
            ("http://us%3Aer:geheim@proxy.corp:3128", "percent-encoded"),
            ("http://user:geheim%0D%0AX: y@proxy.corp:3128", "percent-encoded"),
            ("http://proxy.corp:3128/geheim", "not the address"),
            ("http://proxy.corp:0", "not the address"),
            ("http://proxy.corp:99999", "not the address"),
        ] {
            let wrong = ProxyUrl::parse(text).expect_err(text);
            assert!(wrong.contains(says) && !wrong.contains("geheim"), "{text}: {wrong}");
        }
    }

    #[test]
    fn credentials_are_masked() {
        let url = ProxyUrl::parse("http://user:geheim@proxy.corp:3128").expect("an address");
        let said = format!("{url:?} {:?}", url.authorization());
        assert!(!said.contains("geheim") && !said.contains(&STANDARD.encode("user:geheim")), "{said}");
        assert!(said.contains("Secret(***)") && said.contains("Sensitive"), "{said}");
    }
}
