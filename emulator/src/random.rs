//! Identifiers as Azure makes them.

use ring::rand::{SecureRandom as _, SystemRandom};

/// Random bytes; zeros if the system has none, which is acceptable because nothing here protects a real secret.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes
}

/// A GUID, the form of every correlation and trace identifier.
pub(crate) fn guid() -> String {
    let mut guid = bytes::<16>();
    guid[6] = guid[6] & 0x0f | 0x40;
    guid[8] = guid[8] & 0x3f | 0x80;
    let hex = hex::encode(guid);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
