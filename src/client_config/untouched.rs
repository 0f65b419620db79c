//! Why a file of somebody else's is left as it is, and what has to be done first.

use std::fmt;

use crate::directory::Unfit;

/// Why. Displays as a clause about the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Untouched {
    /// There is something else than a file of text.
    Unfit(Unfit),
    /// Its client does not take it either, so there is nothing that could be added to.
    Broken(String),
    /// It does not carry the marker, and its path is one that nobody else uses.
    Unmarked,
    /// Anything else. Whoever wrote it can write into it what it lacks.
    Foreign(String),
}

impl Untouched {
    /// What makes the same command go on, if something does.
    pub(super) fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Unfit(Unfit::Directory | Unfit::Irregular) => Some("move it away"),
            Self::Broken(_) => Some("mend it"),
            Self::Unmarked => Some("if it is nobody else's, remove it by hand"),
            Self::Unfit(Unfit::TooLong(_)) | Self::Foreign(_) => None,
        }
    }

    /// The clause, with the remedy.
    pub(super) fn with_remedy(&self) -> String {
        self.remedy().map_or_else(|| self.to_string(), |remedy| format!("{self}: {remedy}"))
    }
}

impl fmt::Display for Untouched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfit(unfit) => unfit.fmt(f),
            Self::Broken(clause) | Self::Foreign(clause) => f.write_str(clause),
            Self::Unmarked => f.write_str("lacks the first line by which files of client-config are known"),
        }
    }
}

impl From<String> for Untouched {
    fn from(clause: String) -> Self {
        Self::Foreign(clause)
    }
}

impl From<&str> for Untouched {
    fn from(clause: &str) -> Self {
        Self::Foreign(clause.to_owned())
    }
}
