//! What is wrong with the certificate of a server and what to do about it, in the same words for a request, a call for a token and
//! `check`.

use std::error::Error;
use std::{fmt, io};

use rustls::CertificateError;

/// How rustls begins to say that a certificate is not taken.
const OF_CERTIFICATE: &str = "invalid peer certificate: ";

/// What is wrong. Displays as one sentence: what to do, and the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Nobody who is trusted has signed it.
    UnknownIssuer,
    /// It is for other names.
    OtherName,
    /// It has ended.
    Expired,
    /// It has not begun.
    NotYet,
    /// Who has signed it has taken that back.
    Revoked,
    /// It is one of X.509 version 1, as `openssl x509 -req` without extensions makes it.
    VersionOne,
    /// It is a CA's own, as `openssl req -x509` makes it.
    OfAuthority,
    /// Another fault.
    Unusable,
}

impl Wrong {
    const ALL: [Self; 8] = [
        Self::UnknownIssuer,
        Self::OtherName,
        Self::Expired,
        Self::NotYet,
        Self::Revoked,
        Self::VersionOne,
        Self::OfAuthority,
        // Its words begin as any others.
        Self::Unusable,
    ];

    /// By what rustls says of it.
    pub(crate) fn of(wrong: &CertificateError) -> Self {
        match wrong {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::OtherName,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYet,
            CertificateError::Revoked => Self::Revoked,
            // What these wrap has a type of webpki's, of which rustls shows the words alone.
            CertificateError::Other(other) => Self::of_what(&format!("Other({other:?}")),
            _ => Self::Unusable,
        }
    }

    /// If a certificate is the cause of this error.
    pub(crate) fn of_error(error: &(dyn Error + 'static)) -> Option<Self> {
        match of_tls(error)? {
            rustls::Error::InvalidCertificate(wrong) => Some(Self::of(wrong)),
            _ => None,
        }
    }

    /// The same of Pingora's error, which keeps nothing of its cause but the words.
    pub(crate) fn of_words(words: &str) -> Option<Self> {
        words.split_once(OF_CERTIFICATE).map(|(_, what)| Self::of_what(what))
    }

    fn of_what(what: &str) -> Self {
        let is_it = |wrong: &Self| wrong.begins().iter().any(|begin| what.starts_with(begin));
        Self::ALL.into_iter().find(is_it).unwrap_or(Self::Unusable)
    }

    /// How rustls words it.
    fn begins(self) -> &'static [&'static str] {
        match self {
            Self::UnknownIssuer => &["UnknownIssuer", "BadSignature"],
            Self::OtherName => &["certificate not valid for name", "NotValidForName"],
            Self::Expired => &["certificate expired", "Expired"],
            Self::NotYet => &["certificate not valid yet", "NotValidYet"],
            Self::Revoked => &["Revoked"],
            Self::VersionOne => &["Other(OtherError(UnsupportedCertVersion"],
            Self::OfAuthority => &["Other(OtherError(CaUsedAsEndEntity"],
            Self::Unusable => &[""],
        }
    }

    /// What to do about it.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::UnknownIssuer => "a private CA goes into ca_file",
            Self::OtherName => "check the domain and a private endpoint's DNS",
            Self::Expired => "who runs the host has to renew it, or this host's clock is wrong",
            Self::NotYet => "this host's clock is wrong, or the certificate",
            Self::VersionOne => "who runs the host has to issue it anew, with extensions",
            Self::OfAuthority => "who runs the host has to issue another one, with CA:FALSE",
            Self::Revoked | Self::Unusable => "who runs the host has to replace it",
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = match self {
            Self::UnknownIssuer => "unknown issuer",
            Self::OtherName => "not valid for the name",
            Self::Expired => "expired",
            Self::NotYet => "not valid yet",
            Self::Revoked => "revoked",
            Self::VersionOne => "one of X.509 version 1",
            Self::OfAuthority => "a CA's own",
            Self::Unusable => "not one that TLS can use",
        };
        write!(f, "its certificate is not trusted: {}: {cause}", self.remedy())
    }
}

/// The fault of TLS that is a cause of an error. `io::Error` leaves out what it wraps when it is asked for its source.
pub(crate) fn of_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(fault) = error.downcast_ref() {
            return Some(fault);
        }
        next = match error.downcast_ref().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;

    /// `openssl x509 -req -signkey`, and `openssl req -x509`; both for a hundred years.
    const VERSION_ONE: &str = "-----BEGIN CERTIFICATE-----\n\
                               MIIBKDCBzwIUKwmU3zos9yp/tNUT9l1sNzw4n/cwCgYIKoZIzj0EAwIwFjEUMBIG\n\
                               A1UEAwwLdmVyc2lvbiBvbmUwIBcNMjYxMTI4MTM1NzM2WhgPMjEyNjExMDQxMzU3\n\
                               MzZaMBYxFDASBgNVBAMMC3ZlcnNpb24gb25lMFkwEwYHKoZIzj0CAQYIKoZIzj0D\n\
                               AQcDQgAEfbmnmyR7Lsrhtfkcj7h28fEO9iAUWJNB5s51VjFcTVtqUViPhI1sf1gm\n\
                               XPgMb0lOs68U7vWAL0ZETt0JYLWlEjAKBggqhkjOPQQDAgNIADBFAiEA0lEpjlCb\n\
                               a/9CZ10BntLYpExlSPVT9t3AjufgMcFoeawCIDKXoBUSfxXcNUm10EBuhiQtkiLW\n\
                               EukejyBzzODimfIp\n\
                               -----END CERTIFICATE-----";
    const OF_AUTHORITY: &str = "-----BEGIN CERTIFICATE-----\n\
                               MIIBlDCCATugAwIBAgIUIxjYVype37jkFtTwikEDR+MSsj0wCgYIKoZIzj0EAwIw\n\
                               FDESMBAGA1UEAwwJYS5leGFtcGxlMCAXDTI2MTEyODEzNTczNloYDzIxMjYxMTA0\n\
                               MTM1NzM2WjAUMRIwEAYDVQQDDAlhLmV4YW1wbGUwWTATBgcqhkjOPQIBBggqhkjO\n\
                               PQMBBwNCAAR9uaebJHsuyuG1+RyPuHbx8Q72IBRYk0HmznVWMVxNW2pRWI+EjWx/\n\
                               WCZc+AxvSU6zrxTu9YAvRkRO3QlgtaUSo2kwZzAdBgNVHQ4EFgQUJxfB0GzkV9Ex\n\
                               TjsSQrrieD6+OSYwHwYDVR0jBBgwFoAUJxfB0GzkV9ExTjsSQrrieD6+OSYwDwYD\n\
                               VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglhLmV4YW1wbGUwCgYIKoZIzj0EAwID\n\
                               RwAwRAIgR9XVT4B++7GuxOVpc0zz6kTDmw0Tr9G7nkgztxjItPMCIDG/rA44kCVa\n\
                               Xg7Mc6u5TUBJ6jGtd9BYZeIkdUEScUrW\n\
                               -----END CERTIFICATE-----";

    /// Why this certificate is not taken of a server, by whoever trusts it as a CA.
    fn refusal(pem: &str) -> CertificateError {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates([CertificateDer::from_pem_slice(OF_AUTHORITY.as_bytes()).expect("a CA")]);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("a verifier");
        let host = ServerName::try_from("a.example").expect("a name");
        match verifier.verify_server_cert(&certificate, &[], &host, &[], UnixTime::now()) {
            Err(rustls::Error::InvalidCertificate(wrong)) => wrong,
            other => panic!("{other:?}"),
        }
    }

    /// Whoever words them anew in rustls makes this fail, and not the log.
    #[test]
    fn what_is_wrong_is_found_by_the_words_of_rustls_as_by_its_error() {
        let now = || UnixTime::since_unix_epoch(Duration::from_secs(7));
        let expected = ServerName::try_from("invalid.example").expect("a name");
        for (error, wrong) in [
            (CertificateError::UnknownIssuer, Wrong::UnknownIssuer),
            (CertificateError::BadSignature, Wrong::UnknownIssuer),
            (CertificateError::NotValidForName, Wrong::OtherName),
            (
                CertificateError::NotValidForNameContext { expected, presented: vec!["Expired".to_owned()] },
                Wrong::OtherName,
            ),
            (CertificateError::Expired, Wrong::Expired),
            (CertificateError::ExpiredContext { time: now(), not_after: now() }, Wrong::Expired),
            (CertificateError::NotValidYet, Wrong::NotYet),
            (CertificateError::NotValidYetContext { time: now(), not_before: now() }, Wrong::NotYet),
            (CertificateError::Revoked, Wrong::Revoked),
            (CertificateError::BadEncoding, Wrong::Unusable),
            (refusal(VERSION_ONE), Wrong::VersionOne),
            (refusal(OF_AUTHORITY), Wrong::OfAuthority),
        ] {
            let error = rustls::Error::InvalidCertificate(error);
            assert_eq!(Wrong::of_words(&format!("TLS connect() failed: {error}, SNI: x")), Some(wrong), "{error}");
            let wrapped = io::Error::new(io::ErrorKind::InvalidData, error);
            assert_eq!(Wrong::of_error(&wrapped), Some(wrong));
        }
        assert_eq!(Wrong::of_words("TLS connect() failed: tls handshake eof, SNI: Expired"), None);
        assert_eq!(Wrong::of_error(&rustls::Error::DecryptError), None);
    }
}
