//! Which files of registries count for whom. Up to podman 5 a user's own `registries.conf` hides all of the system's, and drop-ins are in
//! one directory; since 6 it only takes the place of the system's `registries.conf`, drop-ins are in several directories, all in the order of
//! their names, and of those with one name that of the later directory alone is read (containers-config(5)).

use std::collections::{BTreeMap, BTreeSet};

use super::Release;
use super::certificates::Certificates;
use super::{OURS, ROOTS, USERS};
use crate::client_config::signatures::{self, last_of_each_name, name};
use crate::client_config::{REGISTRIES_D, policy};
use crate::host::{DENIED, Host, Text};

/// The first of them that is there counts.
const FILES: [&str; 2] = ["/etc/containers/registries.conf", "/usr/share/containers/registries.conf"];
const DROP_INS: &str = "/etc/containers/registries.conf.d";
/// What podman 6 has below both of them, the ones that count more later.
const PLACES: [&str; 2] = ["/usr/share/containers", "/etc/containers"];
/// Whose files are for all users but root.
const OTHERS: &str = "users other than root";

/// What was read, by the rules of a release.
pub(in crate::doctor) struct Files {
    pub release: Release,
    /// The system's, as root reads them; the ones that count more later.
    pub system: Vec<Text>,
    /// The same as other users read them, where that differs.
    others: Option<Vec<Text>>,
    /// The file of `client-config`, even if another one is read in its place.
    pub ours: Option<Text>,
    /// The file that is read in its place.
    pub in_its_place: Option<String>,
    /// Those of signatures, all of which count.
    pub signatures: Vec<Text>,
    /// The same for each home whose user has one of his own or a policy, and root's.
    pub(super) signatures_of: Vec<Signatures>,
    /// For the addresses that are asked.
    pub(super) certificates: Certificates,
    /// Of users who have a file of their own that hides the system's with all drop-ins: the home, and what counts for them.
    pub users: Vec<(String, Vec<Text>)>,
    /// Of users whose files are read beside the system's.
    pub additions: Vec<Addition>,
    /// The variable by which the first file of the system's is the only one that is read.
    pub alone: Option<&'static str>,
}

/// Where the signatures of one user are looked for.
pub(super) struct Signatures {
    pub home: String,
    /// A directory of his own is read in place of the system's, where that of `client-config` is.
    pub hides_ours: bool,
    pub texts: Vec<Text>,
}

/// What counts for one user or several besides the system's files.
pub(in crate::doctor) struct Addition {
    /// For sentences.
    pub who: String,
    pub is_root: bool,
    pub own: Vec<Text>,
}

impl Files {
    pub(in crate::doctor) fn read(host: &Host, release: Release) -> Self {
        let main = FILES.iter().find_map(|path| host.read(path));
        let ours = host.read(OURS);
        if release == Release::Podman6 {
            return Self::read_by_places(host, main, ours);
        }
        let system = main.into_iter().chain(drop_ins(host, &[DROP_INS], release)).collect();
        let (mut users, mut additions) = (Vec::new(), Vec::new());
        for home in host.homes() {
            let drop_ins = drop_ins(host, &[&format!("{home}/{USERS}.d")], release);
            match host.read(&format!("{home}/{USERS}")) {
                // Of a home that is closed to whoever runs this nothing is known.
                Some(Text { content: Err(wrong), .. }) if wrong == DENIED => {}
                Some(own) => users.push((home, [own].into_iter().chain(drop_ins).collect())),
                None if drop_ins.is_empty() => {}
                None => additions.push(Addition::of_home(&home, drop_ins)),
            }
        }
        let signatures = signatures::files(host, release, None);
        let certificates = Certificates::read(host, release);
        Self {
            certificates,
            release,
            system,
            others: None,
            ours,
            in_its_place: None,
            signatures,
            signatures_of: signatures_of(host, release),
            users,
            additions,
            alone: None,
        }
    }

    fn read_by_places(host: &Host, main: Option<Text>, ours: Option<Text>) -> Self {
        let release = Release::Podman6;
        let of = |kind: &str, end: &str| PLACES.map(|place| format!("{place}/registries{kind}{end}"));
        let read = |kind: &str| {
            // Those of one place before those of the next.
            let pairs = of("", ".conf.d").into_iter().zip(of(kind, ".conf.d"));
            let directories: Vec<_> = pairs.flat_map(|(all, some)| [all, some]).collect();
            drop_ins(host, &directories.iter().map(String::as_str).collect::<Vec<_>>(), release)
        };
        let with_main = |drop_ins: Vec<Text>| main.clone().into_iter().chain(drop_ins).collect::<Vec<_>>();
        let (roots, others) = (read(".rootful"), read(".rootless"));
        let is_others = |text: &Text| text.path.contains("/registries.rootless.conf.d/");
        let of_others: Vec<_> = others.iter().filter(|text| is_others(text)).cloned().collect();
        let mut additions = Vec::new();
        if !of_others.is_empty() {
            additions.push(Addition { who: OTHERS.to_owned(), is_root: false, own: of_others });
        }
        for home in host.homes() {
            let main = host.read(&format!("{home}/{USERS}"));
            // Of a home that is closed to whoever runs this nothing is known.
            if main.as_ref().is_some_and(|text| text.content == Err(DENIED.to_owned())) {
                continue;
            }
            let mut directories = Vec::new();
            if let Some(uid) = host.uid_of(&home).filter(|uid| *uid != 0) {
                directories.extend(of(".rootless", ".conf.d").map(|directory| format!("{directory}/{uid}")));
            }
            directories.push(format!("{home}/{USERS}.d"));
            let drop_ins = drop_ins(host, &directories.iter().map(String::as_str).collect::<Vec<_>>(), release);
            let own: Vec<_> = main.into_iter().chain(drop_ins).collect();
            if !own.is_empty() {
                additions.push(Addition::of_home(&home, own));
            }
        }
        let is_namesake = |text: &&Text| name(&text.path) == name(OURS) && text.path != OURS;
        let in_its_place = ours.as_ref().and_then(|_| roots.iter().find(is_namesake));
        Self {
            certificates: Certificates::read(host, release),
            release,
            in_its_place: in_its_place.map(|text| text.path.clone()),
            ours,
            system: with_main(roots),
            others: Some(with_main(others)),
            signatures: signatures::files(host, release, None),
            signatures_of: signatures_of(host, release),
            users: Vec::new(),
            additions,
            alone: None,
        }
    }

    /// As podman 6 reads them where its variable names one: that one, and no drop-in.
    pub(in crate::doctor) fn alone(host: &Host, path: &str) -> Self {
        let missing = || Text { path: path.to_owned(), content: Err("it is not there".to_owned()) };
        let files = Self::read(host, Release::Podman6).of_system_only();
        let system = vec![host.read(path).unwrap_or_else(missing)];
        Self { system, others: None, in_its_place: None, alone: Some("CONTAINERS_REGISTRIES_CONF"), ..files }
    }

    /// Without the files of users.
    pub(in crate::doctor) fn of_system_only(self) -> Self {
        Self { users: Vec::new(), additions: Vec::new(), ..self }
    }

    /// The paths of the system's files.
    pub(in crate::doctor) fn paths(&self) -> impl Iterator<Item = &str> {
        self.system.iter().map(|text| text.path.as_str())
    }

    /// All that counts for whom an addition is, the ones that count more later.
    pub(super) fn with(&self, Addition { is_root, own, .. }: &Addition) -> Vec<Text> {
        let system = self.others.as_ref().filter(|_| !is_root).unwrap_or(&self.system);
        if self.release != Release::Podman6 {
            return system.iter().chain(own).cloned().collect();
        }
        let (mains, drop_ins): (Vec<_>, Vec<_>) =
            system.iter().chain(own).cloned().partition(|text| !text.path.contains(".conf.d/"));
        mains.into_iter().last().into_iter().chain(last_of_each_name(drop_ins)).collect()
    }
}

impl Addition {
    fn of_home(home: &str, own: Vec<Text>) -> Self {
        Self { who: home.rsplit('/').next().unwrap_or_default().to_owned(), is_root: home == ROOTS, own }
    }

    /// Whether this file is one of them.
    pub(super) fn has(&self, path: &str) -> bool {
        self.own.iter().any(|text| text.path == path)
    }

    /// The one that is read in place of this file of the system's.
    pub(super) fn in_place_of(&self, path: &str) -> Option<&Text> {
        let is_main = FILES.contains(&path);
        self.own.iter().rev().find(|text| match is_main {
            true => text.path.ends_with(USERS),
            false => name(&text.path) == name(path),
        })
    }
}

fn signatures_of(host: &Host, release: Release) -> Vec<Signatures> {
    let of = |home: String| {
        let is_there = |own: &str| host.has(&format!("{home}/{own}"));
        let has_own = is_there(signatures::USERS);
        let texts = (has_own || home == ROOTS || is_there(policy::USERS))
            .then(|| signatures::files_of(host, release, &home, None))?;
        let hides_ours = has_own && release != Release::Podman6 && host.has(REGISTRIES_D);
        Some(Signatures { home, hides_ours, texts })
    };
    host.homes().into_iter().filter_map(of).collect()
}

/// The drop-ins of these directories, which count more the later they are; a directory in one of them is none, whatever its name.
fn drop_ins(host: &Host, directories: &[&str], release: Release) -> Vec<Text> {
    let mut paths: BTreeMap<String, String> = BTreeMap::new();
    let mut unread = Vec::new();
    for directory in directories {
        let names = match host.list(directory) {
            Ok(names) => names,
            Err(cause) => {
                unread.push(Text { path: (*directory).to_owned(), content: Err(cause) });
                continue;
            }
        };
        let below: BTreeSet<_> = host.directories(directory).into_iter().collect();
        let names = names.into_iter().filter(|name| name.ends_with(".conf") && !below.contains(name));
        paths.extend(names.map(|name| (name.clone(), format!("{directory}/{name}"))));
    }
    // podman 4.3 fails at a link that leads nowhere; the later ones take it for an empty file.
    let found = host.read_each(paths.into_values()).into_iter().filter_map(|(path, text)| match text {
        None if release == Release::Podman4 => {
            Some(Text { path, content: Err("it is a link that leads to no file".to_owned()) })
        }
        text => text,
    });
    unread.into_iter().chain(found).collect()
}
