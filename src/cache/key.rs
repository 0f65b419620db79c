//! Under what an answer is kept: the registry, the part of its API, and the path there with its query.
//!
//! Never a digest alone, because rights are given by repository; and never a route's place in the table, which a reload
//! changes. The path contains the whole name of the repository in the registry, the prefix included.

use quick_cache::Equivalent;

/// Which of several answers under one path is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// A manifest, by tag or digest.
    Manifest,
    /// A tag list or referrers.
    List,
    /// Where a blob is.
    Redirect,
    /// The content of a blob: the configuration of an image.
    Configuration,
}

/// The key of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The number of the registry with its identity; no two have the same in the life of a process.
    pub registry: u64,
    /// What is kept.
    pub part: Part,
    /// Path and query in the registry.
    pub path: Box<str>,
}

/// The same, borrowed: a look-up allocates nothing. Hashes as [`Key`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeyRef<'a> {
    /// As in [`Key`].
    pub registry: u64,
    /// As in [`Key`].
    pub part: Part,
    /// As in [`Key`].
    pub path: &'a str,
}

impl KeyRef<'_> {
    /// An owned one.
    pub(crate) fn to_key(self) -> Key {
        Key { registry: self.registry, part: self.part, path: self.path.into() }
    }
}

impl Key {
    /// A borrowed one.
    pub(crate) fn as_ref(&self) -> KeyRef<'_> {
        KeyRef { registry: self.registry, part: self.part, path: &self.path }
    }
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher as _, RandomState};

    use super::*;

    #[test]
    fn a_borrowed_key_is_and_hashes_like_its_own() {
        let state = RandomState::new();
        for (registry, part, path) in
            [(1, Part::Manifest, "/v2/a/manifests/b"), (1, Part::Redirect, ""), (2, Part::List, "x")]
        {
            let borrowed = KeyRef { registry, part, path };
            let key = borrowed.to_key();
            assert!(borrowed.equivalent(&key));
            assert_eq!(state.hash_one(borrowed), state.hash_one(&key));
        }
    }
}
