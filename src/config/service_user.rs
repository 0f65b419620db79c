//! Whether the user of the host's own service may read the files of its settings. Root, who looks after the service, may read all of them,
//! so root asks the kernel as that user.

use std::fmt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Group, Uid, User, geteuid};

use super::{Config, credential};
use crate::host::Host;
use crate::installed::OWN_UNIT;
use crate::unit::Unit;
use crate::unit::own;

/// The first of the users that `DynamicUser=` takes, and its group (systemd.exec(5)). None of them owns a file.
const DYNAMIC: u32 = 61_184;

/// Who reads the files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServiceUser {
    uid: u32,
    /// Its groups, its own first.
    gids: Vec<u32>,
}

/// A file that is there and that the service may not read, or not run. Displays as a sentence.
#[derive(Clone, Debug)]
pub(crate) struct Closed {
    /// The key that names it; `None` of the file of the settings itself.
    key: Option<String>,
    pub path: PathBuf,
    /// Not everybody may be let read it.
    is_secret: bool,
    /// Without it the proxy does not start.
    pub ends_start: bool,
    /// It is to be run.
    pub is_program: bool,
}

impl Closed {
    /// What has the service read it, or run it.
    pub(crate) fn remedy(&self) -> &'static str {
        match (self.is_secret, self.is_program) {
            (true, _) => "hand it over by LoadCredential=, or let a group read it that SupplementaryGroups= names",
            (false, true) => "let others read and run it, and enter the directories above it",
            (false, false) => "let others read it, and enter the directories above it",
        }
    }

    /// What the service may not do, a clause without its subject.
    pub(crate) fn denial(&self) -> &'static str {
        if self.is_program { "may not run it" } else { "may not read it" }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.as_ref().map(|key| format!("{key} ")).unwrap_or_default();
        write!(f, "{key}{}: the user of {OWN_UNIT} {}: {}", self.path.display(), self.denial(), self.remedy())
    }
}

impl ServiceUser {
    /// The user of the service that is started with this file and these flags of settings; `None` for whoever is not root, where there is no
    /// such service, and where root runs it.
    pub(crate) fn of(host: &Host, file: Option<&str>, given: &[(&str, String)]) -> Option<Self> {
        let is_its =
            host.is_this() && geteuid().is_root() && host.has_unit(OWN_UNIT) && own::other(host, file, given).is_none();
        let unit = is_its.then(|| Unit::read(host, OWN_UNIT))?;
        Self::of_unit(|key| unit.values(key))
    }

    /// The user of a unit with these values of each key.
    fn of_unit(values: impl Fn(&str) -> Vec<String>) -> Option<Self> {
        let gid = |name: &String| {
            let by_name = || Some(Group::from_name(name).ok()??.gid.as_raw());
            name.parse().ok().or_else(by_name)
        };
        let user = values("User").pop().and_then(|name| match name.parse() {
            Ok(id) => User::from_uid(Uid::from_raw(id)).ok()?,
            Err(_) => User::from_name(&name).ok()?,
        });
        let is_dynamic =
            values("DynamicUser").pop().is_some_and(|value| matches!(value.as_str(), "yes" | "true" | "1" | "on"));
        let (uid, own) = match (user, is_dynamic) {
            (Some(user), _) => (user.uid.as_raw(), user.gid.as_raw()),
            (None, true) => (DYNAMIC, DYNAMIC),
            (None, false) => return None,
        };
        let own = values("Group").pop().as_ref().and_then(gid).unwrap_or(own);
        let more = values("SupplementaryGroups");
        let more = more.iter().flat_map(|names| names.split_whitespace()).filter_map(|name| gid(&name.to_owned()));
        (uid != 0).then(|| Self { uid, gids: [own].into_iter().chain(more).collect() })
    }

    /// The files of these settings that it may not read.
    pub(crate) fn closed(&self, file: Option<&str>, config: &Config) -> Vec<Closed> {
        let plain = Closed { key: None, path: PathBuf::new(), is_secret: false, ends_start: true, is_program: false };
        let own = file.map(|path| Closed { path: path.into(), ..plain.clone() });
        // Another one is looked for in the service's PATH.
        let command = config.notify().command.first().filter(|program| program.contains('/'));
        let command = command.map(|program| Closed {
            key: Some("notify.command".to_owned()),
            path: program.into(),
            ends_start: false,
            is_program: true,
            ..plain
        });
        let named = files(config).into_iter().map(|(key, path)| Closed {
            is_secret: key == KEY || key.starts_with(IDENTITY),
            ends_start: !key.starts_with(IDENTITY),
            key: Some(key),
            path: path.to_owned(),
            is_program: false,
        });
        let is_closed =
            |file: &Closed| credential::of_unit(&file.path).is_none() && file.path.exists() && !self.may(file);
        own.into_iter().chain(named).chain(command).filter(is_closed).collect()
    }

    /// Whether the kernel lets it. In a process that has the groups one by one: a path of which it takes two is not worth a second rule.
    fn may(&self, file: &Closed) -> bool {
        let by = |gid: &u32| {
            let mut command = Command::new("test");
            command
                .arg(if file.is_program { "-x" } else { "-r" })
                .arg(&file.path)
                .current_dir("/")
                .uid(self.uid)
                .gid(*gid);
            // Without an answer nothing is claimed.
            command.stdin(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.code() == Some(1))
        };
        !self.gids.iter().all(by)
    }
}

/// What the keys of a sign-in begin with.
const IDENTITY: &str = "identity.";
/// The key of a listener's private key.
const KEY: &str = "listen.tls.key";

/// The files that settings name and that a start or a sign-in reads, each with its key.
pub(crate) fn files(config: &Config) -> Vec<(String, &Path)> {
    let identities = config.upstreams().iter().flat_map(|upstream| upstream.identity().kind().files());
    let identities = identities.map(|(key, path)| (format!("{IDENTITY}{key}"), path));
    let tls = config.listeners().iter().filter_map(|listener| listener.tls.as_ref()).flat_map(|files| {
        let clients = files.clients.as_ref().map(|clients| ("listen.tls.client_ca", clients.ca.as_path()));
        let own = [("listen.tls.certificate", files.certificate.as_path()), (KEY, files.key.as_path())];
        own.into_iter().chain(clients)
    });
    let tls = tls.map(|(key, path)| (key.to_owned(), path));
    let ca_file = config.ca_file().map(|path| ("ca_file".to_owned(), path));
    identities.chain(tls).chain(ca_file).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use nix::unistd::getegid;

    use super::*;
    use crate::config::Flags;

    #[test]
    fn the_user_of_the_unit_is_nobody_where_it_is_a_dynamic_one() {
        let user = |uid, gids: &[u32]| Some(ServiceUser { uid, gids: gids.to_vec() });
        for (unit, expected) in [
            (&[("DynamicUser", "yes")][..], user(DYNAMIC, &[DYNAMIC])),
            (
                &[("DynamicUser", "yes"), ("SupplementaryGroups", "7 8"), ("SupplementaryGroups", "9")],
                user(DYNAMIC, &[DYNAMIC, 7, 8, 9]),
            ),
            (&[("DynamicUser", "yes"), ("User", "of-nobody-yet"), ("Group", "7")], user(DYNAMIC, &[7])),
            (&[("DynamicUser", "yes"), ("User", "root")], None),
            (&[("DynamicUser", "no")], None),
            (&[], None),
        ] {
            let values = |key: &str| {
                unit.iter().filter(|(known, _)| *known == key).map(|(_, value)| (*value).to_owned()).collect()
            };
            assert_eq!(ServiceUser::of_unit(values), expected, "{unit:?}");
        }
    }

    /// Root's `check`, `doctor` and `init` said ok, and the service did not start.
    #[test]
    fn a_file_that_root_may_read_and_the_service_may_not_was_called_right() {
        let folder = tempfile::tempdir().expect("a directory");
        let at = |name: &str| folder.path().join(name);
        let settings = format!(
            "upstream: {{domain: example.azurecr.io, prefix: hub}}\nca_file: {}\nnotify: {{command: ['{}']}}\n\
             identity: {{kind: client_secret, tenant_id: t.example, client_id: 00000000-0000-0000-0000-000000000000, client_secret_file: {}}}\n",
            at("ca.pem").display(),
            at("tell").display(),
            at("secret").display()
        );
        let config = Config::load(&Flags::default().with_text("config.yaml".as_ref(), &settings)).expect("valid");
        for name in ["config.yaml", "ca.pem", "secret", "tell"] {
            std::fs::write(at(name), "").expect("written");
        }
        // Whoever is not root can only ask for itself.
        let user = match geteuid() {
            root if root.is_root() => ServiceUser { uid: DYNAMIC, gids: vec![DYNAMIC] },
            other => ServiceUser { uid: other.as_raw(), gids: vec![getegid().as_raw()] },
        };
        let file = at("config.yaml").display().to_string();
        for (changed, mode, expected) in [
            ("", 0o755, &["tell"][..]),
            ("tell", 0o755, &[][..]),
            ("config.yaml", 0o000, &["config.yaml"][..]),
            ("ca.pem", 0o000, &["config.yaml", "ca.pem"]),
            ("config.yaml", 0o644, &["ca.pem"]),
            ("secret", 0o000, &["secret", "ca.pem"]),
        ] {
            set_permissions(at(changed), Permissions::from_mode(mode)).expect("set");
            let closed = user.closed(Some(&file), &config);
            let names: Vec<_> = closed.iter().filter_map(|closed| closed.path.file_name()).collect();
            assert_eq!(names, expected, "{changed} {mode:o}");
            let secrets: Vec<_> =
                closed.iter().filter(|closed| closed.to_string().contains("LoadCredential=")).collect();
            assert!(secrets.iter().all(|closed| closed.path.ends_with("secret") && !closed.ends_start), "{secrets:?}");
        }
        std::fs::remove_file(at("ca.pem")).expect("removed");
        assert_eq!(user.closed(None, &config).len(), 1, "what is not there is another mistake");
    }
}
