//! With which variables a process was started. It tells that so that whoever has a value finds out whether it is the same, and nobody
//! learns one: each value is told as its HMAC, by a key that is made for this answer alone.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac::{self, HMAC_SHA256, Key};
use ring::rand::{SystemRandom, generate};

use super::Outcome;
use crate::service_variables::Values;

/// The request for them.
pub(super) const REQUEST: &[u8] = b"variables\n";

/// The answer: the key, then a line for each of these variables that has a value, its name and the HMAC of the value.
pub(super) fn told(names: impl Iterator<Item = &'static str>, of: impl Fn(&str) -> Option<OsString>) -> Outcome {
    let key: [u8; 32] = generate(&SystemRandom::new()).map_err(|_| "there are no random numbers".to_owned())?.expose();
    let by = Key::new(HMAC_SHA256, &key);
    let line = |name| {
        let value = of(name).filter(|value| !value.is_empty())?;
        Some(format!("{name} {}\n", STANDARD.encode(hmac::sign(&by, value.as_bytes()))))
    };
    Ok(STANDARD.encode(key) + "\n" + &names.filter_map(line).collect::<String>())
}

/// The names of those of these variables that are others than the process has told; `None` if that is no such answer.
pub(super) fn others<'a>(told: &str, values: &Values<'a>) -> Option<Vec<&'a str>> {
    let mut lines = told.lines();
    let by = Key::new(HMAC_SHA256, &STANDARD.decode(lines.next()?).ok()?);
    let started = |line: &str| {
        let (name, tag) = line.split_once(' ')?;
        Some((name.to_owned(), STANDARD.decode(tag).ok()?))
    };
    let started: BTreeMap<_, _> = lines.map(started).collect::<Option<_>>()?;
    let is_other = |name: &str, value: &OsString| match started.get(name) {
        Some(tag) => hmac::verify(&by, value.as_bytes(), tag).is_err(),
        None => !value.is_empty(),
    };
    Some(values.iter().filter(|(name, value)| is_other(name, value)).map(|(name, _)| *name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_compared_and_cannot_be_read() {
        let of = |name: &str| match name {
            "AZURE_CLIENT_SECRET" => Some("s3cret~value".into()),
            "AZURE_TENANT_ID" => Some("tenant".into()),
            "NO_PROXY" => Some(OsString::new()),
            _ => None,
        };
        let names = || ["AZURE_CLIENT_SECRET", "AZURE_TENANT_ID", "NO_PROXY", "HTTPS_PROXY"].into_iter();
        let [first, second] = [(); 2].map(|()| told(names(), of).expect("random numbers"));
        assert!(!first.contains("s3cret") && !first.contains("NO_PROXY"), "{first}");
        let tag =
            |told: &str| told.lines().find_map(|line| line.strip_prefix("AZURE_CLIENT_SECRET ").map(str::to_owned));
        assert_ne!(tag(&first), tag(&second), "two answers could be compared");
        for (values, expected) in [
            (&[("AZURE_CLIENT_SECRET", "s3cret~value"), ("AZURE_TENANT_ID", "tenant")][..], &[][..]),
            (&[("AZURE_CLIENT_SECRET", "another"), ("AZURE_TENANT_ID", "tenant")], &["AZURE_CLIENT_SECRET"]),
            (&[("AZURE_CLIENT_SECRET", "s3cret~value"), ("HTTPS_PROXY", "http://a:1")], &["HTTPS_PROXY"]),
            // None, and an empty one, are the same.
            (&[("AZURE_TENANT_ID", ""), ("NO_PROXY", ""), ("HTTPS_PROXY", "")], &["AZURE_TENANT_ID"]),
        ] {
            let values: Vec<_> = values.iter().map(|(name, value)| (*name, OsString::from(value))).collect();
            assert_eq!(others(&first, &values).as_deref(), Some(expected), "{values:?}");
        }
        for other in ["", "unknown request", "AAAA\nAZURE_CLIENT_SECRET", "AAAA\nAZURE_CLIENT_SECRET ~"] {
            assert_eq!(others(other, &Vec::new()), None, "{other}");
        }
    }
}
