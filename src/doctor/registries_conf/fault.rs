//! Why podman, buildah, skopeo and CRI-O refuse a `registries.conf` or one of its drop-ins as a whole, as
//! `sysregistriesv2` of containers/image has it. The first of them is told.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::aliases::wrong_alias;
use super::shape::{Kind, misfit, parse};
use super::{WHY, of_owner};
use crate::client_config::address::Address;
use crate::client_config::text;
use crate::doctor::expected::{by_hand, edit};
use crate::doctor::finding::{Code, Finding};
use crate::shell::shell_word;

use super::Release;

const MODE: &str = "short-name-mode";
const MODES: [&str; 3] = ["enforcing", "permissive", "disabled"];
const SEARCH: &str = "unqualified-search-registries";
const PULLS: &str = "pull-from-mirror";
/// For a hint.
const ALIAS: &str = r#""app" = "quay.io/org/app""#;
/// What a mirror may be asked for.
const PULLED: [&str; 3] = ["all", "digest-only", "tag-only"];

/// A line behind which another one is to go is looked for among so many: the whole file is read for each.
const MAX_TRIED: usize = 8;

/// Why a file is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It has both formats.
    Both,
    /// A drop-in has the first format.
    First,
    /// The release reads the first format no longer.
    Former,
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
    /// This key is of another type.
    Type(&'static str, Kind),
    /// A prefix, a location or a registry that is searched has a scheme.
    Scheme(String),
    /// What is searched for names without a registry has this one, which is no registry.
    Search(String),
    /// The entry for this prefix says of itself what is said of mirrors.
    NoMirrors(String),
    /// The entry for this prefix and its mirror both say what the mirror is asked for.
    Twice(String),
    /// A mirror of the entry for this prefix is asked for none of what there is.
    Pulled(String),
    /// This alias is refused, and why.
    Alias(String, &'static str),
}

/// What is wrong with a file, whose path tells whether it is a drop-in.
pub(super) fn fault(path: &str, table: &Table) -> Option<Fault> {
    if let Some((key, kind)) = misfit(table) {
        return Some(Fault::Type(key, kind));
    }
    let entries = text::tables(table, "registry");
    if table.contains_key("registries") {
        if !entries.is_empty() || table.contains_key(SEARCH) {
            return Some(Fault::Both);
        }
        if !path.ends_with("/registries.conf") && has_first_format(table) {
            return Some(Fault::First);
        }
    }
    if let Some(fault) = entries.iter().find_map(|entry| fault_of_entry(entry)) {
        return Some(fault);
    }
    // By location: a user's file may have tens of thousands of entries, and root's doctor reads it.
    let mut known: BTreeMap<&str, &Table> = BTreeMap::new();
    for entry in &entries {
        let place = Some(of(entry, "location")).filter(|at| !at.is_empty()).unwrap_or(of(entry, "prefix"));
        let first = *known.entry(place).or_insert(entry);
        let differs = |key: &&str| text::is_set(entry, key) != text::is_set(first, key);
        if let Some(key) = ["insecure", "blocked"].into_iter().find(differs) {
            return Some(Fault::Disagree(place.to_owned(), key));
        }
    }
    for registry in text::texts(table, SEARCH).unwrap_or_default() {
        let name = registry.trim_end_matches('/');
        if Address::parse(name).has_scheme() {
            return Some(Fault::Scheme(registry));
        }
        if name.is_empty() || name.contains('/') {
            return Some(Fault::Search(registry));
        }
    }
    if let Some((name, why)) = wrong_alias(table) {
        return Some(Fault::Alias(name, why));
    }
    let is_mode = |mode: &Value| mode.as_str().is_some_and(|mode| mode.is_empty() || MODES.contains(&mode));
    table.get(MODE).is_some_and(|mode| !is_mode(mode)).then_some(Fault::Mode)
}

/// What is wrong with a file for this release alone.
pub(super) fn fault_since(release: Release, table: &Table) -> Option<Fault> {
    let kinds = ["search", "insecure", "block"].into_iter();
    let mut lists = kinds.filter_map(|kind| text::table(table, &["registries", kind])?.get("registries")?.as_array());
    (release == Release::Podman6 && lists.next().is_some()).then_some(Fault::Former)
}

fn fault_of_entry(entry: &Table) -> Option<Fault> {
    let (prefix, location) = (of(entry, "prefix"), of(entry, "location"));
    let mirrors = text::tables(entry, "mirror");
    let places = [prefix, location].into_iter().chain(mirrors.iter().map(|mirror| of(mirror, "location")));
    if let Some(place) = places.into_iter().find(|place| Address::parse(place).has_scheme()) {
        return Some(Fault::Scheme(place.to_owned()));
    }
    match (prefix.strip_prefix("*."), prefix.is_empty(), location.is_empty()) {
        (None, true, true) => return Some(Fault::Empty),
        (None, false, true) => return Some(Fault::NoLocation(prefix.to_owned())),
        (Some(domain), ..) if domain.contains(['/', '@', ':']) => return Some(Fault::Star(prefix.to_owned())),
        _ => {}
    }
    let name = if prefix.is_empty() { location } else { prefix }.to_owned();
    if !of(entry, PULLS).is_empty() {
        return Some(Fault::NoMirrors(name));
    }
    for mirror in mirrors {
        let pulls = of(mirror, PULLS);
        if of(mirror, "location").is_empty() {
            return Some(Fault::NoMirror(name));
        }
        if !pulls.is_empty() && text::is_set(entry, "mirror-by-digest-only") {
            return Some(Fault::Twice(name));
        }
        if !pulls.is_empty() && !PULLED.contains(&pulls) {
            return Some(Fault::Pulled(name));
        }
    }
    None
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
            Self::Former => (
                Code::Unreadable,
                "it has [registries...] of the first format, which podman 6 reads no longer".to_owned(),
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
                without_mode(path, content).map_or_else(|| edit(path, &format!("  # take {MODE} out")), by_hand),
            ),
            Self::Type(key, kind) => (
                Code::Unreadable,
                format!("its {key} has to be {}", kind.name()),
                edit(path, &format!("  # make {key} {}", kind.name())),
            ),
            Self::Scheme(place) => (
                Code::Path,
                format!("{} has a scheme", Address::parse(&place)),
                without_schemes(path, content)
                    .map_or_else(|| edit(path, "  # take http:// and https:// out"), by_hand),
            ),
            Self::Search(registry) => (
                Code::Unreadable,
                format!("its {SEARCH} has \"{registry}\", which is no registry's name"),
                edit(path, &format!("  # {SEARCH} = [\"docker.io\"]: registries without a path")),
            ),
            Self::NoMirrors(prefix) => (
                Code::Unreadable,
                format!("its entry for {prefix} has {PULLS} outside of a mirror"),
                edit(path, &format!("  # {PULLS} into a [[registry.mirror]]")),
            ),
            Self::Twice(prefix) => (
                Code::Conflict,
                format!("its entry for {prefix} has mirror-by-digest-only = true, and {PULLS} in a mirror"),
                edit(path, "  # take one of both out"),
            ),
            Self::Pulled(prefix) => (
                Code::Unreadable,
                format!("a mirror of its entry for {prefix} has a {PULLS} that is none of {}", PULLED.join(", ")),
                edit(path, &format!("  # take {PULLS} out: a mirror is asked for all then")),
            ),
            Self::Alias(name, why) => (
                Code::Unreadable,
                format!("its alias \"{name}\" is refused: {why}"),
                edit(path, &format!("  # take the alias out of [aliases], or write it as {ALIAS}")),
            ),
        };
        let (file, why) = (Some(path.to_owned()), WHY.to_owned());
        of_owner(Finding { code, file, text, why, registries: Vec::new(), fix })
    }
}

/// A command that takes the mode out, if a line holds all of it and nothing else.
fn without_mode(path: &str, content: &str) -> Option<String> {
    let is_it = |line: &&str| behind_key(line, MODE).is_some();
    let kept: Vec<_> = content.lines().filter(|line| !is_it(line)).collect();
    let mut wanted = parse(content).ok()?;
    wanted.remove(MODE);
    let is_right = parse(&kept.join("\n")).is_ok_and(|table| table == wanted);
    is_right.then(|| format!("sed -i '/^[[:space:]]*{MODE}[[:space:]]*=/Id' {}", shell_word(path)))
}

/// A command that takes the schemes of prefixes and locations out, if each has a line of its own.
fn without_schemes(path: &str, content: &str) -> Option<String> {
    let cut = |line: &str| -> Option<String> {
        let value = ["prefix", "location"].into_iter().find_map(|key| behind_key(line, key))?;
        let text = value.strip_prefix(['"', '\''])?;
        let begin = ["http://", "https://"].into_iter().find(|scheme| text.starts_with(scheme))?;
        Some(format!("{}{}", &line[..line.len() - text.len()], &text[begin.len()..]))
    };
    let lines: Vec<_> = content.lines().map(|line| cut(line).unwrap_or_else(|| line.to_owned())).collect();
    let table = parse(&lines.join("\n")).ok()?;
    let is_right = !matches!(fault(path, &table), Some(Fault::Scheme(_)));
    is_right.then(|| {
        const KEYS: &str = "[[:space:]]*(prefix|location)[[:space:]]*=[[:space:]]*";
        format!("sed -i -E 's#^({KEYS}.)https?://#\\1#I' {}", shell_word(path))
    })
}

/// The value of a key that a line begins with.
fn behind_key<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (name, behind) = line.trim_start().split_at_checked(key.len())?;
    name.eq_ignore_ascii_case(key).then(|| behind.trim_start().strip_prefix('='))?.map(str::trim_start)
}

/// A command that gives an entry the location that its prefix names, if there is a line behind which that puts it right.
fn add_location(path: &str, content: &str, prefix: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:".contains(c);
    let location = Some(format!("location = \"{prefix}\"")).filter(|_| prefix.chars().all(is_plain))?;
    let lines: Vec<_> = content.lines().collect();
    let is_it = |line: &str| behind_key(line, "prefix").is_some() && line.contains(&format!("\"{prefix}\""));
    let is_right = |at: &usize| {
        let changed = [&lines[..=*at], &[location.as_str()], &lines[at + 1..]].concat().join("\n");
        let table = parse(&changed);
        table.is_ok_and(|table| fault(path, &table) != Some(Fault::NoLocation(prefix.to_owned())))
    };
    let at = (0..lines.len()).filter(|at| is_it(lines[*at])).take(MAX_TRIED).find(is_right)?;
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
            (DROP_IN, "Short-Name-Mode = \"bogus\"\n", Some(Fault::Mode)),
            (DROP_IN, "[[Registry]]\nBlocked = true\n", Some(Fault::Empty)),
            (DROP_IN, "registry = {}\n", Some(Fault::Type("registry", Kind::Tables))),
            (DROP_IN, "[registry]\nlocation = \"a\"\n", Some(Fault::Type("registry", Kind::Tables))),
            (DROP_IN, "credential-helpers = \"x\"\n", Some(Fault::Type("credential-helpers", Kind::Texts))),
            (DROP_IN, "credential-helpers = [\"x\"]\nfoo = 1\n[bar]\nx = 2\n", None),
            (DROP_IN, "aliases = 1\n", Some(Fault::Type("aliases", Kind::Table))),
            (
                DROP_IN,
                "[[registry]]\nlocation = \"a\"\ninsecure = \"true\"\n",
                Some(Fault::Type("insecure", Kind::Boolean)),
            ),
            (
                DROP_IN,
                "[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\nlocation = 1\n",
                Some(Fault::Type("location", Kind::Text)),
            ),
            (DROP_IN, "[[registry]]\nlocation = \"a/\"\nfoo = 1\n", None),
            (DROP_IN, "[[registry]]\nlocation = \"https://a\"\n", Some(Fault::Scheme("https://a".to_owned()))),
            (
                DROP_IN,
                "[[registry]]\nprefix = \"http://a\"\nlocation = \"b\"\n",
                Some(Fault::Scheme("http://a".to_owned())),
            ),
            (
                DROP_IN,
                "[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\nlocation = \"http://m\"\n",
                Some(Fault::Scheme("http://m".to_owned())),
            ),
            (
                DROP_IN,
                "[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\nlocation = \"m\"\npull-from-mirror = \"bogus\"\n",
                Some(Fault::Pulled("a".to_owned())),
            ),
            (
                DROP_IN,
                "[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\nlocation = \"m\"\npull-from-mirror = \"tag-only\"\n",
                None,
            ),
            (
                DROP_IN,
                "[[registry]]\nlocation = \"a\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"m\"\npull-from-mirror = \"all\"\n",
                Some(Fault::Twice("a".to_owned())),
            ),
            (
                DROP_IN,
                "[[registry]]\nlocation = \"a\"\npull-from-mirror = \"all\"\n",
                Some(Fault::NoMirrors("a".to_owned())),
            ),
            (DROP_IN, "unqualified-search-registries = [\"docker.io/\", \"host:5000\"]\n", None),
            (DROP_IN, "unqualified-search-registries = [\"https://a\"]\n", Some(Fault::Scheme("https://a".to_owned()))),
            (
                DROP_IN,
                "unqualified-search-registries = [\"docker.io/library\"]\n",
                Some(Fault::Search("docker.io/library".to_owned())),
            ),
            (DROP_IN, "unqualified-search-registries = [\"\"]\n", Some(Fault::Search(String::new()))),
            (
                DROP_IN,
                "unqualified-search-registries = \"a\"\n",
                Some(Fault::Type("unqualified-search-registries", Kind::Texts)),
            ),
            (
                DROP_IN,
                "unqualified-search-registries = [1]\n",
                Some(Fault::Type("unqualified-search-registries", Kind::Texts)),
            ),
            (DROP_IN, "[aliases]\n\"x\" = \"quay.io/org/app\"\n", None),
            (
                DROP_IN,
                "[aliases]\n\"X\" = \"quay.io/org/app\"\n",
                Some(Fault::Alias("X".to_owned(), "the name of an alias is in small letters")),
            ),
            (DROP_IN, "[registries.search]\nregistries = [\"a\"]\n", Some(Fault::First)),
            (DROP_IN, "[registries.search]\nregistries = []\n", None),
            (MAIN, "[registries.search]\nregistries = [\"a\"]\n", None),
        ] {
            assert_eq!(fault(path, &parse(content).expect("TOML")), expected, "{content}");
        }
    }

    /// Each entry was compared with all before it: root's doctor took a minute for a user's own file.
    #[test]
    fn a_file_of_many_entries_took_a_time_that_grows_with_their_square() {
        const COUNT: usize = 20_000;
        let entries: String = (0..COUNT).map(|at| format!("[[registry]]\nlocation = \"r{at}.io\"\n")).collect();
        let (last, first) = ("[[registry]]\nlocation = \"r0.io\"\nblocked = true\n", "[[registry]]\nprefix = \"p\"\n");
        let begun = std::time::Instant::now();
        let fault_of = |content: &str| fault("1.conf", &parse(content).expect("TOML"));
        assert_eq!(fault_of(&entries), None);
        assert_eq!(fault_of(&(entries.clone() + last)), Some(Fault::Disagree("r0.io".to_owned(), "blocked")));
        // The command that adds a location was tried behind each line that looks right.
        let many = first.repeat(COUNT / 10);
        assert!(add_location("1.conf", &many, "p").is_none());
        // It took minutes; a build without optimization takes a few seconds.
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
    }

    /// One left a line behind a tab, and cut a text of several lines in two.
    #[test]
    fn a_command_is_shown_for_what_it_puts_right_alone() {
        const SED: &str = "sed -i ";
        for (content, is_command) in [
            ("short-name-mode = \"bogus\"\n", true),
            ("\tshort-name-mode\t=\"bogus\"\n", true),
            ("Short-Name-Mode = 1\r\n", true),
            ("short-name-mode = \"\"\"\nbogus\"\"\"\n", false),
            ("\"short-name-mode\" = \"bogus\"\n", false),
            ("short-name-mode = \"bogus\"\n[x]\nshort-name-mode = 1\n", false),
            ("[[registry]]\n\tlocation=\"https://a\"\n", true),
            ("[[registry]]\nPrefix = 'http://a'\nlocation = \"b\"\n", true),
            ("registry = [{location = \"https://a\"}]\n", false),
            ("unqualified-search-registries = [\"https://a\"]\n", false),
        ] {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("1.conf");
            std::fs::write(&path, content).expect("written");
            let path = path.to_str().expect("UTF-8");
            let found = fault(path, &parse(content).expect("TOML")).expect("a fault");
            let command = found.into_finding(path, content).fix.command;
            assert_eq!(command.starts_with(SED), is_command, "{content}: {command}");
            if is_command {
                let done = std::process::Command::new("sh").args(["-c", &command]).status().expect("it runs");
                let left = std::fs::read_to_string(path).expect("text");
                assert!(done.success() && fault(path, &parse(&left).expect("TOML")).is_none(), "{command}: {left}");
            }
        }
    }
}
