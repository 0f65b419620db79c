//! The steps that can be left out.

/// A step that can be left out beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The way to the registry is tried.
    Try,
    /// The service is started.
    Service,
    /// The engines' files are written.
    Engines,
}

impl Step {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Try, Self::Service, Self::Engines];

    /// By which it is left out.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Try => "try",
            Self::Service => "service",
            Self::Engines => "engines",
        }
    }

    /// By its name. The error says which there are.
    pub(crate) fn parse_skipped(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|step| step.name() == text);
        known.ok_or_else(|| format!("unknown step {text:?}: use try, service or engines"))
    }
}
