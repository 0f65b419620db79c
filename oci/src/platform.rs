//! The platform of an image, by which an index tells its manifests apart.

use std::fmt;

use serde::Deserialize;

/// A longer text is no platform; the longest in use has 16 bytes.
const MAX_PLATFORM: usize = 64;

/// `os/architecture[/variant]`, in the words of an index (OCI image specification, "Image Index").
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// `linux/amd64`, `linux/arm/v7`. The error says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_word = |word: &&str| {
            !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        let words: Vec<_> = text.split('/').collect();
        match words[..] {
            [os, architecture, ref variant @ ..]
                if text.len() <= MAX_PLATFORM && variant.len() <= 1 && words.iter().all(is_word) =>
            {
                let variant = variant.first().map(|&variant| variant.to_owned());
                Ok(Self { os: os.to_owned(), architecture: usual(architecture).to_owned(), variant })
            }
            _ => Err(format!(
                "{text:?} is not a platform: use system and architecture as an index names them, such as linux/amd64 or linux/arm64/v8"
            )),
        }
    }

    /// What the configuration of an image says that it is for (OCI image specification, "Image Configuration"), in the words of an
    /// index. `None` if it says nothing that can be compared, as that of an artifact.
    pub fn of_configuration(body: &[u8]) -> Option<Self> {
        let found: Self = serde_json::from_slice(body).ok()?;
        let variant = found.variant.filter(|variant| !variant.is_empty());
        let architecture = usual(&found.architecture).to_owned();
        Self::parse(&Self { os: found.os, architecture, variant }.to_string()).ok()
    }

    /// Whether an image whose configuration says `image` is what was asked for. Many configurations leave the variant out.
    pub fn accepts_image(&self, image: &Self) -> bool {
        let asked = Self { variant: self.variant.clone().filter(|_| image.variant.is_some()), ..self.clone() };
        asked.accepts(image)
    }

    /// Whether an index entry for `other` is what was asked for; without a variant, any variant is, of 32-bit ARM v7.
    pub fn accepts(&self, other: &Self) -> bool {
        other.os == self.os
            && usual(&other.architecture) == usual(&self.architecture)
            && self.variant().is_none_or(|variant| other.variant() == Some(variant))
    }

    /// The variant as containerd takes it (`platforms.Normalize`): the first one of an architecture goes without saying, and that of
    /// 32-bit ARM is v7 if it is left out.
    fn variant(&self) -> Option<&str> {
        let variant = self.variant.as_deref().filter(|variant| !variant.is_empty());
        match (usual(&self.architecture), variant) {
            ("amd64", Some("v1")) | ("arm64", Some("v8" | "8")) => None,
            ("arm", None | Some("7")) => Some("v7"),
            ("arm", Some("5")) => Some("v5"),
            ("arm", Some("6")) => Some("v6"),
            ("arm", Some("8")) => Some("v8"),
            (_, variant) => variant,
        }
    }
}

/// The architecture as an index names it: some tools and people write the names of uname, as containerd accepts.
fn usual(architecture: &str) -> &str {
    match architecture {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "i386" => "386",
        "armhf" => "arm",
        other => other,
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_a_system_an_architecture_and_perhaps_a_variant() {
        for text in ["linux/amd64", "linux/arm64/v8", "linux/386", "windows/amd64", "linux/riscv64"] {
            assert_eq!(Platform::parse(text).expect(text).to_string(), text);
        }
        let long = format!("linux/{}", "a".repeat(MAX_PLATFORM));
        for text in
            ["", "linux", "amd64/", "/amd64", "linux/arm64/", "linux/arm64/v8/x", "Linux/amd64", "linux amd64", &long]
        {
            let wrong = Platform::parse(text).expect_err(text);
            assert!(wrong.contains("is not a platform: use ") && wrong.ends_with("linux/arm64/v8"), "{wrong}");
        }
    }

    #[test]
    fn a_configuration_that_names_a_platform_is_compared() {
        for (configuration, found, asked, accepted) in [
            (r#"{"os":"linux","architecture":"arm64","config":{}}"#, Some("linux/arm64"), "linux/arm64/v8", true),
            (r#"{"os":"linux","architecture":"arm64"}"#, Some("linux/arm64"), "linux/amd64", false),
            (r#"{"os":"linux","architecture":"arm","variant":"v7"}"#, Some("linux/arm/v7"), "linux/arm", true),
            (r#"{"os":"linux","architecture":"arm","variant":"v7"}"#, Some("linux/arm/v7"), "linux/arm/v6", false),
            (r#"{"os":"linux","architecture":"arm"}"#, Some("linux/arm"), "linux/arm/v6", true),
            (r#"{"os":"linux","architecture":"x86_64","variant":""}"#, Some("linux/amd64"), "linux/amd64", true),
            ("{}", None, "linux/amd64", false),
            (r#"{"os":"","architecture":"amd64"}"#, None, "linux/amd64", false),
            (r#"{"os":7}"#, None, "linux/amd64", false),
            ("<html>", None, "linux/amd64", false),
        ] {
            let image = Platform::of_configuration(configuration.as_bytes());
            assert_eq!(image.as_ref().map(Platform::to_string).as_deref(), found, "{configuration}");
            let asked = Platform::parse(asked).expect(asked);
            assert_eq!(image.is_some_and(|image| asked.accepts_image(&image)), accepted, "{configuration} {asked}");
        }
    }

    #[test]
    fn a_platform_has_one_meaning_however_it_is_written() {
        let platform = |text| Platform::parse(text).expect(text);
        for (asked, other, accepted) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/amd64", "linux/amd64/v3", true),
            ("linux/amd64/v1", "linux/amd64", true),
            ("linux/amd64", "linux/amd64/v1", true),
            ("linux/amd64/v3", "linux/amd64", false),
            ("linux/x86_64", "linux/amd64", true),
            ("linux/aarch64", "linux/arm64/v8", true),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm64/v9", "linux/arm64/v8", false),
            ("linux/arm", "linux/arm/v7", true),
            ("linux/arm", "linux/arm/v6", false),
            ("linux/arm/v7", "linux/arm", true),
            ("linux/arm/v6", "linux/arm", false),
            ("linux/arm/v7", "linux/arm/v7", true),
            ("linux/arm/v7", "linux/arm/v6", false),
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/amd64", "windows/amd64", false),
            ("linux/amd64", "linux/arm64", false),
        ] {
            assert_eq!(platform(asked).accepts(&platform(other)), accepted, "{asked} {other}");
        }
    }
}
