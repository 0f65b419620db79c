//! Whether content is what its digest says, part by part.

use ring::digest::{Context, SHA256, SHA512};

/// A digest, and what has come of its content.
pub(crate) struct Check<'a> {
    context: Context,
    expected: &'a str,
}

impl<'a> Check<'a> {
    /// `None` if the digest's algorithm is not known here.
    pub(crate) fn of(digest: &'a str) -> Option<Self> {
        let (algorithm, expected) = digest.split_once(':')?;
        let algorithm = match algorithm {
            "sha256" => &SHA256,
            "sha512" => &SHA512,
            _ => return None,
        };
        Some(Self { context: Context::new(algorithm), expected })
    }

    /// Takes the next part.
    pub(crate) fn update(&mut self, part: &[u8]) {
        self.context.update(part);
    }

    /// All parts are the content of the digest.
    pub(crate) fn holds(self) -> bool {
        hex::encode(self.context.finish()) == self.expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image that was pinned by sha512 was said to be another one.
    #[test]
    fn content_is_compared_by_the_algorithm_of_its_digest() {
        let sha512 = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        for (digest, expected) in [
            ("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", Some(true)),
            ("sha256:ba7816bf", Some(false)),
            (sha512, Some(true)),
            (&sha512[..70], Some(false)),
            ("md5:900150983cd24fb0d6963f7d28e17f72", None),
            ("sha256", None),
        ] {
            let holds = Check::of(digest).map(|mut check| {
                ["a", "", "bc"].iter().for_each(|part| check.update(part.as_bytes()));
                check.holds()
            });
            assert_eq!(holds, expected, "{digest}");
        }
    }
}
