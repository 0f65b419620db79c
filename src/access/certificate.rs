//! Names of clients' certificates, and which of them may pull.

use std::fmt;

/// The longest name. A SPIFFE ID, the longest that is in use, has 2048 bytes by its own rules and some fifty in fact.
pub(crate) const MAX_NAME: usize = 256;

/// A name of a client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// The common name of its subject.
    Subject(String),
    /// A DNS name among its alternative names.
    Dns(String),
    /// A URI among them.
    Uri(String),
}

impl Name {
    /// The name itself.
    pub(crate) fn as_str(&self) -> &str {
        let (Self::Subject(name) | Self::Dns(name) | Self::Uri(name)) = self;
        name
    }
}

/// Names that may pull: `node-7.internal`, `*.nodes.internal`, `system:node:*`, `spiffe://example.org/nodes/*`.
///
/// One with `://` is a URI's, all others are common names and DNS names, of which the case does not matter.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct NamePattern {
    is_uri: bool,
    part: Part,
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    /// The name.
    Whole(String),
    /// What any name below a domain ends with, its dot included.
    End(String),
    /// What a name begins with, to the separator before what may follow.
    Begin(String),
}

impl NamePattern {
    /// The error says what to use.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not a name of a certificate: use one such as node-7.internal, *.nodes.internal, system:node:* or spiffe://example.org/nodes/*"
            )
        };
        let is_uri = text.contains("://");
        let (part, rest) = if let Some(end) = text.strip_prefix('*').filter(|end| end.starts_with('.')) {
            (Part::End(end.to_owned()), end.strip_prefix('.').unwrap_or_default())
        } else if let Some(begin) = text.strip_suffix('*').filter(|begin| begin.ends_with([':', '/'])) {
            (Part::Begin(begin.to_owned()), begin.trim_end_matches([':', '/']))
        } else {
            (Part::Whole(text.to_owned()), text)
        };
        // What is left of a URI names at least the host that gives its names.
        let is_open = rest.is_empty() || (is_uri && !rest.contains("://"));
        let is_mixed = is_uri && matches!(part, Part::End(_));
        let is_text = rest.chars().all(|c| !c.is_control() && c != '*') && rest.trim() == rest;
        if is_open || is_mixed || !is_text || text.len() > MAX_NAME { Err(wrong()) } else { Ok(Self { is_uri, part }) }
    }

    fn has(&self, name: &Name) -> bool {
        let is_uri = matches!(name, Name::Uri(_));
        let name = name.as_str().as_bytes();
        if is_uri != self.is_uri {
            return false;
        }
        let is_same = |name: &[u8], part: &str| {
            if is_uri { name == part.as_bytes() } else { name.eq_ignore_ascii_case(part.as_bytes()) }
        };
        // The rest is what the star stands for: something.
        match &self.part {
            Part::Whole(whole) => is_same(name, whole),
            Part::End(end) => {
                let at = name.len().saturating_sub(end.len());
                at > 0 && name.get(at..).is_some_and(|name| is_same(name, end))
            }
            Part::Begin(begin) => {
                name.len() > begin.len() && name.get(..begin.len()).is_some_and(|name| is_same(name, begin))
            }
        }
    }
}

/// As in the settings.
impl fmt::Debug for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.part {
            Part::Whole(whole) => f.write_str(whole),
            Part::End(end) => write!(f, "*{end}"),
            Part::Begin(begin) => write!(f, "{begin}*"),
        }
    }
}

/// The certificates that may pull.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Certificates(Vec<NamePattern>);

impl Certificates {
    pub(crate) fn new(patterns: Vec<NamePattern>) -> Self {
        Self(patterns)
    }

    /// No certificate is asked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of a certificate's names may pull.
    pub(super) fn have_one_of(&self, names: &[Name]) -> bool {
        names.iter().any(|name| self.0.iter().any(|pattern| pattern.has(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(name: &str) -> Name {
        Name::Subject(name.to_owned())
    }

    fn dns(name: &str) -> Name {
        Name::Dns(name.to_owned())
    }

    fn uri(name: &str) -> Name {
        Name::Uri(name.to_owned())
    }

    #[test]
    fn a_name_fits_by_itself_or_below_a_star_and_only_where_it_is_of_that_kind() {
        for (pattern, name, fits) in [
            ("node-7.internal", dns("node-7.internal"), true),
            ("node-7.internal", subject("Node-7.Internal"), true),
            ("node-7.internal", dns("node-7.internal.evil.example"), false),
            ("node-7.internal", dns("xnode-7.internal"), false),
            ("node-7.internal", uri("node-7.internal"), false),
            ("*.nodes.internal", dns("a.nodes.internal"), true),
            ("*.nodes.internal", dns("a.b.NODES.internal"), true),
            ("*.nodes.internal", dns("nodes.internal"), false),
            ("*.nodes.internal", dns(".nodes.internal"), false),
            ("*.nodes.internal", dns("evilnodes.internal"), false),
            ("system:node:*", subject("system:node:node-7"), true),
            ("system:node:*", subject("system:node:"), false),
            ("system:node:*", subject("system:nodes"), false),
            ("spiffe://example.org/nodes/*", uri("spiffe://example.org/nodes/7"), true),
            ("spiffe://example.org/nodes/*", uri("spiffe://example.org/nodes/"), false),
            ("spiffe://example.org/nodes/*", uri("spiffe://Example.org/nodes/7"), false),
            ("spiffe://example.org/nodes/*", uri("spiffe://example.org.evil/nodes/7"), false),
            // A CA that lets clients choose their subject gives them no URI by it.
            ("spiffe://example.org/nodes/7", subject("spiffe://example.org/nodes/7"), false),
            ("spiffe://example.org/nodes/7", uri("spiffe://example.org/nodes/7"), true),
            ("spiffe://example.org/nodes/7", uri("spiffe://example.org/nodes/77"), false),
        ] {
            let certificates = Certificates::new(vec![NamePattern::parse(pattern).expect("a pattern")]);
            assert_eq!(certificates.have_one_of(std::slice::from_ref(&name)), fits, "{pattern} {name:?}");
            assert!(!certificates.have_one_of(&[]), "{pattern}");
            assert_eq!(format!("{certificates:?}"), format!("Certificates([{pattern}])"));
        }
    }

    #[test]
    fn a_pattern_for_everybody_or_nobody_is_refused() {
        let long = "x".repeat(MAX_NAME + 1);
        for text in
            ["", "*", "*.", ":*", "/*", "a*", "*a", "a.*.b", "*.*.b", " a", "a\n", "spiffe://*", "*.spiffe://a", &long]
        {
            assert!(NamePattern::parse(text).is_err(), "{text:?}");
        }
    }
}
