//! Paths of credentials that systemd hands to a unit (systemd.exec(5)): `$CREDENTIALS_DIRECTORY/` and a name. Only processes of the unit's
//! start have the directory: `ExecReload=` has none, or, as of systemd 252, one that it may not enter, and no command of a person has one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::installed::OWN_UNIT;
use crate::unit::Unit;

const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";
const BEGIN: &str = "$CREDENTIALS_DIRECTORY/";
/// Below which systemd has those of each service, by its name.
const ALL: &str = "/run/credentials";

/// A path, which is one of a credential if it begins so; as it is written where this process has none, or may not enter its place. No other variable is replaced.
pub(super) fn parse(text: &str) -> Result<PathBuf, String> {
    path(text, own_directory())
}

/// The directory that this process may enter, if it has one.
fn own_directory() -> Option<OsString> {
    let is_closed = |directory: &OsString| access(directory.as_os_str(), AccessFlags::X_OK) == Err(Errno::EACCES);
    std::env::var_os(DIRECTORY).filter(|directory| !directory.is_empty() && !is_closed(directory))
}

fn path(text: &str, directory: Option<OsString>) -> Result<PathBuf, String> {
    let Some(name) = text.strip_prefix(BEGIN) else { return Ok(PathBuf::from(text)) };
    // As systemd names them.
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(format!(
            "{text:?} is not a credential: use {BEGIN} and a name of LoadCredential=, such as {BEGIN}client-secret"
        ));
    }
    Ok(directory.map_or_else(|| PathBuf::from(text), |directory| PathBuf::from(directory).join(name)))
}

/// Whether it is a credential's, and this process has none.
pub(crate) fn is_elsewhere(path: &Path) -> bool {
    path.starts_with(BEGIN)
}

/// The name of the credential of the unit that a path leads to, written either way, if this process is none of the unit's start.
pub(crate) fn of_unit(path: &Path) -> Option<&str> {
    let directory = Path::new(ALL).join(OWN_UNIT);
    let is_own = || own_directory().is_some_and(|own| Path::new(&own) == directory);
    let absolute = || path.strip_prefix(&directory).ok().filter(|_| !is_own());
    path.strip_prefix(BEGIN).ok().or_else(absolute)?.to_str()
}

/// The name of the credential of this path, if it is one and the unit does not hand it over.
pub(crate) fn not_handed_over<'a>(unit: &Unit, path: &'a Path) -> Option<&'a str> {
    of_unit(path).filter(|name| !unit.hands_over(name))
}

/// Why such a path leads nowhere here, a sentence.
pub(crate) fn lack(path: &Path) -> Option<String> {
    let name = path.strip_prefix(BEGIN).ok()?.display();
    let is_set = std::env::var_os(DIRECTORY).is_some_and(|directory| !directory.is_empty());
    let why = if is_set { "may not be entered by this process" } else { "is not set here" };
    Some(format!("{DIRECTORY} {why}: systemd sets it in a unit with LoadCredential={name}:<file>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_a_credential_is_in_the_directory_that_systemd_names_or_as_it_is_written_where_there_is_none() {
        let directory = || Some(OsString::from("/run/credentials/acr-cache-proxy.service"));
        for (text, directory, expected) in [
            ("/etc/client.pem", None, Ok("/etc/client.pem")),
            ("$HOME/client.pem", directory(), Ok("$HOME/client.pem")),
            (
                "$CREDENTIALS_DIRECTORY/client.pem",
                directory(),
                Ok("/run/credentials/acr-cache-proxy.service/client.pem"),
            ),
            ("$CREDENTIALS_DIRECTORY/client.pem", None, Ok("$CREDENTIALS_DIRECTORY/client.pem")),
            ("$CREDENTIALS_DIRECTORY/", directory(), Err("is not a credential")),
            ("$CREDENTIALS_DIRECTORY/..", directory(), Err("is not a credential")),
            ("$CREDENTIALS_DIRECTORY/a/b", directory(), Err("is not a credential")),
        ] {
            match (path(text, directory), expected) {
                (Ok(path), Ok(expected)) => assert_eq!(path, PathBuf::from(expected)),
                (Err(wrong), Err(says)) => assert!(wrong.contains(says), "{text}: {wrong}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn only_a_path_as_it_is_written_is_elsewhere() {
        for (path, expected) in [
            ("$CREDENTIALS_DIRECTORY/a", true),
            ("/run/credentials/a", false),
            ("/$CREDENTIALS_DIRECTORY/a", false),
            ("$CREDENTIALS_DIRECTORY_2/a", false),
        ] {
            assert_eq!((is_elsewhere(path.as_ref()), lack(path.as_ref()).is_some()), (expected, expected), "{path}");
        }
    }

    #[test]
    fn a_credential_of_the_unit_is_known_by_either_way_to_write_its_path() {
        for (path, expected) in [
            ("$CREDENTIALS_DIRECTORY/a", Some("a")),
            ("/run/credentials/acr-cache-proxy.service/a", Some("a")),
            ("/run/credentials/other.service/a", None),
            ("/etc/a", None),
        ] {
            assert_eq!(of_unit(path.as_ref()), expected, "{path}");
            assert_eq!(not_handed_over(&Unit::default(), path.as_ref()), expected, "{path}");
        }
    }
}
