//! What the cache may hold, and for how long each kind of answer is kept.

use std::time::Duration;

/// A longer text is no platform; the longest in use has 16 bytes.
const MAX_PLATFORM: usize = 64;
/// What the cache takes unless the file says otherwise.
const DEFAULT_MEMORY: usize = 64 << 20;

/// How long what a route fetched is used without asking the registry again. Zero asks each time; requests at the same time
/// still share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetimes {
    /// A manifest by its tag.
    pub tags: Duration,
    /// A manifest by its digest. It cannot change, but the right to pull it can end.
    pub manifests: Duration,
    /// That there is no such manifest or blob.
    pub missing: Duration,
    /// Where a blob is stored; never beyond five minutes before the end of the redirect's own signature.
    pub redirects: Duration,
    /// A list of tags or of referrers.
    pub lists: Duration,
    /// How much longer an answer may be given while the registry, or the way to it, fails.
    pub stale: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            tags: Duration::from_secs(30),
            manifests: Duration::from_secs(3600),
            missing: Duration::from_secs(5),
            redirects: Duration::from_secs(600),
            lists: Duration::from_secs(10),
            stale: Duration::from_secs(3600),
        }
    }
}

/// The cache of the process. Routes say how long they keep what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CacheSettings {
    /// The bound on all that is kept, keys and headers included, in bytes.
    pub memory: usize,
    /// For which platforms the manifest and the configuration of an image are fetched before a client asks for them.
    pub prefetch: Vec<Platform>,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { memory: DEFAULT_MEMORY, prefetch: Vec::new() }
    }
}

/// A platform as an index names it (OCI image-spec, "OCI Image Index Specification").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Platform {
    /// `linux`
    pub os: String,
    /// `arm64`
    pub architecture: String,
    /// `v8`; `None` is every variant.
    pub variant: Option<String>,
}

#[cfg_attr(not(test), expect(dead_code, reason = "the setting and the command that name platforms use it"))]
impl Platform {
    /// `linux/amd64`, `linux/arm64/v8`. The error says what to use.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let is_word =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let parts: Vec<_> = text.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(*variant)),
            _ => (&"", &"", None),
        };
        if text.len() > MAX_PLATFORM || !is_word(os) || !is_word(architecture) || !variant.is_none_or(is_word) {
            return Err(format!(
                "{text:?} is not a platform: use a system and an architecture, in lower case and as an index names them, such as linux/amd64 or linux/arm64/v8"
            ));
        }
        Ok(Self { os: (*os).to_owned(), architecture: (*architecture).to_owned(), variant: variant.map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_a_system_an_architecture_and_perhaps_a_variant() {
        for (text, os, architecture, variant) in [
            ("linux/amd64", "linux", "amd64", None),
            ("linux/arm64/v8", "linux", "arm64", Some("v8")),
            ("linux/386", "linux", "386", None),
            ("windows/amd64", "windows", "amd64", None),
        ] {
            let platform = Platform::parse(text).expect(text);
            let found = (platform.os.as_str(), platform.architecture.as_str(), platform.variant.as_deref());
            assert_eq!(found, (os, architecture, variant), "{text}");
        }
        for text in ["", "linux", "amd64/", "/amd64", "linux/arm64/", "linux/arm64/v8/x", "Linux/amd64", "linux amd64"]
        {
            let wrong = Platform::parse(text).expect_err(text);
            assert!(wrong.contains("is not a platform: use ") && wrong.ends_with("linux/arm64/v8"), "{wrong}");
        }
        assert!(Platform::parse(&format!("linux/{}", "a".repeat(MAX_PLATFORM))).is_err());
    }
}
