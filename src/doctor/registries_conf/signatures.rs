//! `registries.d`, which says where signatures of images are looked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Formatter};

use serde::de::{Deserialize, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess as _, Visitor};

use super::release::Release;
use super::take_out;
use crate::doctor::expected::{Expected, unreadable};
use crate::doctor::finding::{Code, Examined, Finding, Way};
use crate::host::Text;

const ATTACHMENTS: &str = "use-sigstore-attachments";
/// Keys whose value is a text, under their names of today and of before.
const TEXTS: [&str; 4] = ["lookaside", "lookaside-staging", "sigstore", "sigstore-staging"];
/// What YAML 1.1 takes for a boolean and YAML 1.2 for a text; the readers take both.
const FORMER_BOOLEANS: [&str; 8] = ["y", "yes", "on", "n", "no", "off", "true", "false"];

/// Two files may not have an entry for the same address, even if it is the same entry.
pub(super) fn judge(files: &[Text], release: Release, expected: &Expected<'_>, found: &mut Examined) {
    const WHY: &str = "podman, buildah, skopeo and CRI-O read none of these files then, and every pull fails";
    let mut known: BTreeMap<String, &str> = BTreeMap::new();
    let mut wrong = None;
    for Text { path, content } in files {
        let entries = match content.clone().and_then(|content| entries(&content, release)) {
            Ok(entries) => entries,
            Err(cause) => {
                wrong.get_or_insert_with(|| unreadable(path, &cause, WHY));
                continue;
            }
        };
        for entry in entries {
            let Some(other) = known.insert(entry.clone(), path) else { continue };
            wrong.get_or_insert_with(|| Finding {
                registries: Vec::new(),
                code: Code::Conflict,
                file: Some(path.clone()),
                text: format!("it has an entry for {entry}, and so has {other}"),
                why: WHY.to_owned(),
                fix: take_out(path, &entry),
            });
        }
    }
    if let Some(finding) = wrong {
        found.find(finding);
        found.lead_all(expected.names(), Way::Nowhere);
    }
}

/// The addresses that a file has entries for, and `default-docker`. The error says why the file is refused, and quotes only keys of it.
fn entries(content: &str, release: Release) -> Result<BTreeSet<String>, String> {
    // Of several documents the first counts; a file of comments has none.
    if content.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#')) {
        return Ok(BTreeSet::new());
    }
    let Some(document) = serde_yaml::Deserializer::from_str(content).next() else { return Ok(BTreeSet::new()) };
    let parsed = Node::deserialize(document).map_err(|wrong| {
        let line = wrong.location().map(|at| format!(", line {}", at.line())).unwrap_or_default();
        format!("it is not YAML{line}")
    })?;
    let mut entries = BTreeSet::new();
    for (key, value) in parsed.pairs("it", release)? {
        match key.as_str() {
            "docker" => {
                for (address, value) in value.pairs("its docker", release)? {
                    value.is_entry(&address, release)?;
                    entries.insert(address);
                }
            }
            "default-docker" if !matches!(value, Node::Null) => {
                value.is_entry(&key, release)?;
                entries.insert(key);
            }
            _ => {}
        }
    }
    Ok(entries)
}

/// What matters of a value.
enum Node {
    Null,
    Boolean,
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

    /// Whether it can be what is said of an address.
    fn is_entry(&self, address: &str, release: Release) -> Result<(), String> {
        for (key, value) in self.pairs(&format!("its entry for {address}"), release)? {
            let is_boolean = match value {
                Self::Null | Self::Boolean | Self::Tagged => true,
                Self::Text(text) => FORMER_BOOLEANS.contains(&text.to_ascii_lowercase().as_str()),
                Self::Other | Self::List | Self::Map(_) => false,
            };
            if key == ATTACHMENTS && !is_boolean {
                return Err(format!("{ATTACHMENTS} of its entry for {address} is neither true nor false"));
            }
            if TEXTS.contains(&key.as_str()) && matches!(value, Self::List | Self::Map(_)) {
                return Err(format!("{key} of its entry for {address} is no text"));
            }
        }
        Ok(())
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

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Boolean)
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
        assert_eq!(entries(TWICE, Release::Podman4), Ok(BTreeSet::from(["docker.io".to_owned()])));
        assert_eq!(entries(TWICE, Release::Podman6), Err("its docker has the key docker.io twice".to_owned()));
    }
}
