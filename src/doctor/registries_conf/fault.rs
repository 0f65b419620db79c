//! Why podman, buildah, skopeo and CRI-O refuse a `registries.conf` or one of its drop-ins as a whole, as
//! `sysregistriesv2` of containers/image has it. The first of them is told.

use toml::{Table, Value};

use super::{WHY, of_owner};
use crate::doctor::expected::{by_hand, edit, shell_word};
use crate::doctor::finding::{Code, Finding};
use crate::doctor::text;

const MODE: &str = "short-name-mode";
const MODES: [&str; 3] = ["enforcing", "permissive", "disabled"];

/// Why a file is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It has both formats.
    Both,
    /// A drop-in has the first format.
    First,
    /// An entry has neither a prefix nor a location.
    Empty,
    /// An entry for this prefix has no location.
    NoLocation(String),
    /// A prefix with a star has more than a domain.
    Star(String),
    /// A mirror of the entry for this prefix has no location.
    NoMirror(String),
    /// Two entries of this location do not agree on this key.
    Disagree(String, &'static str),
    /// What becomes of names without a registry is none of the known texts.
    Mode,
}

/// What is wrong with a file, whose path tells whether it is a drop-in.
pub(super) fn fault(path: &str, table: &Table) -> Option<Fault> {
    let entries = text::tables(table, "registry");
    if table.contains_key("registries") {
        if !entries.is_empty() || table.contains_key("unqualified-search-registries") {
            return Some(Fault::Both);
        }
        if !path.ends_with("/registries.conf") && has_first_format(table) {
            return Some(Fault::First);
        }
    }
    for entry in &entries {
        let (prefix, location) = (of(entry, "prefix"), of(entry, "location"));
        match (prefix.strip_prefix("*."), prefix.is_empty(), location.is_empty()) {
            (None, true, true) => return Some(Fault::Empty),
            (None, false, true) => return Some(Fault::NoLocation(prefix.to_owned())),
            (Some(domain), ..) if domain.contains(['/', '@', ':']) => return Some(Fault::Star(prefix.to_owned())),
            _ => {}
        }
        let is_empty = |mirror: &&Table| of(mirror, "location").is_empty();
        if text::tables(entry, "mirror").iter().any(is_empty) {
            return Some(Fault::NoMirror(if prefix.is_empty() { location } else { prefix }.to_owned()));
        }
    }
    for (at, entry) in entries.iter().enumerate() {
        let place = |entry| Some(of(entry, "location")).filter(|at| !at.is_empty()).unwrap_or(of(entry, "prefix"));
        for other in entries[..at].iter().filter(|other| place(other) == place(entry)) {
            for key in ["insecure", "blocked"] {
                if text::is_set(entry, key) != text::is_set(other, key) {
                    return Some(Fault::Disagree(place(entry).to_owned(), key));
                }
            }
        }
    }
    let is_mode = |mode: &Value| mode.as_str().is_some_and(|mode| mode.is_empty() || MODES.contains(&mode));
    table.get(MODE).is_some_and(|mode| !is_mode(mode)).then_some(Fault::Mode)
}

/// A prefix or a location; none and an empty one are the same.
fn of<'a>(table: &'a Table, key: &str) -> &'a str {
    text::text(table, key).unwrap_or_default().trim_end_matches('/')
}

/// `[registries.search]` and so on, with at least one registry.
fn has_first_format(table: &Table) -> bool {
    ["search", "insecure", "block"].into_iter().any(|kind| {
        let list = text::table(table, &["registries", kind]).and_then(|kind| kind.get("registries"));
        list.and_then(Value::as_array).is_some_and(|list| !list.is_empty())
    })
}

impl Fault {
    /// `content` is that of the file, so that a command can be tried on it.
    pub(super) fn into_finding(self, path: &str, content: &str) -> Finding {
        let (code, text, fix) = match self {
            Self::Both => (
                Code::Conflict,
                "it has [registries...] of the first format and [[registry]] or unqualified-search-registries of the second".to_owned(),
                edit(path, "  # keep those of the second format"),
            ),
            Self::First => (
                Code::Unreadable,
                "it has [registries...] of the first format, which only registries.conf itself may have".to_owned(),
                edit(path, "  # write it in the second format, with [[registry]] and unqualified-search-registries"),
            ),
            Self::Empty => (
                Code::Unreadable,
                "a [[registry]] has neither prefix nor location".to_owned(),
                edit(path, "  # take that [[registry]] out"),
            ),
            Self::NoLocation(prefix) => (
                Code::Unreadable,
                format!("its entry for {prefix} has no location, and only a prefix that begins with *. may do without"),
                add_location(path, content, &prefix)
                    .map_or_else(|| edit(path, &format!("  # location = \"{prefix}\" into that entry")), by_hand),
            ),
            Self::Star(prefix) => (
                Code::Unreadable,
                format!("its prefix {prefix} has a path or a port, and behind *. may be a domain alone"),
                edit(path, &format!("  # take the entry for {prefix} out, or its path")),
            ),
            Self::NoMirror(prefix) => (
                Code::Unreadable,
                format!("a mirror of its entry for {prefix} has no location"),
                edit(path, "  # take that [[registry.mirror]] out"),
            ),
            Self::Disagree(location, key) => (
                Code::Conflict,
                format!("two entries have the location {location}, one with {key} = true and one without"),
                edit(path, &format!("  # say the same of {key} in both")),
            ),
            Self::Mode => (
                Code::Unreadable,
                format!("its {MODE} is none of {}", MODES.join(", ")),
                by_hand(format!("sed -i '/^ *{MODE} *=/d' {}", shell_word(path))),
            ),
        };
        let (file, why) = (Some(path.to_owned()), WHY.to_owned());
        of_owner(Finding { code, file, text, why, registries: Vec::new(), fix })
    }
}

/// A command that gives an entry the location that its prefix names, if there is a line behind which that puts it right.
fn add_location(path: &str, content: &str, prefix: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:".contains(c);
    let location = Some(format!("location = \"{prefix}\"")).filter(|_| prefix.chars().all(is_plain))?;
    let lines: Vec<_> = content.lines().collect();
    let is_it = |line: &str| line.trim_start().starts_with("prefix") && line.contains(&format!("\"{prefix}\""));
    let is_right = |at: &usize| {
        let changed = [&lines[..=*at], &[location.as_str()], &lines[at + 1..]].concat().join("\n");
        let table = text::toml(&changed);
        table.is_ok_and(|table| fault(path, &table) != Some(Fault::NoLocation(prefix.to_owned())))
    };
    let at = (0..lines.len()).filter(|at| is_it(lines[*at])).find(is_right)?;
    Some(format!("sed -i {} {}", shell_word(&format!("{}a {location}", at + 1)), shell_word(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// doctor said that pulls came through the proxy, and every one of them failed.
    #[test]
    fn a_file_that_podman_refuses_as_a_whole_is_told() {
        const MAIN: &str = "/etc/containers/registries.conf";
        const DROP_IN: &str = "/etc/containers/registries.conf.d/99-x.conf";
        let prefix = |text: &str| Some(Fault::NoLocation(text.to_owned()));
        for (path, content, expected) in [
            (DROP_IN, "[[registry]]\nprefix = \"a/b\"\nblocked = true\n", prefix("a/b")),
            (DROP_IN, "[[registry]]\nprefix = \"*.a\"\nblocked = true\n", None),
            (DROP_IN, "[[registry]]\nprefix = \"*.a/b\"\nlocation = \"b\"\n", Some(Fault::Star("*.a/b".to_owned()))),
            (DROP_IN, "[[registry]]\nblocked = true\n", Some(Fault::Empty)),
            (
                DROP_IN,
                "[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\ninsecure = true\n",
                Some(Fault::NoMirror("a".to_owned())),
            ),
            (
                DROP_IN,
                "[[registry]]\nlocation = \"a\"\n[[registry]]\nprefix = \"b\"\nlocation = \"a\"\nblocked = true\n",
                Some(Fault::Disagree("a".to_owned(), "blocked")),
            ),
            (DROP_IN, "short-name-mode = \"bogus\"\n", Some(Fault::Mode)),
            (DROP_IN, "short-name-mode = 1\n", Some(Fault::Mode)),
            (DROP_IN, "short-name-mode = \"disabled\"\n", None),
            (DROP_IN, "[registries.search]\nregistries = [\"a\"]\n", Some(Fault::First)),
            (DROP_IN, "[registries.search]\nregistries = []\n", None),
            (MAIN, "[registries.search]\nregistries = [\"a\"]\n", None),
        ] {
            assert_eq!(fault(path, &text::toml(content).expect("TOML")), expected, "{content}");
        }
    }
}
