//! TLS of the commands that are clients of a proxy, `warm` and `bench`: whom they trust, and the certificate that they present to
//! the proxy, and to nobody else.

use std::path::PathBuf;

use rustls::{ClientConfig, InconsistentKeys};

use crate::config::TlsKey;
use crate::listen::certificate;
use crate::net::trust::TrustRoots;

/// A certificate and its key, by their files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Presented {
    certificate: PathBuf,
    key: PathBuf,
}

impl Presented {
    /// By the flags `--certificate` and `--key`, if they are given. The error is a sentence.
    pub(crate) fn of_flags(certificate: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<Self>, &'static str> {
        match (certificate, key) {
            (Some(certificate), Some(key)) => Ok(Some(Self { certificate, key })),
            (None, None) => Ok(None),
            (Some(_), None) => Err("--certificate: it is presented with its key: name that with --key"),
            (None, Some(_)) => Err("--key: it belongs to a certificate: name that with --certificate"),
        }
    }

    /// Settings of TLS by which it is presented to servers that ask for one. Reads the files; the error is a sentence.
    pub(crate) fn client(&self, roots: &TrustRoots) -> Result<ClientConfig, String> {
        let Self { certificate, key } = self;
        let (chain, private_key) = certificate::pair(certificate, key)
            .map_err(|wrong| format!("{}: {}", flag(wrong.key), wrong.to_sentence()))?;
        let client = roots.builder().map_err(|cause| format!("TLS client: {cause}"))?;
        client.with_client_auth_cert(chain, private_key).map_err(|cause| match cause {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
                "--key: {}: it does not belong to the first certificate of {}: name its own key",
                key.display(),
                certificate.display()
            ),
            cause => format!("--certificate: {}: it cannot be used: {cause}", certificate.display()),
        })
    }
}

fn flag(key: TlsKey) -> &'static str {
    match key {
        TlsKey::Certificate => "--certificate",
        TlsKey::Key => "--key",
        TlsKey::ClientCa => "--ca-file",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// A certificate and its key, in PEM.
    fn pair() -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["node-7".to_owned()]).expect("a name");
        (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    }

    fn write(folder: &Path, name: &str, content: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    #[test]
    fn one_of_the_two_flags_says_that_the_other_is_missing() {
        let path = || Some(PathBuf::from("x"));
        assert_eq!(Presented::of_flags(None, None), Ok(None));
        assert!(Presented::of_flags(path(), None).is_err_and(|wrong| wrong.starts_with("--certificate: ")));
        assert!(Presented::of_flags(None, path()).is_err_and(|wrong| wrong.starts_with("--key: ")));
        assert!(Presented::of_flags(path(), path()).is_ok_and(|both| both.is_some()));
    }

    #[test]
    fn files_that_are_no_pair_are_told_by_flag_and_file_and_not_quoted() {
        let folder = tempfile::tempdir().expect("a folder");
        let ((certificate, key), (_, other)) = (pair(), pair());
        let certificate = write(folder.path(), "certificate.pem", &certificate);
        let key = write(folder.path(), "key.pem", &key);
        let other = write(folder.path(), "other.pem", &other);
        let missing = folder.path().join("none.pem");
        let load = |certificate: &Path, key: &Path| {
            let presented = Presented { certificate: certificate.to_owned(), key: key.to_owned() };
            presented.client(&TrustRoots::none()).map(drop)
        };
        assert_eq!(load(&certificate, &key), Ok(()));
        for (given, says) in [
            ((&certificate, &other), format!("--key: {}: it does not belong", other.display())),
            ((&certificate, &missing), format!("--key: {}: No such file", missing.display())),
            ((&missing, &key), format!("--certificate: {}: No such file", missing.display())),
            ((&key, &key), format!("--certificate: {}: no certificate is in it", key.display())),
            ((&certificate, &certificate), format!("--key: {}: no private key is in it", certificate.display())),
        ] {
            let wrong = load(given.0, given.1).expect_err(&says);
            assert!(wrong.starts_with(&says) && !wrong.contains("BEGIN CERTIFICATE\n"), "{says}: {wrong}");
        }
    }
}
