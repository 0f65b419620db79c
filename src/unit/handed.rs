//! What a unit hands to the process that it starts: variables and credentials.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Unit, specifier};
use crate::glob;
use crate::host::Host;
use crate::installed::{OWN_UNIT, runs_systemd};

/// The keys that hand over a credential by its name, which ends before a colon (systemd.exec(5)).
const NAMED: [&str; 4] = ["LoadCredential", "LoadCredentialEncrypted", "SetCredential", "SetCredentialEncrypted"];
/// The one that hands over those of a pattern.
const PATTERN: &str = "ImportCredential";

/// Whether what a line hands over is known to the letter: without escapes, specifiers that only the manager knows, and quotation marks that
/// systemd refuses, with which it leaves out what the line has.
pub(super) fn is_exact(key: &str, value: &str) -> bool {
    let is_paired = |mark| value.matches(mark).count().is_multiple_of(2);
    match key {
        "Environment" => !value.contains('\\') && specifier::are_known(value) && is_paired('"') && is_paired('\''),
        "EnvironmentFile" => specifier::are_known(value) && !value.contains(['"', '\'']),
        _ => true,
    }
}

impl Unit {
    /// This host's own, if systemd starts it with the configuration in this file, and all that it says is known.
    pub(crate) fn own_of(host: &Host, config: &Path) -> Option<Self> {
        if !host.is_this() || !runs_systemd() { None } else { Self::started_with(host, config) }
    }

    /// The same of any tree.
    pub(crate) fn started_with(host: &Host, config: &Path) -> Option<Self> {
        let unit = Self::read(host, OWN_UNIT);
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let is_its = unit.flag("config").pop().is_some_and(|named| real(&PathBuf::from(named)) == real(config));
        (is_its && unit.is_known_whole()).then_some(unit)
    }

    /// All that it hands over is known, and to the letter.
    pub(crate) fn is_known_whole(&self) -> bool {
        self.unknown.is_empty() && !self.is_inexact
    }

    /// A variable by exactly this name, which may be empty, and the file that sets it.
    pub(crate) fn given(&self, name: &str) -> Option<(&str, &str)> {
        self.environment.get(name).map(|(value, file)| (value.as_str(), file.as_str()))
    }

    /// All of them, each with its value.
    pub(crate) fn gives(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().map(|(name, (value, _))| (name.as_str(), value.as_str()))
    }

    /// Whether it hands over a credential of this name. One of a directory has the directory's name before its own.
    pub(crate) fn hands_over(&self, name: &str) -> bool {
        let is_it = |value: &String| {
            let id = value.split(':').next().unwrap_or_default();
            name.strip_prefix(id).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        };
        NAMED.iter().any(|key| self.values(key).iter().any(is_it))
            || self.values(PATTERN).iter().any(|pattern| glob::matches(pattern, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value that systemd has in another way was said to be another one than the process has, also right after its start.
    #[test]
    fn what_systemd_reads_in_another_way_is_not_known_to_the_letter() {
        for (key, value, expected) in [
            ("Environment", "A=b \"C=d e\"", true),
            ("Environment", "A=%d/client.pem B=100%%", true),
            ("Environment", "A=b\\x2cc", false),
            ("Environment", "A=%H", false),
            ("Environment", "A=http://user:p%40pw@proxy:3128", false),
            ("Environment", "\"A=b", false),
            ("EnvironmentFile", "-/etc/my dir/environment", true),
            ("EnvironmentFile", "\"/etc/environment\"", false),
            ("ExecStart", "/bin/sh -c \"exec a\\b", true),
        ] {
            assert_eq!(is_exact(key, value), expected, "{key}={value}");
        }
    }

    #[test]
    fn a_credential_is_handed_over_by_its_name_by_a_directory_or_by_a_pattern() {
        let unit =
            |lines: &str| Unit { texts: vec![(String::new(), format!("[Service]\n{lines}\n"))], ..Unit::default() };
        for (lines, expected) in [
            ("", false),
            ("LoadCredential=secret:/etc/secret", true),
            ("LoadCredential=secret", true),
            ("LoadCredentialEncrypted=secret:/etc/secret.cred", true),
            ("SetCredential=secret:value", true),
            ("LoadCredential=other:/etc/secret", false),
            ("LoadCredential=secret:/a\nLoadCredential=", false),
            ("LoadCredential=sec:/etc/directory", false),
            ("ImportCredential=sec*", true),
        ] {
            assert_eq!(unit(lines).hands_over("secret"), expected, "{lines}");
        }
        assert!(unit("LoadCredential=keys:/etc/keys").hands_over("keys_secret"), "of a directory");
    }
}
