//! Repository names, tags and digests: borrowed from the request, valid by construction.

use std::fmt;

/// The limit that the specification recommends, because some clients cannot handle more, including the registry's host.
pub const MAX_NAME: usize = 255;
/// The limit of the grammar: one character and 127 more.
const MAX_TAG: usize = 128;
/// sha512, the longest registered algorithm, needs 135; an unregistered one may be somewhat longer.
const MAX_DIGEST: usize = 256;
/// Leaves room for the name that follows the prefix.
const MAX_PREFIX: usize = 128;
/// Docker Hub's namespace for short names: `busybox` is `library/busybox`.
pub(crate) const LIBRARY: &str = "library";

/// A repository's name, such as `library/busybox`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a>(&'a str);

impl<'a> Name<'a> {
    /// Lower-case path components with single separators between letters and digits, [`MAX_NAME`] bytes at most.
    pub fn parse(text: &'a str) -> Option<Self> {
        (text.len() <= MAX_NAME && text.split('/').all(is_component)).then_some(Self(text))
    }

    /// The name as the request has it.
    pub fn as_str(&self) -> &'a str {
        self.0
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_in_words = bytes.first().copied().is_some_and(word) && bytes.last().copied().is_some_and(word);
    ends_in_words
        && bytes.split(|&byte| word(byte)).all(|between| match between {
            b"" | b"." | b"_" | b"__" => true,
            dashes => dashes.iter().all(|&byte| byte == b'-'),
        })
}

/// A tag, such as `latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag<'a>(&'a str);

impl<'a> Tag<'a> {
    /// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
    pub fn parse(text: &'a str) -> Option<Self> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let (first, rest) = text.as_bytes().split_first()?;
        let valid = word(*first) && rest.iter().all(|&byte| word(byte) || byte == b'.' || byte == b'-');
        (valid && text.len() <= MAX_TAG).then_some(Self(text))
    }

    /// The tag as the request has it.
    pub fn as_str(&self) -> &'a str {
        self.0
    }
}

/// Whether a tag is one that clients make of a manifest's digest, for what belongs to it: `sha256-<hex>`, the list of its referrers
/// where a registry has none (OCI distribution 1.1, "Referrers Tag Schema"), and with `.sig`, `.att` or `.sbom` what cosign attaches.
/// Most images have none of these, so the usual answer is 404.
pub fn is_attachment(tag: &str) -> bool {
    let Some(digest) = tag.strip_prefix("sha256-") else { return false };
    let (hex, kind) = digest.split_once('.').unwrap_or((digest, ""));
    hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) && matches!(kind, "" | "sig" | "att" | "sbom")
}

/// The digest of the manifest whose signature has this tag, which cosign and containers/image make of it: `sha256-<hex>.sig`.
pub fn signed_by(tag: &str) -> Option<String> {
    let digest = tag.strip_suffix(".sig").filter(|_| is_attachment(tag))?;
    Some(digest.replacen('-', ":", 1))
}

/// A digest, such as `sha256:<64 hex digits>`. Its `:` and `+` may be percent-encoded: some clients do it, and it is
/// equivalent (RFC 3986 section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest<'a> {
    algorithm: &'a str,
    encoded: &'a str,
}

impl<'a> Digest<'a> {
    /// Whether the text has the colon of a digest, which no tag has.
    pub(crate) fn is_meant(text: &str) -> bool {
        split_at_colon(text).is_some()
    }

    /// Registered algorithms with exactly their hex digits, others by the grammar; 256 bytes at most.
    pub fn parse(text: &'a str) -> Option<Self> {
        /// The length of the encoded part.
        const REGISTERED: [(&str, usize); 2] = [("sha256", 64), ("sha512", 128)];
        // The length is of the text that the registry gets: of an encoding's three bytes it has one.
        let encodings = || text.bytes().filter(|byte| *byte == b'%').count();
        if text.len() > MAX_DIGEST && text.len().saturating_sub(2 * encodings()) > MAX_DIGEST {
            return None;
        }
        let (algorithm, encoded) = split_at_colon(text)?;
        let valid = match REGISTERED.iter().find(|(name, _)| *name == algorithm) {
            Some((_, length)) => {
                encoded.len() == *length && encoded.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            }
            None => {
                is_algorithm(algorithm)
                    && !encoded.is_empty()
                    && encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'=' | b'_' | b'-'))
            }
        };
        valid.then_some(Self { algorithm, encoded })
    }
}

impl fmt::Display for Digest<'_> {
    /// Without percent-encoding: `:` and `+` need none in a path (RFC 3986 section 3.3).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = plus_separated(self.algorithm);
        f.write_str(words.next().unwrap_or_default())?;
        for word in words {
            write!(f, "+{word}")?;
        }
        write!(f, ":{}", self.encoded)
    }
}

/// Splits at the first `:` or `%3A`. Before it, the only percent-encoding allowed is that of `+`.
fn split_at_colon(text: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find([':', '%'])?;
        let (algorithm, rest) = text.split_at(at);
        if let Some(encoded) = rest.strip_prefix(':') {
            return Some((algorithm, encoded));
        }
        match rest.get(..3)? {
            "%3A" | "%3a" => return Some((algorithm, &rest[3..])),
            "%2B" | "%2b" => from = at + 3,
            _ => return None,
        }
    }
}

/// `[a-z0-9]+([+._-][a-z0-9]+)*`
fn is_algorithm(text: &str) -> bool {
    plus_separated(text).all(|part| {
        part.split(['.', '_', '-'])
            .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()))
    })
}

fn plus_separated(algorithm: &str) -> impl Iterator<Item = &str> {
    algorithm.split('+').flat_map(|part| part.split("%2B")).flat_map(|part| part.split("%2b"))
}

/// The prefix of every name in the cache registry: the target of a cache rule, or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// Empty, or a name of 128 bytes at most, without a slash at its ends.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = text.is_empty() || (text.len() <= MAX_PREFIX && Name::parse(text).is_some());
        valid.then(|| Self(text.to_owned()))
    }

    /// The prefix without slashes at its ends.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a repository in the cache registry, `<prefix>/[library/]<rest>`, kept in parts so that nothing is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repository<'a> {
    parts: [&'a str; 3],
}

impl<'a> Repository<'a> {
    /// Each part is a valid name or empty. `library` says that Docker Hub's namespace for short names belongs between them.
    pub fn new(prefix: &'a str, library: bool, rest: &'a str) -> Self {
        Self { parts: [prefix, if library { LIBRARY } else { "" }, rest] }
    }

    fn parts(&self) -> impl Iterator<Item = &'a str> {
        self.parts.into_iter().filter(|part| !part.is_empty())
    }

    /// The whole name begins with so many bytes that are the route's prefix, not the client's name; without the slash after them.
    pub fn prefix_len(&self) -> usize {
        self.parts[0].len()
    }

    /// The length of the whole name.
    pub fn len(&self) -> usize {
        (self.parts().map(|part| part.len() + 1).sum::<usize>()).saturating_sub(1)
    }

    /// There is no name: all of a source's path was asked for, and the route puts nothing in its place.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the whole name.
    pub fn push_to(&self, text: &mut String) {
        for (index, part) in self.parts().enumerate() {
            if index > 0 {
                text.push('/');
            }
            text.push_str(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex::Regex;

    // As the specification writes them.
    const NAME: &str = r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$";
    const TAG: &str = r"^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$";
    const DIGEST: &str = r"^[a-z0-9]+([+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$";
    const REGISTERED: &str = r"^(sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$";

    /// Texts of the characters of the grammar, of which about half are valid.
    fn texts(alphabet: &'static str, longest: usize) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(alphabet.chars().collect::<Vec<_>>()), 0..longest)
            .prop_map(|chars| chars.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn names_follow_the_grammar(text in prop_oneof![texts("ab1/._-", 12), texts("abcdez09/._-A%\\:~ é", 10), ".{0,20}"]) {
            let grammar = Regex::new(NAME).expect("a regex");
            prop_assert_eq!(Name::parse(&text).is_some(), grammar.is_match(&text), "{:?}", text);
        }

        #[test]
        fn tags_follow_the_grammar(text in prop_oneof![texts("aZ0._-", 8), texts("a.-/%:+ é", 6), "[a-z]{120,135}"]) {
            let grammar = Regex::new(TAG).expect("a regex");
            prop_assert_eq!(Tag::parse(&text).is_some(), grammar.is_match(&text), "{:?}", text);
        }

        #[test]
        fn digests_follow_the_grammar(
            text in prop_oneof![texts("ab1:+._-=", 10), "sha256:[a-f0-9]{62,66}", "sha512:[a-f0-9]{126,130}", "sha256:[a-gA-F]{64}"],
        ) {
            let plain = !text.contains('%');
            let registered = text.starts_with("sha256:") || text.starts_with("sha512:");
            let grammar = Regex::new(if registered { REGISTERED } else { DIGEST }).expect("a regex");
            prop_assert_eq!(Digest::parse(&text).is_some(), plain && grammar.is_match(&text), "{:?}", text);
        }

        #[test]
        fn an_encoded_digest_is_the_plain_one(
            algorithm in "[a-z0-9]{1,5}([+._-][a-z0-9]{1,5}){0,3}",
            encoded in "[a-zA-Z0-9=_-]{1,40}",
            upper in any::<bool>(),
        ) {
            let plain = format!("{algorithm}:{encoded}");
            let (plus, colon) = if upper { ("%2B", "%3A") } else { ("%2b", "%3a") };
            let coded = format!("{}{colon}{encoded}", algorithm.replace('+', plus));
            prop_assert_eq!(Digest::parse(&coded).map(|digest| digest.to_string()), Some(plain));
        }

        #[test]
        fn every_accepted_digest_is_written_as_a_valid_one(text in "[a-z0-9%2Bb3Aa:+._-]{0,24}") {
            let grammar = Regex::new(DIGEST).expect("a regex");
            if let Some(digest) = Digest::parse(&text) {
                prop_assert!(grammar.is_match(&digest.to_string()), "{:?} -> {}", text, digest);
            }
        }
    }

    /// It was refused encoded and accepted without, so two spellings of one digest were not the same object.
    #[test]
    fn the_longest_digest_may_be_encoded() {
        let encoded = "a".repeat(MAX_DIGEST - "x+y:".len());
        assert!(Digest::parse(&format!("x+y:{encoded}")).is_some());
        assert!(Digest::parse(&format!("x%2By%3A{encoded}")).is_some());
        assert!(Digest::parse(&format!("x%2By%3A{encoded}a")).is_none());
    }

    #[test]
    fn lengths_have_limits() {
        assert!(Name::parse(&"a".repeat(MAX_NAME)).is_some());
        assert!(Name::parse(&"a".repeat(MAX_NAME + 1)).is_none());
        assert!(Digest::parse(&format!("x:{}", "a".repeat(MAX_DIGEST - 2))).is_some());
        assert!(Digest::parse(&format!("x:{}", "a".repeat(MAX_DIGEST - 1))).is_none());
        assert!(Digest::parse(&"%".repeat(MAX_DIGEST)).is_none());
        assert!(Prefix::parse(&"a".repeat(MAX_PREFIX)).is_some());
        assert!(Prefix::parse(&"a".repeat(MAX_PREFIX + 1)).is_none());
    }

    #[test]
    fn a_prefix_is_a_name_or_nothing() {
        for (text, valid) in
            [("", true), ("hub", true), ("a/b", true), ("/hub", false), ("hub/", false), ("Hub", false)]
        {
            assert_eq!(Prefix::parse(text).is_some(), valid, "{text:?}");
        }
    }

    #[test]
    fn a_repository_is_written_without_its_empty_parts() {
        for (prefix, library, rest, whole) in [
            ("hub", true, "busybox", "hub/library/busybox"),
            ("hub", false, "a/b", "hub/a/b"),
            ("", true, "busybox", "library/busybox"),
            ("", false, "a", "a"),
            ("hub", false, "", "hub"),
        ] {
            let (repository, mut text) = (Repository::new(prefix, library, rest), String::new());
            repository.push_to(&mut text);
            assert_eq!((text.as_str(), repository.len()), (whole, whole.len()));
        }
    }

    #[test]
    fn what_clients_attach_has_a_tag_made_of_a_digest() {
        let digest = "ab".repeat(32);
        for (tag, expected) in [
            (format!("sha256-{digest}.sig"), true),
            (format!("sha256-{digest}.att"), true),
            (format!("sha256-{digest}.sbom"), true),
            (format!("sha256-{digest}"), true),
            (format!("sha256-{digest}.exe"), false),
            (format!("sha256-{digest}.sig.sig"), false),
            (format!("sha256-{}.sig", &digest[1..]), false),
            (format!("sha256:{digest}"), false),
            ("sha256-1.2.sig".to_owned(), false),
            ("latest".to_owned(), false),
        ] {
            assert_eq!(is_attachment(&tag), expected, "{tag}");
            let signed = format!("sha256:{digest}");
            assert_eq!(signed_by(&tag), (expected && tag.ends_with(".sig")).then_some(signed), "{tag}");
        }
    }
}
