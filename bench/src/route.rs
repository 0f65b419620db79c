//! The two ways of a pull: through the proxy and directly from the registry.

use std::fmt;
use std::sync::Arc;

use crate::origin::Origin;
use crate::pull::sign_in::SignIn;

/// One of the two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Through the proxy.
    Via,
    /// From the registry.
    Direct,
}

impl Side {
    /// The name in flags, tables and JSON.
    pub fn label(self) -> &'static str {
        match self {
            Self::Via => "via",
            Self::Direct => "direct",
        }
    }
}

/// One side: the host, its repositories' prefix, and how to sign in.
pub struct Route {
    /// Which side it is.
    pub side: Side,
    /// The proxy or the registry.
    pub origin: Origin,
    /// What precedes a repository's name, such as `hub/`; may be empty.
    pub prefix: String,
    /// `None` sends no credentials.
    pub sign_in: Option<Arc<dyn SignIn>>,
}

impl Route {
    /// The proxy, which needs neither prefix nor credentials.
    pub fn via(origin: Origin) -> Self {
        Self { side: Side::Via, origin, prefix: String::new(), sign_in: None }
    }

    /// The registry, with the path that stands before its repositories' names.
    pub fn direct(origin: Origin, prefix: &str, sign_in: Arc<dyn SignIn>) -> Self {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self { side: Side::Direct, origin, prefix, sign_in: Some(sign_in) }
    }

    /// The name in a report, with the prefix.
    pub fn name(&self) -> String {
        match self.side {
            Side::Via => self.origin.to_string(),
            Side::Direct => format!("{}/{}", self.origin.authority(), self.prefix).trim_end_matches('/').to_owned(),
        }
    }
}

impl fmt::Display for Route {
    /// The beginning of an error: `via http://127.0.0.1:8080`, `direct example.azurecr.io`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.side {
            Side::Via => write!(f, "via {}", self.origin),
            Side::Direct => write!(f, "direct {}", self.origin.authority()),
        }
    }
}
