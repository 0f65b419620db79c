//! Which manifest of an index is pulled.

use std::fmt;

use serde::Deserialize;

/// `os/architecture[/variant]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// `linux/amd64`, `linux/arm/v7`.
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<_> = text.split('/').collect();
        let valid = (2..=3).contains(&words.len())
            && words.iter().all(|word| {
                !word.is_empty()
                    && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            });
        valid.then(|| Self {
            os: words[0].to_owned(),
            architecture: words[1].to_owned(),
            variant: words.get(2).map(|&variant| variant.to_owned()),
        })
    }

    /// Whether an index entry for `other` is what was asked for; without a variant, any variant is.
    pub fn accepts(&self, other: &Self) -> bool {
        other.os == self.os
            && other.architecture == self.architecture
            && self.variant.as_ref().is_none_or(|variant| other.variant.as_ref() == Some(variant))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}
