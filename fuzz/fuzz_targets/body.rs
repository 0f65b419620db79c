//! Whatever body a registry sends, in whatever parts: it goes out the same in any parts; what cannot be read, is not the
//! repository's or broke off goes out as it came.
//!
//! The input is one byte of choices, the length of a part, the repository's name there, a line break, its name here, a line
//! break, and the body, which one of the choices packs.

#![no_main]

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;
use oci::name::Name;
use oci::rename::Renaming;
use oci::rewrite::{BodyKind, MAX_ERRORS, MAX_TAGS, Rewriting};

fuzz_target!(|input: &[u8]| {
    let [choices, part, rest @ ..] = input else { return };
    let mut parts = rest.splitn(3, |byte| *byte == b'\n');
    let (Some(from), Some(to), Some(body)) = (parts.next(), parts.next(), parts.next()) else { return };
    let (Ok(from), Ok(to)) = (std::str::from_utf8(from), std::str::from_utf8(to)) else { return };
    if Name::parse(from).is_none() || Name::parse(to).is_none() {
        return;
    }
    let chosen = |bit: u8| choices & (1 << bit) != 0;
    let (kind, limit) = if chosen(0) { (BodyKind::Tags, MAX_TAGS) } else { (BodyKind::Errors, MAX_ERRORS) };
    let (says_gzip, packs, has_length, breaks_off) = (chosen(1), chosen(2), chosen(3), chosen(4));
    // Seldom, for it takes long; a long tag list even more so.
    let is_long = chosen(5) && chosen(6) && (chosen(7) || kind == BodyKind::Errors);
    let names = Renaming { from, to, namespace: None, authority: "example.azurecr.io" };
    let mut body = body.to_vec();
    if is_long {
        body.resize(limit, b' ');
        body.extend_from_slice(&rest[..rest.len() % 3]);
    }
    if packs {
        body = packed(&body);
    }
    let length = has_length.then_some(body.len() as u64 + u64::from(breaks_off));

    let through = |part: usize| {
        let mut rewriting = Rewriting::new(kind, says_gzip, length)?;
        let mut gone = Vec::new();
        for part in body.chunks(part) {
            gone.extend(rewriting.feed(Bytes::copy_from_slice(part)).unwrap_or_default());
        }
        gone.extend(rewriting.finish(&names));
        Some(gone)
    };
    let Some(gone) = through(usize::MAX) else {
        assert!(length.is_some_and(|length| length == 0 || length > limit as u64), "it could be held");
        return;
    };
    let small = if is_long { usize::from(*part) * 64 + 1024 } else { usize::from(*part) + 1 };
    assert_eq!(through(small), Some(gone.clone()), "in parts");
    if breaks_off && has_length {
        assert_eq!(gone, body, "what broke off is as it came");
        return;
    }
    let renamed = |body: &[u8]| match kind {
        BodyKind::Tags => names.tags(body),
        BodyKind::Errors => names.errors(body),
    };
    let (before, after) = if says_gzip {
        (unpacked(&body, limit), unpacked(&gone, limit))
    } else {
        (Some(body.clone()), Some(gone.clone()))
    };
    let expected = before.filter(|_| body.len() <= limit).and_then(|before| renamed(&before));
    let is_renamed = expected.is_some() && after == expected;
    assert!(is_renamed || gone == body, "neither the one nor the other");
});

fn packed(body: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(body).expect("memory");
    packed.finish().expect("memory")
}

fn unpacked(body: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    GzDecoder::new(body).take(limit as u64 + 1).read_to_end(&mut whole).ok()?;
    (whole.len() <= limit).then_some(whole)
}
