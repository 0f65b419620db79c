//! What somebody else's file has to say for its client to come here, and the file with it: pure.
//!
//! Text is only ever put in, never taken out, so keys, comments and order stay as they are. What came of it is parsed: it has to be the value
//! from before and what was to come, or else the file is refused.

mod buildkitd_toml;
mod daemon_json;
mod registries_yaml;

use super::masked::masked;
use super::untouched::Untouched;

/// What a file that this command did not write has to say, by what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Addition {
    /// `daemon.json`: the mirror with this URL is asked first.
    DaemonJson(String),
    /// `buildkitd.toml`: the mirror is asked first for each of the registries.
    BuildkitdToml {
        /// `127.0.0.1:8080`
        mirror: String,
        /// It is spoken to in plain text.
        http: bool,
        /// Their names.
        registries: Vec<String>,
    },
    /// `registries.yaml`: the endpoint with this URL is asked first for each of the registries.
    RegistriesYaml {
        /// `http://127.0.0.1:8080`
        url: String,
        /// Their names.
        registries: Vec<String>,
    },
}

/// A file as it would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Merged {
    /// All of it; the text from before if nothing is lacking.
    pub text: String,
    /// What it lacks, a clause each.
    pub lacks: Vec<String>,
    /// What stands beside it and has a part in what the client does, a clause each.
    pub beside: Vec<String>,
    /// Registries that it sends to the proxy, which has no route for them.
    pub leftover: Vec<String>,
}

impl Addition {
    /// The file with what it lacks; `is_same` knows other addresses of the proxy. The error says that the file is broken, or
    /// contradicts what is to come.
    pub(crate) fn merge(&self, old: &str, is_same: IsSame<'_>) -> Result<Merged, Untouched> {
        if old.starts_with('\u{feff}') {
            return Err("begins with a byte order mark: take that out".into());
        }
        match self {
            Self::DaemonJson(url) => daemon_json::merge(old, url, is_same),
            Self::BuildkitdToml { mirror, http, registries } => {
                buildkitd_toml::merge(old, mirror, *http, registries, is_same)
            }
            Self::RegistriesYaml { url, registries } => registries_yaml::merge(old, url, registries, is_same),
        }
    }
}

/// What comes of a file that could be edited in one way only, and not in this one.
const NOT_IN_PLACE: &str = "is written in a way that cannot be added to in place";

/// Text that is put in, in the order of the places.
#[derive(Default)]
struct Insertions(Vec<(usize, String)>);

impl Insertions {
    fn put(&mut self, at: usize, text: String) {
        self.0.push((at, text));
    }

    /// The text with all of them; of two at one place the one that was put first comes first.
    fn into(mut self, old: &str) -> String {
        self.0.sort_by_key(|(at, _)| *at);
        let mut text = String::with_capacity(old.len() + self.0.iter().map(|(_, text)| text.len()).sum::<usize>());
        let mut from = 0;
        for (at, insertion) in self.0 {
            text += &old[from..at];
            text += &insertion;
            from = at;
        }
        text + &old[from..]
    }
}

/// How the file's lines end.
fn newline(text: &str) -> &'static str {
    match text.find('\n') {
        Some(at) if text[..at].ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

/// Where the proxy stands among those that are asked in turn.
enum Rank {
    First,
    Absent,
}

/// The error is a clause: others are asked before it, so that it would be asked only when all of those fail.
fn rank(list: &[&str], ours: &str, name: &str, is_same: IsSame<'_>) -> Result<Rank, String> {
    match list.iter().position(|other| is(other, ours, is_same)) {
        Some(0) => Ok(Rank::First),
        None => Ok(Rank::Absent),
        Some(at) => {
            let before: Vec<_> = list[..at].iter().map(|other| masked(other)).collect();
            Err(format!("has {ours} in {name}, but asks {} before it: put {ours} first", before.join(", ")))
        }
    }
}

/// Whether two addresses are the proxy's, the one as the other.
pub(super) type IsSame<'a> = &'a dyn Fn(&str, &str) -> bool;

/// Clients take an address with a slash at its end for the same.
pub(super) fn is(other: &str, ours: &str, is_same: IsSame<'_>) -> bool {
    other.strip_suffix('/').unwrap_or(other) == ours || is_same(other, ours)
}

/// Who is asked when the proxy fails, as it is shown.
fn others(list: &[&str], ours: &str, is_same: IsSame<'_>) -> Vec<String> {
    list.iter().filter(|other| !is(other, ours, is_same)).map(|other| masked(other)).collect()
}

#[cfg(test)]
mod tests;
