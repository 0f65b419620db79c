//! `certs.d`: for each address the certificates that are trusted there, and those by which a client shows who it is. One that cannot be loaded
//! fails every request to its address before it is sent, also where no TLS is spoken.

use super::ROOTS;
use super::Release;
use crate::host::{DENIED, Host};

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

/// The directories as root looks for them.
pub(super) struct Certificates {
    /// The name of each, which is an address, and the file in it that cannot be loaded, and why.
    faults: Vec<(String, (String, String))>,
}

impl Certificates {
    pub(super) fn read(host: &Host, release: Release) -> Self {
        let own = format!("{ROOTS}/{USERS}");
        let systems = if release == Release::Podman6 { &SINCE_6[..] } else { &BEFORE_6 };
        let mut known = Vec::new();
        let mut faults = Vec::new();
        for directory in [own.as_str()].into_iter().chain(systems.iter().copied()) {
            for name in host.list(directory).unwrap_or_default() {
                // The first one counts, also if it is empty.
                if known.contains(&name) {
                    continue;
                }
                faults.extend(fault(host, &format!("{directory}/{name}")).map(|fault| (name.clone(), fault)));
                known.push(name);
            }
        }
        Self { faults }
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
        let read = || host.read(&path).and_then(|text| text.content.err()).filter(|wrong| wrong != DENIED);
        let wrong = match name.rsplit_once('.')? {
            (_, "crt") => read(),
            (stem, "cert") => lacks(format!("{stem}.key"), "key").or_else(read),
            (stem, "key") => lacks(format!("{stem}.cert"), "certificate").or_else(read),
            _ => None,
        };
        Some((path, wrong?))
    })
}
