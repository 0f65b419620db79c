//! The images of a run, and how often each is pulled.

use std::fmt;

use oci::route::DOCKER_HUB;
use rand::RngExt as _;
use rand::rngs::Xoshiro256PlusPlus;

/// Images of one run; the preflight pulls each of them.
const MAX_IMAGES: usize = 64;
/// Weights are relative, so larger ones are not needed.
const MAX_WEIGHT: u32 = 1_000_000;

/// A repository and a tag or digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    repository: String,
    reference: String,
}

impl Image {
    /// `library/nginx`, `library/nginx:1.27`, `library/nginx@sha256:…`. The error says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let image = oci::image::Image::parse(text)?;
        let repository = match image.in_full() {
            // A name alone is one of Docker Hub, as the proxy has it.
            (DOCKER_HUB, repository) => repository,
            (host, _) if host == "localhost" || host.contains(':') => {
                return Err(format!(
                    "{text:?} is not an image to measure: it names a host: use repository and tag alone, such as library/nginx:1.27"
                ));
            }
            // A proxy takes a registry in front of the name as the name's first part.
            (host, repository) => format!("{host}/{repository}"),
        };
        Ok(Self { repository, reference: image.reference().to_owned() })
    }

    /// The repository, without any prefix.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, or the digest.
    pub fn reference(&self) -> &str {
        &self.reference
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.reference.contains(':') { '@' } else { ':' };
        write!(f, "{}{separator}{}", self.repository, self.reference)
    }
}

/// Images with their weights; never empty.
#[derive(Clone, Debug)]
pub struct Mix {
    images: Vec<(Image, u32)>,
    total: u64,
}

impl Mix {
    /// The error says why there are too few or too many.
    pub fn new(images: Vec<(Image, u32)>) -> Result<Self, String> {
        if images.is_empty() {
            return Err("no image is named: set --image, such as --image library/nginx:1.27, or --mix".to_owned());
        }
        if images.len() > MAX_IMAGES {
            return Err(format!("{} images are more than the {MAX_IMAGES} that one run takes", images.len()));
        }
        let total = images.iter().map(|(_, weight)| u64::from(*weight)).sum();
        Ok(Self { images, total })
    }

    /// A line of a mix file, `[WEIGHT ]IMAGE`; `None` if it is empty or a comment.
    pub fn parse_line(line: &str) -> Result<Option<(Image, u32)>, String> {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            return Ok(None);
        }
        let (weight, image) = match line.split_once(char::is_whitespace) {
            Some((weight, image)) => {
                let parsed = weight.parse().ok().filter(|weight| (1..=MAX_WEIGHT).contains(weight));
                let wrong = || format!("{weight:?} is not a weight: use a whole number from 1 to {MAX_WEIGHT}");
                (parsed.ok_or_else(wrong)?, image.trim())
            }
            None => (1, line),
        };
        Ok(Some((Image::parse(image)?, weight)))
    }

    /// All images.
    pub fn images(&self) -> impl Iterator<Item = &Image> {
        self.images.iter().map(|(image, _)| image)
    }

    /// A random image, by weight.
    pub fn pick(&self, rng: &mut Xoshiro256PlusPlus) -> &Image {
        let mut left = rng.random_range(..self.total);
        for (image, weight) in &self.images {
            match left.checked_sub(u64::from(*weight)) {
                Some(rest) => left = rest,
                None => return image,
            }
        }
        // Not reached: `left` began below the sum of the weights.
        &self.images[0].0
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.images[..] {
            [(image, _)] => image.fmt(f),
            images => write!(f, "{} images", images.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn an_image_to_measure_names_no_host_that_only_one_side_has() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, repository, reference) in [
            ("library/nginx", "library/nginx", "latest"),
            ("library/nginx:1.27", "library/nginx", "1.27"),
            // Through the proxy it was found, and directly it was not.
            ("nginx:1.27", "library/nginx", "1.27"),
            ("bitnami/nginx", "bitnami/nginx", "latest"),
            // It was refused, though warm and check take it.
            ("docker.io/library/nginx:1.27", "library/nginx", "1.27"),
            ("docker.io/nginx", "library/nginx", "latest"),
            ("ghcr.io/org/app:1", "ghcr.io/org/app", "1"),
            (&format!("library/nginx:1.27@{digest}"), "library/nginx", &digest),
        ] {
            let image = Image::parse(text).expect(text);
            assert_eq!((image.repository(), image.reference()), (repository, reference), "{text}");
        }
        for (text, says) in [
            ("Library/nginx", "a repository is lower case"),
            ("registry.example:5000/nginx", "names a host"),
            ("localhost:5000/nginx", "names a host"),
        ] {
            let wrong = Image::parse(text).expect_err(text);
            assert!(wrong.contains(says) && wrong.contains("such as library/nginx:1.27"), "{text}: {wrong}");
        }
    }

    #[test]
    fn images_are_picked_by_weight() {
        let lines = ["# what a node pulls", "", "3 library/nginx:1.27", "library/redis # one in four"];
        let images = lines.iter().filter_map(|line| Mix::parse_line(line).expect("a line")).collect();
        let mix = Mix::new(images).expect("two images");
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
        let count = (0..10_000).filter(|_| mix.pick(&mut rng).repository() == "library/nginx").count();
        assert!((7_200..7_800).contains(&count), "{count}");
        assert!(Mix::parse_line("0 library/nginx").is_err() && Mix::parse_line("x library/nginx").is_err());
    }
}
