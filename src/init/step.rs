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
    /// By which it is left out.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Try => "try",
            Self::Service => "service",
            Self::Engines => "engines",
        }
    }

    /// By its name. The error says which there are.
    pub(crate) fn parse_skipped(text: &str) -> Result<Self, String> {
        match text {
            "try" => Ok(Self::Try),
            "service" => Ok(Self::Service),
            "engines" => Ok(Self::Engines),
            _ => Err(format!("unknown step {text:?}: use try, service or engines")),
        }
    }
}
