//! Whether a body is what its digest says.

use ring::digest::{Context, SHA256, SHA512};

/// `None` if the digest's algorithm is not known here.
pub(crate) fn is_of(digest: &str, body: &[u8]) -> Option<bool> {
    let (algorithm, expected) = digest.split_once(':')?;
    let algorithm = match algorithm {
        "sha256" => &SHA256,
        "sha512" => &SHA512,
        _ => return None,
    };
    let mut context = Context::new(algorithm);
    context.update(body);
    let found = context.finish();
    let expected = expected.as_bytes();
    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble & 15)];
    let digits = found.as_ref().iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]);
    Some(expected.len() == 2 * found.as_ref().len() && digits.eq(expected.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_compared_whole() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (digest, body, expected) in [
            (empty, &b""[..], Some(true)),
            (empty, b"x", Some(false)),
            (&empty[..70], b"", Some(false)),
            (
                "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
                b"",
                Some(true),
            ),
            ("md5:d41d8cd98f00b204e9800998ecf8427e", b"", None),
            ("sha256", b"", None),
        ] {
            assert_eq!(is_of(digest, body), expected, "{digest}");
        }
    }
}
