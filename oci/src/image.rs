//! An image as people write it: registry, repository, and a tag or a digest.

use std::fmt;

use crate::name::{Digest, MAX_NAME, Name, Tag};
use crate::route::{self, DOCKER_HUB};

/// Where Docker Hub has the images whose names have one part.
const LIBRARY: &str = "library/";

/// `[registry/]repository[:tag][@digest]`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Image {
    registry: Option<String>,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Image {
    /// `nginx`, `library/nginx:1.27`, `ghcr.io/org/app@sha256:…`, `registry.example:5000/a:b@sha256:…`. A first part with a
    /// dot or a port, or `localhost`, is a registry, as everywhere. The error says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("{text:?} is not an image: {what}, such as library/nginx:1.27"));
        if text.is_empty() {
            return wrong("it is empty: use repository and tag");
        }
        if text.contains(char::is_whitespace) {
            return wrong("it has a blank: use repository and tag, and give each image by itself");
        }
        if text.contains("://") {
            return wrong("it has a scheme: use registry, repository and tag");
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash is a host's port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if route::names_a_registry(first) => (Some(first), rest),
            _ => (None, name),
        };
        if Name::parse(repository).is_none() {
            let rule = if repository.len() > MAX_NAME {
                format!("a repository has {MAX_NAME} bytes at most")
            } else if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
                "a repository is lower case".to_owned()
            } else {
                "a repository is of parts with a slash between them, each of letters and digits with \".\", \"_\" or \"-\" between them"
                    .to_owned()
            };
            return wrong(&format!("{rule}: use repository and tag"));
        }
        if tag.is_some_and(|tag| Tag::parse(tag).is_none()) {
            return wrong("what follows the colon is not a tag: use repository and tag");
        }
        let is_digest = |digest: &str| {
            ["sha256:", "sha512:"].iter().any(|algorithm| digest.starts_with(algorithm))
                && Digest::parse(digest).is_some()
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return wrong("what follows the @ is not a sha256 or sha512 digest: use repository and tag");
        }
        let owned = |part: Option<&str>| part.map(str::to_owned);
        Ok(Self {
            registry: registry.map(|registry| route::known_as(&registry.to_ascii_lowercase()).to_owned()),
            repository: repository.to_owned(),
            tag: owned(tag),
            digest: owned(digest),
        })
    }

    /// The registry, if one is named: in lower case, Docker Hub by its usual name.
    pub fn registry(&self) -> Option<&str> {
        self.registry.as_deref()
    }

    /// The repository in the registry, as it is written: without `library/` if that was left out.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The registry and the repository that are pulled from, as every engine has it: a name without a registry is one of
    /// Docker Hub, where `nginx` is `library/nginx`.
    pub fn in_full(&self) -> (&str, String) {
        let registry = self.registry().unwrap_or(DOCKER_HUB);
        let library = if registry == DOCKER_HUB && !self.repository.contains('/') { LIBRARY } else { "" };
        (registry, format!("{library}{}", self.repository))
    }

    /// The tag, if one is written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one is written.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What is pulled: the digest, else the tag, else `latest`. A tag beside a digest is for people only.
    pub fn reference(&self) -> &str {
        self.digest().or(self.tag()).unwrap_or("latest")
    }
}

impl fmt::Display for Image {
    /// As it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_of_docker_hub_and_there_in_library_if_it_has_one_part() {
        for (text, registry, repository) in [
            ("nginx", "docker.io", "library/nginx"),
            ("index.docker.io/nginx:1.27", "docker.io", "library/nginx"),
            ("library/nginx", "docker.io", "library/nginx"),
            ("org/app", "docker.io", "org/app"),
            ("ghcr.io/app", "ghcr.io", "app"),
        ] {
            let image = Image::parse(text).expect("an image");
            assert_eq!(image.in_full(), (registry, repository.to_owned()), "{text}");
        }
    }

    #[test]
    fn images_in_their_forms() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let longer = format!("sha512:{}", "ab".repeat(64));
        for (text, registry, repository, reference) in [
            ("nginx", None, "nginx", "latest"),
            ("library/nginx:1.27", None, "library/nginx", "1.27"),
            ("a/b/c:V_1", None, "a/b/c", "V_1"),
            (&format!("library/nginx@{digest}"), None, "library/nginx", &digest),
            (&format!("library/nginx@{longer}"), None, "library/nginx", &longer),
            (&format!("library/nginx:1.27@{digest}"), None, "library/nginx", &digest),
            ("docker.io/nginx", Some("docker.io"), "nginx", "latest"),
            ("Index.docker.io/library/nginx:1", Some("docker.io"), "library/nginx", "1"),
            ("ghcr.io/org/app", Some("ghcr.io"), "org/app", "latest"),
            ("localhost/app", Some("localhost"), "app", "latest"),
            ("localhost:5000/app:1", Some("localhost:5000"), "app", "1"),
            ("registry.example:5000/a/b", Some("registry.example:5000"), "a/b", "latest"),
            ("my.app", None, "my.app", "latest"),
        ] {
            let image = Image::parse(text).expect(text);
            let found = (image.registry(), image.repository(), image.reference());
            assert_eq!(found, (registry, repository, reference), "{text}");
            // What is displayed is the same image.
            assert_eq!(Image::parse(&image.to_string()).as_ref(), Ok(&image), "{text}");
        }
        for (text, says) in [
            ("", "it is empty"),
            ("Library/nginx", "a repository is lower case: "),
            ("docker.io/", "a repository is of parts "),
            ("ghcr.io/../x", "a repository is of parts "),
            ("-x", "a repository is of parts "),
            (&"a".repeat(256), "a repository has 255 bytes at most: "),
            ("nginx 1.27", "it has a blank"),
            ("library/nginx:", "is not a tag"),
            ("library/nginx:a b", "it has a blank"),
            ("library/nginx:a+b", "is not a tag"),
            ("library/nginx@sha256:ab", "is not a sha256 or sha512 digest"),
            ("library/nginx@latest", "is not a sha256 or sha512 digest"),
            ("https://example.azurecr.io/hub/nginx", "has a scheme"),
        ] {
            let wrong = Image::parse(text).expect_err(text);
            assert!(wrong.contains(says) && wrong.contains("such as library/nginx:1.27"), "{text}: {wrong}");
        }
    }
}
