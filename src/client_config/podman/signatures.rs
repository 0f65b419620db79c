//! `registries.d`, which says where signatures of images are looked for: which files count, and what keeps podman from reading any.

use std::collections::BTreeMap;
use std::fmt::{self, Formatter};
use std::path::Path;

use serde::de::{Deserialize, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess as _, Visitor};

use super::super::File;
use super::REGISTRIES_D as OURS;
use super::policy::covers;
use super::release::Release;
use crate::host::{Host, Text};

/// What follows from one file that is wrong.
pub(crate) const WHY: &str = "podman, buildah, skopeo and CRI-O read none of these files then, and every pull fails";

const SYSTEMS: &str = "/etc/containers/registries.d";
/// A user's own, below the home directory.
pub(crate) const USERS: &str = ".config/containers/registries.d";
const ROOTS_HOME: &str = "/root";
/// What podman 6 has below both of them, the ones that count more later.
const PLACES: [&str; 2] = ["/usr/share/containers", "/etc/containers"];
/// Of what no entry is for.
const DEFAULT: &str = "default-docker";
const ATTACHMENTS: &str = "use-sigstore-attachments";
/// Keys whose value is a text, under their names of today and of before.
const TEXTS: [&str; 4] = ["lookaside", "lookaside-staging", "sigstore", "sigstore-staging"];
/// Those of them by which signatures are read.
const LOOK_ASIDES: [&str; 2] = ["lookaside", "sigstore"];
/// What YAML 1.1 takes for a boolean and YAML 1.2 for a text; the readers take both.
/// Those for yes come first.
const FORMER_BOOLEANS: [&str; 8] = ["y", "yes", "on", "true", "n", "no", "off", "false"];

/// What keeps all of the files from being read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// One is refused, and why.
    Refused { path: String, cause: String },
    /// Two have an entry for the same address, even if it is the same entry; `path` is the one that is to lose it.
    Twice { path: String, other: String, entry: String },
}

/// The files that count for root. `planned` is one as it would be, there or not.
pub(crate) fn files(host: &Host, release: Release, planned: Option<&Text>) -> Vec<Text> {
    files_of(host, release, ROOTS_HOME, planned)
}

/// The same for whoever has this home.
pub(crate) fn files_of(host: &Host, release: Release, home: &str, planned: Option<&Text>) -> Vec<Text> {
    let own = format!("{home}/{USERS}");
    let of = |directory: &str| {
        let mut texts = host.read_all(directory, ".yaml");
        if let Some(planned) = planned.filter(|planned| planned.path == format!("{directory}/{}", name(&planned.path)))
        {
            texts.retain(|text| text.path != planned.path);
            texts.push(planned.clone());
            texts.sort_by(|one, other| one.path.cmp(&other.path));
        }
        texts
    };
    match release {
        Release::Podman6 => {
            let kind = if home == ROOTS_HOME { "rootful" } else { "rootless" };
            let systems = PLACES
                .iter()
                .flat_map(|place| ["d".to_owned(), format!("{kind}.d")].map(|end| format!("{place}/registries.{end}")));
            last_of_each_name(systems.chain([own]).flat_map(|directory| of(&directory)).collect())
        }
        // A user's own directory takes the place of the system's.
        Release::Podman4 | Release::Podman5 => of(if host.has(&own) { &own } else { SYSTEMS }),
    }
}

/// A path without its directory.
pub(crate) fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Of several files of one name the last, in the order of the names.
pub(crate) fn last_of_each_name(files: Vec<Text>) -> Vec<Text> {
    let by_name: BTreeMap<_, _> = files.into_iter().map(|text| (name(&text.path).to_owned(), text)).collect();
    by_name.into_values().collect()
}

/// Pure: all that is wrong with these files, in their order.
pub(crate) fn wrong(files: &[Text], release: Release) -> Vec<Wrong> {
    let mut known: BTreeMap<String, &str> = BTreeMap::new();
    let mut wrong = Vec::new();
    for Text { path, content } in files {
        let entries = match content.clone().and_then(|content| entries(&content, release)) {
            Ok(entries) => entries,
            Err(cause) => {
                wrong.push(Wrong::Refused { path: path.clone(), cause });
                continue;
            }
        };
        for entry in entries.into_keys() {
            let Some(other) = known.insert(entry.clone(), path) else { continue };
            // The one from here is written anew, entry and all.
            let (path, other) = if path == OURS { (other, path.as_str()) } else { (path.as_str(), other) };
            wrong.push(Wrong::Twice { path: path.to_owned(), other: other.to_owned(), entry });
        }
    }
    wrong
}

/// Where an entry has signatures looked for. What it does not say, one for more says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    /// Beside the image, those of sigstore.
    attachments: Option<bool>,
    /// In a look-aside, those of GPG.
    look_aside: bool,
}

/// Where signatures of images from an address are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LookedFor {
    /// Beside the image, at least of a part of them.
    pub attachments: bool,
    /// In a look-aside that somebody has named, at least of a part of them.
    pub look_aside: bool,
}

/// Pure: where signatures of images from an address, such as `127.0.0.1:8080/docker.io`, are looked for; `None` if a file is refused. Each key
/// is taken from the narrowest entry that has it (`registryConfiguration` in containers/image).
pub(crate) fn looked_for(files: &[Text], release: Release, address: &str) -> Option<LookedFor> {
    let mut all = BTreeMap::new();
    for Text { content, .. } in files {
        all.extend(entries(content.as_ref().ok()?, release).ok()?);
    }
    let below = format!("{address}/");
    let parts = || all.iter().filter(|(name, _)| name.starts_with(&below)).map(|(_, entry)| entry);
    let mut fits: Vec<_> = all.iter().filter(|(name, _)| covers(name, address)).collect();
    fits.sort_by_key(|(name, _)| (!name.starts_with("*."), name.len()));
    let fits = || fits.iter().rev().map(|(_, entry)| *entry).chain(all.get(DEFAULT));
    let attachments = fits().find_map(|entry| entry.attachments).unwrap_or_default();
    Some(LookedFor {
        attachments: attachments || parts().any(|entry| entry.attachments == Some(true)),
        look_aside: fits().chain(parts()).any(|entry| entry.look_aside),
    })
}

/// Why this file may not be below the root as it would be, if it is the one of signatures: a clause that names the other file. It cannot be
/// told which release reads them, so that of each counts.
pub(in crate::client_config) fn excludes(file: &File, root: &Path) -> Option<String> {
    if file.path != OURS {
        return None;
    }
    let host = Host::new(root.to_owned());
    let planned = Text { path: file.path.clone(), content: Ok(file.content.clone()) };
    let others = |release: Release| {
        let wrong = wrong(&files(&host, release, Some(&planned)), release).into_iter();
        let others = wrong.filter_map(|wrong| match wrong {
            Wrong::Twice { path, other, entry } if other == OURS => Some(format!("{path} has an entry for {entry}")),
            _ => None,
        });
        others.collect::<Vec<_>>().join(", and ")
    };
    let found: Vec<_> = Release::ALL.into_iter().map(|release| (release, others(release))).collect();
    let found: Vec<_> = found.into_iter().filter(|(_, others)| !others.is_empty()).collect();
    let (_, others) = found.first()?;
    let releases: Vec<_> = found.iter().map(|(release, _)| release.name()).collect();
    let rules = match releases.len() == Release::ALL.len() {
        true => String::new(),
        false => format!(", by the rules of podman {},", releases.join(" and ")),
    };
    Some(format!("{others}, as this file is to have, and{rules} {WHY}: take that entry out there, and run this again"))
}

/// The addresses that a file has entries for, and `default-docker`. The error says why the file is refused, and quotes only keys of it.
fn entries(content: &str, release: Release) -> Result<BTreeMap<String, Entry>, String> {
    // Of several documents the first counts; a file of comments has none.
    if content.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#')) {
        return Ok(BTreeMap::new());
    }
    let Some(document) = serde_yaml::Deserializer::from_str(content).next() else { return Ok(BTreeMap::new()) };
    let parsed = Node::deserialize(document).map_err(|wrong| {
        let line = wrong.location().map(|at| format!(", line {}", at.line())).unwrap_or_default();
        format!("it is not YAML{line}")
    })?;
    let mut entries = BTreeMap::new();
    for (key, value) in parsed.pairs("it", release)? {
        match key.as_str() {
            "docker" => {
                for (address, value) in value.pairs("its docker", release)? {
                    let entry = value.entry(&address, release)?;
                    entries.insert(address, entry);
                }
            }
            DEFAULT if !matches!(value, Node::Null) => {
                let entry = value.entry(&key, release)?;
                entries.insert(key, entry);
            }
            _ => {}
        }
    }
    Ok(entries)
}

/// What matters of a value.
enum Node {
    Null,
    Boolean(bool),
    Text(String),
    /// A number.
    Other,
    List,
    /// A key that is no text has no name.
    Map(Vec<(Option<String>, Node)>),
    /// It has a tag, of which nothing is claimed.
    Tagged,
}

impl Node {
    /// What a mapping has; nothing of an empty value. Of a key that is there twice the last counts for podman 4.3, and the later ones refuse
    /// the file.
    fn pairs(&self, place: &str, release: Release) -> Result<BTreeMap<String, &Self>, String> {
        let pairs = match self {
            Self::Map(pairs) => pairs.as_slice(),
            Self::Null | Self::Tagged => &[],
            _ => return Err(format!("{place} is no mapping of YAML")),
        };
        let mut known = BTreeMap::new();
        for (key, value) in pairs {
            let Some(key) = key else { continue };
            if known.insert(key.clone(), value).is_some() && release != Release::Podman4 {
                return Err(format!("{place} has the key {key} twice"));
            }
        }
        Ok(known)
    }

    /// What it says as an entry for an address, if it can be one.
    fn entry(&self, address: &str, release: Release) -> Result<Entry, String> {
        let mut entry = Entry::default();
        for (key, value) in self.pairs(&format!("its entry for {address}"), release)? {
            if key == ATTACHMENTS {
                let wrong = || format!("{ATTACHMENTS} of its entry for {address} is neither true nor false");
                entry.attachments = value.boolean().ok_or_else(wrong)?;
            }
            if TEXTS.contains(&key.as_str()) && matches!(value, Self::List | Self::Map(_)) {
                return Err(format!("{key} of its entry for {address} is no text"));
            }
            entry.look_aside |= LOOK_ASIDES.contains(&key.as_str()) && !matches!(value, Self::Null);
        }
        Ok(entry)
    }

    /// `Some(None)` is none, and `None` is what cannot be one.
    fn boolean(&self) -> Option<Option<bool>> {
        match self {
            Self::Null | Self::Tagged => Some(None),
            Self::Boolean(is_so) => Some(Some(*is_so)),
            Self::Text(text) => {
                let text = text.to_ascii_lowercase();
                let at = FORMER_BOOLEANS.iter().position(|known| *known == text)?;
                Some(Some(at < FORMER_BOOLEANS.len() / 2))
            }
            Self::Other | Self::List | Self::Map(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

/// Reads a value.
struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, is_so: bool) -> Result<Node, E> {
        Ok(Node::Boolean(is_so))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        while seq.next_element::<Node>()?.is_some() {}
        Ok(Node::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut pairs = Vec::new();
        while let Some((key, value)) = map.next_entry::<Node, Node>()? {
            let key = if let Node::Text(key) = key { Some(key) } else { None };
            pairs.push((key, value));
        }
        Ok(Node::Map(pairs))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Node, A::Error> {
        let (_, value) = tagged.variant::<String>()?;
        value.newtype_variant::<Node>().map(|_| Node::Tagged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// doctor said that pulls came through the proxy, and every one of them failed; of a key that is there twice it was the reverse for
    /// podman 4.3. As podman 4.3.1, 5.8 and 6.1 take these files.
    #[test]
    fn a_file_of_signatures_that_podman_refuses_is_told() {
        const TWICE: &str = "docker:\n  docker.io: {lookaside: x}\n  docker.io: {lookaside: y}\n";
        const ALL: &[Release] = &[Release::Podman4, Release::Podman5, Release::Podman6];
        const LATER: &[Release] = &[Release::Podman5, Release::Podman6];
        for (content, refused_by) in [
            ("default-docker:\n  use-sigstore-attachments: bogus\n", ALL),
            ("default-docker: {use-sigstore-attachments: 1}\n", ALL),
            ("default-docker: {use-sigstore-attachments: []}\n", ALL),
            ("default-docker: {use-sigstore-attachments: yes}\n", &[]),
            ("default-docker: {use-sigstore-attachments: True}\n", &[]),
            ("default-docker: {use-sigstore-attachments: }\n", &[]),
            ("default-docker: {lookaside: [a]}\n", ALL),
            ("docker: {a: {sigstore-staging: {}}}\n", ALL),
            ("docker: {a: {lookaside: 2001-01-01, foo: [1]}}\n", &[]),
            ("default-docker: x\n", ALL),
            ("docker: []\n", ALL),
            ("docker:\n  a: x\n", ALL),
            ("docker:\n  a:\ndefault-docker:\n", &[]),
            ("docker:\n  1: {lookaside: x}\n  a: !!x {}\n", &[]),
            ("x\n", ALL),
            ("- x\n", ALL),
            ("", &[]),
            ("# x\n", &[]),
            (TWICE, LATER),
            ("foo: 1\nfoo: 2\n", LATER),
            ("docker: {a: {foo: x, foo: y}}\n", LATER),
            ("foo: {b: 1, b: 2}\n", &[]),
            ("docker: {}\n---\nfoo: [\n", &[]),
            ("garbage: [\n", ALL),
        ] {
            for release in ALL {
                let entries = entries(content, *release);
                assert_eq!(entries.is_err(), refused_by.contains(release), "{release:?} {content}: {entries:?}");
            }
        }
        let known: Vec<_> = entries(TWICE, Release::Podman4).expect("taken").into_keys().collect();
        assert_eq!(known, ["docker.io"]);
        assert_eq!(entries(TWICE, Release::Podman6), Err("its docker has the key docker.io twice".to_owned()));
    }
    /// doctor said that nothing was wrong, and every signed image was refused, because no entry was for the proxy.
    #[test]
    fn signatures_are_looked_for_by_the_address_that_is_asked() {
        for (content, attachments, look_aside) in [
            ("", false, false),
            ("docker: {docker.io: {use-sigstore-attachments: true, lookaside: x}}\n", false, false),
            ("docker: {'127.0.0.1:8080': {use-sigstore-attachments: true}}\n", true, false),
            ("docker: {'127.0.0.1': {use-sigstore-attachments: true}}\n", false, false),
            ("docker: {'127.0.0.1:8080/docker.io': {use-sigstore-attachments: yes, lookaside: x}}\n", true, true),
            ("docker: {'127.0.0.1:8080/docker.io/library': {use-sigstore-attachments: true}}\n", true, false),
            ("docker: {'127.0.0.1:8080/ghcr.io': {use-sigstore-attachments: true}}\n", false, false),
            (
                "docker: {'127.0.0.1:8080': {use-sigstore-attachments: true}, '127.0.0.1:8080/docker.io': {use-sigstore-attachments: off}}\n",
                false,
                false,
            ),
            ("default-docker: {use-sigstore-attachments: true, sigstore: x}\n", true, true),
            (
                "default-docker: {use-sigstore-attachments: true}\ndocker: {'127.0.0.1:8080': {use-sigstore-attachments: no}}\n",
                false,
                false,
            ),
            ("docker: {'127.0.0.1:8080': {lookaside-staging: x}}\n", false, false),
        ] {
            let file = Text { path: OURS.to_owned(), content: Ok(content.to_owned()) };
            let found = looked_for(&[file], Release::Podman5, "127.0.0.1:8080/docker.io");
            assert_eq!(found, Some(LookedFor { attachments, look_aside }), "{content}");
        }
        let refused = Text { path: OURS.to_owned(), content: Ok("x\n".to_owned()) };
        assert_eq!(looked_for(&[refused], Release::Podman5, "a"), None);
    }
}
