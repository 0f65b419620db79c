//! Whether a client's files stand as they would be written: the answer of `client-config --check`, and of `doctor`.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Setup;
use super::look::{Found, Look, look, sends};

/// One file, and whether it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Where it is on this machine, or would be.
    pub at: PathBuf,
    /// Whether it stands.
    pub state: State,
    /// What stands beside it and has a part in what the client does, a clause each.
    pub beside: Vec<String>,
}

/// Whether a file says what it would say if it were written now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It does.
    Stands,
    /// There is none; `--write` makes it.
    Missing,
    /// It is from other settings or another release, a clause about the difference; `--write` replaces it.
    Older(String),
    /// It is somebody else's, and lacks this, a clause each; `--write --merge` adds it.
    Lacks(Vec<String>),
    /// It is somebody else's, and sends these registries to the proxy, which has no route for them; only whoever wrote it takes them out.
    Leftover(Vec<String>),
    /// A flag of the engine's, or another file, excludes it; a clause, with what to do.
    Excluded(String),
    /// It is somebody else's, and nothing here changes it; a clause about the file.
    Foreign(String),
    /// It is from here, and not needed any more; a clause why, and `--write --prune` removes it.
    Stale(&'static str),
    /// It cannot be looked at; a sentence.
    Unknown(String),
}

impl Setup {
    /// Each file of the client below `root`, then those of routes that are gone. Nothing is changed.
    pub(crate) fn standing(&self, root: &Path) -> Vec<Standing> {
        let stale = match self.stale(root) {
            Ok(stale) => stale.into_iter().map(|file| (file.at, State::Stale(self.why_stale(&file.path)))).collect(),
            // Of the files of today nothing follows from that.
            Err(cause) => vec![(
                root.to_owned(),
                State::Unknown(format!("{cause}, so files of routes that are gone may be left there")),
            )],
        };
        let stale = stale.into_iter().map(|(at, state)| Standing { at, state, beside: Vec::new() });
        let files = self.files.iter().map(|file| {
            let (at, state, beside) = match look(root, file, self.here.as_ref()) {
                Err(cause) => (root.join(file.path().trim_start_matches('/')), State::Unknown(cause), Vec::new()),
                Ok(look) => {
                    let (state, beside) = match look.found {
                        Found::Nothing => (State::Missing, Vec::new()),
                        Found::Same(beside) => (State::Stands, beside),
                        Found::Older(difference) => (State::Older(difference), Vec::new()),
                        Found::Leftover(registries, beside) => (State::Leftover(registries), beside),
                        Found::Lacks(_, mut merged) => {
                            merged.beside.extend(
                                (!merged.leftover.is_empty()).then(|| format!("it {}", sends(&merged.leftover))),
                            );
                            (State::Lacks(merged.lacks), merged.beside)
                        }
                        Found::Excluded(why) => (State::Excluded(why), Vec::new()),
                        Found::Untouched(why) => (State::Foreign(why.with_remedy()), Vec::new()),
                    };
                    (look.at, state, beside)
                }
            };
            Standing { at, state, beside }
        });
        files.chain(stale).collect()
    }

    /// Leaves out the files that a flag of the engine's or another file excludes, or that cannot be judged, and gives the sentences why.
    pub(crate) fn take_excluded(&mut self, root: &Path) -> Vec<String> {
        let mut excluded = Vec::new();
        let mut files = Vec::new();
        for file in std::mem::take(&mut self.files) {
            match look(root, &file, self.here.as_ref()) {
                Ok(Look { at, found: Found::Excluded(why) }) => excluded.push(format!("{}: {why}", at.display())),
                Ok(_) => files.push(file),
                Err(why) => excluded.push(why),
            }
        }
        self.files = files;
        excluded
    }

    /// Why `--write --merge` leaves the file with this path as it is, a clause about the file; `None` if it does not.
    pub(crate) fn refusal(&self, root: &Path, path: &str) -> Option<String> {
        let file = self.files.iter().find(|file| file.path() == path)?;
        match look(root, file, self.here.as_ref()).ok()?.found {
            Found::Untouched(why) => Some(why.with_remedy()),
            Found::Leftover(registries, _) => Some(sends(&registries)),
            _ => None,
        }
    }
}

impl Standing {
    /// Whether there is nothing to do.
    pub(crate) fn stands(&self) -> bool {
        self.state == State::Stands
    }
}

/// One line, which begins with one word.
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.display();
        match &self.state {
            State::Stands => write!(f, "stands {at}")?,
            State::Missing => write!(f, "missing {at}")?,
            State::Older(difference) => write!(f, "differs {at}: {difference}")?,
            State::Lacks(lacks) => write!(f, "differs {at}: it lacks {}", lacks.join(", and "))?,
            State::Leftover(registries) => write!(f, "stale {at}: it {}", sends(registries))?,
            State::Excluded(why) => write!(f, "excluded {at}: {why}")?,
            State::Foreign(why) => write!(f, "differs {at}: it {why}")?,
            State::Stale(why) => write!(f, "stale {at}: it {why}")?,
            State::Unknown(cause) => write!(f, "unknown {cause}")?,
        }
        self.beside.iter().try_for_each(|clause| write!(f, "; {clause}"))
    }
}
