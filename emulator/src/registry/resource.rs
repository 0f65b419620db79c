//! The resource that a path names, by the grammar of the registry's router.
//!
//! Source: ACR descends from distribution 2.8, whose router matches names, tags and digests before any handler runs. A
//! path that breaks the grammar is therefore 404 in plain text, before authorization (azure-sdk-for-go recording of
//! GetBlob_fail for a digest; inferred for the rest).

/// The router accepts no digest with fewer hexadecimal digits.
const SHORTEST_HEX: usize = 32;
const LONGEST_TAG: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource<'a> {
    Ping,
    Catalog,
    Manifest { repository: &'a str, reference: &'a str },
    Blob { repository: &'a str, digest: &'a str },
    Tags { repository: &'a str },
    Referrers { repository: &'a str, digest: &'a str },
}

impl<'a> Resource<'a> {
    /// `None` is the router's 404.
    pub(super) fn parse(path: &'a str) -> Option<Resource<'a>> {
        let rest = path.strip_prefix("/v2/")?;
        match rest {
            "" => return Some(Resource::Ping),
            "_catalog" => return Some(Resource::Catalog),
            _ => {}
        }
        let (head, last) = rest.rsplit_once('/')?;
        let (repository, kind) = head.rsplit_once('/')?;
        if !repository.split('/').all(is_name_component) {
            return None;
        }
        match kind {
            "tags" if last == "list" => Some(Resource::Tags { repository }),
            "manifests" if is_tag(last) || is_digest(last) => Some(Resource::Manifest { repository, reference: last }),
            "blobs" if is_digest(last) => Some(Resource::Blob { repository, digest: last }),
            "referrers" if is_digest(last) => Some(Resource::Referrers { repository, digest: last }),
            _ => None,
        }
    }

    /// The repository that it belongs to.
    pub(super) fn repository(self) -> Option<&'a str> {
        match self {
            Resource::Ping | Resource::Catalog => None,
            Resource::Manifest { repository, .. }
            | Resource::Blob { repository, .. }
            | Resource::Tags { repository }
            | Resource::Referrers { repository, .. } => Some(repository),
        }
    }

    /// Type, name and action of the access that it needs; none for the ping.
    pub(super) fn access(self) -> Option<(&'static str, &'a str, &'static str)> {
        match self {
            Resource::Ping => None,
            Resource::Catalog => Some(("registry", "catalog", "*")),
            _ => self.repository().map(|repository| ("repository", repository, "pull")),
        }
    }
}

/// Lower-case letters and digits, with one separator between any two runs of them: `.`, `_`, `__` or any number of `-`.
fn is_name_component(text: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut separators = text.split(is_alphanumeric).filter(|separator| !separator.is_empty());
    text.starts_with(is_alphanumeric)
        && text.ends_with(is_alphanumeric)
        && separators.all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= LONGEST_TAG
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

/// An algorithm of any name, in parts that begin with a letter, and hexadecimal digits.
fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return false;
    };
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(is_part)
        && hex.len() >= SHORTEST_HEX
        && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::{is_digest, is_name_component, is_tag};

    #[test]
    fn the_grammar_is_that_of_distribution() {
        for (text, expected) in [
            ("a", true),
            ("a.b_c__d---e", true),
            ("", false),
            ("-a", false),
            ("a..b", false),
            ("a___b", false),
            ("A", false),
        ] {
            assert_eq!(is_name_component(text), expected, "{text}");
        }
        for (text, expected) in
            [("latest", true), ("_1.2-x", true), ("", false), (".a", false), ("a b", false), (&"a".repeat(129), false)]
        {
            assert_eq!(is_tag(text), expected, "{text}");
        }
        let hex = "0123456789abcdefABCDEF0123456789";
        for (text, expected) in [
            (format!("sha256:{hex}"), true),
            (format!("sha256+b64.x:{hex}"), true),
            (format!("sha256:{}", &hex[1..]), false),
            (format!("sha256:{hex}g"), false),
            (format!("256:{hex}"), false),
            (format!("sha256-:{hex}"), false),
            (hex.to_owned(), false),
        ] {
            assert_eq!(is_digest(&text), expected, "{text}");
        }
    }
}
