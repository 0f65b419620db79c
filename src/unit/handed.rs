//! What a unit hands to the process that it starts: variables and credentials.

use std::fs;
use std::path::{Path, PathBuf};

use super::Unit;
use crate::glob;
use crate::host::Host;
use crate::installed::{OWN_UNIT, runs_systemd};

/// The keys that hand over a credential by its name, which ends before a colon (systemd.exec(5)).
const NAMED: [&str; 4] = ["LoadCredential", "LoadCredentialEncrypted", "SetCredential", "SetCredentialEncrypted"];
/// The one that hands over those of a pattern.
const PATTERN: &str = "ImportCredential";

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
        (is_its && unit.unknown.is_empty()).then_some(unit)
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
