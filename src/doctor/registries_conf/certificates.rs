//! `certs.d`: for each address the certificates that are trusted there, and those by which a client shows who it is. One that cannot be loaded
//! fails every request to its address before it is sent, also where no TLS is spoken.

use std::collections::BTreeSet;

use super::ROOTS;
use super::Release;
use crate::host::{CERTIFICATE, DENIED, Host, PEM};

const BEFORE_6: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];
const SINCE_6: [&str; 5] = [
    "/etc/containers/certs.rootful.d",
    "/etc/containers/certs.d",
    "/usr/share/containers/certs.rootful.d",
    "/usr/share/containers/certs.d",
    "/etc/docker/certs.d",
];
/// Of a user, and counts before the system's.
const USERS: &str = ".config/containers/certs.d";

/// Where root's certs.d are, those that count before others first.
fn places(release: Release) -> impl Iterator<Item = String> {
    let systems = if release == Release::Podman6 { &SINCE_6[..] } else { &BEFORE_6 };
    [format!("{ROOTS}/{USERS}")].into_iter().chain(systems.iter().map(|place| (*place).to_owned()))
}

/// The directory that counts for an address, which is the first that is there, also if it is empty. `None` if there is none.
pub(in crate::doctor) fn directory_of(host: &Host, address: &str, release: Release) -> Option<String> {
    let mut directories = places(release).map(|place| format!("{place}/{address}"));
    directories.find(|path| host.at(path).is_ok_and(|at| at.exists()))
}

/// What is wrong in the directories that count.
pub(super) struct Certificates {
    /// The name of each, which is an address, and the file in it that cannot be loaded, and why.
    faults: Vec<(String, (String, String))>,
}

impl Certificates {
    pub(super) fn read(host: &Host, release: Release) -> Self {
        let names: BTreeSet<_> = places(release).flat_map(|place| host.list(&place).unwrap_or_default()).collect();
        let faults = names.into_iter().filter_map(|name| {
            let fault = fault(host, &directory_of(host, &name, release)?)?;
            Some((name, fault))
        });
        Self { faults: faults.collect() }
    }

    /// What fails requests to this address, which is a host with its port: a file, and why it cannot be loaded.
    pub(super) fn fault(&self, address: &str) -> Option<&(String, String)> {
        self.faults.iter().find(|(name, _)| name == address).map(|(_, fault)| fault)
    }
}

fn fault(host: &Host, directory: &str) -> Option<(String, String)> {
    let names = match host.list(directory) {
        Ok(names) => names,
        Err(wrong) if wrong == DENIED => return None,
        Err(wrong) => return Some((directory.to_owned(), wrong)),
    };
    let has = |name: &str| names.iter().any(|known| known == name);
    names.iter().find_map(|name| {
        let path = format!("{directory}/{name}");
        let lacks =
            |other: String, what: &str| (!has(&other)).then(|| format!("its {what}, {other}, is not beside it"));
        // A link that leads nowhere is none.
        let unread = |begin: &str, lacks: Option<&str>| match host.has_pem(&path, begin)? {
            Ok(true) => None,
            Ok(false) => lacks.map(str::to_owned),
            Err(wrong) => Some(wrong).filter(|wrong| wrong != DENIED),
        };
        let wrong = match name.rsplit_once('.')? {
            // One without a certificate adds none, which fails nothing.
            (_, "crt") => unread(CERTIFICATE, None),
            (stem, "cert") => {
                lacks(format!("{stem}.key"), "key").or_else(|| unread(CERTIFICATE, Some("it has no certificate")))
            }
            (stem, "key") => {
                lacks(format!("{stem}.cert"), "certificate").or_else(|| unread(PEM, Some("it is not PEM")))
            }
            _ => None,
        };
        Some((path, wrong?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A comment in Latin-1 was said to fail every pull. Go takes the file.
    #[test]
    fn a_certificate_with_a_comment_of_any_encoding_is_loaded() {
        const OLD: &[u8] = b"# M\xfcller\n-----BEGIN CERTIFICATE-----\n";
        const DER: &[u8] = b"\x30\x82\x03\xff";
        for (files, wrong) in [
            (&[("ca.crt", OLD), ("client.cert", OLD), ("client.key", OLD)][..], None),
            (&[("ca.crt", DER)], None),
            (&[("client.cert", DER), ("client.key", OLD)], Some("it has no certificate")),
            (&[("client.cert", OLD), ("client.key", DER)], Some("it is not PEM")),
        ] {
            let root = tempfile::tempdir().expect("a directory");
            let directory = root.path().join("a");
            std::fs::create_dir(&directory).expect("made");
            for (name, content) in files {
                std::fs::write(directory.join(name), content).expect("written");
            }
            let found = fault(&Host::new(root.path().to_owned()), "/a").map(|(_, wrong)| wrong);
            assert_eq!(found.as_deref(), wrong, "{files:?}");
        }
    }
}
