//! Makes the message of a server safe to log: one line of bounded length, without tokens.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;

use crate::printable::is_harmless;

/// Characters kept from the beginning of a long text.
const MAX_HEAD: usize = 300;
/// Characters kept from its end. Azure puts trace ID, correlation ID and time there, which its support asks for; those of
/// Entra ID have 131 characters.
const MAX_TAIL: usize = 160;
const CUT: &str = " ... ";

/// Every token begins with this: it is the base64 of `{"` (RFC 7519 section 3).
const TOKEN: &str = "eyJ";
/// Shorter words that begin with the same letters are not tokens.
const MIN_TOKEN: usize = 16;
const LEFT_OUT: &str = "(a token)";

/// So many bytes of a secret one after the other are taken for a part of it. Words of a sentence have fewer in common with what is
/// random, and what is left of a secret that was cut has no use. A secret that is shorter is not looked for: it would be found in words.
const PART: usize = 8;
/// Of standard base64 (RFC 4648 section 4), as [`folded`].
const BASE64: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz0123456789+/";
const HEX: &[u8; 16] = b"0123456789abcdef";
/// A server quotes what it was sent, with or without undoing the form's encoding; one that is behind another one may add a second.
const MAX_ENCODINGS: usize = 2;
/// One of these is in what a form has encoded.
const ENCODED: [char; 2] = ['%', '+'];
const SECRET: &str = "(a secret)";

/// A secret that a server was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    secret: &'a str,
    sieve: Option<&'a Sieve>,
}

impl<'a> From<&'a str> for Sent<'a> {
    fn from(secret: &'a str) -> Self {
        Self { secret, sieve: None }
    }
}

impl<'a> Sent<'a> {
    /// With its sieve, which is made once for a secret that is sent with many requests.
    pub fn often(secret: &'a str, sieve: &'a Sieve) -> Self {
        Self { secret, sieve: Some(sieve) }
    }
}

/// Tells of nearly every text that has nothing of a secret that it has nothing of it. To look through a text for a token takes as much
/// time as most of what an answer takes, because the token has more than a thousand bytes in several `forms`; this takes a hundredth.
///
/// It has a bit for each value that a hash of `GRAM` bytes can have, set for those that a form has anywhere.
pub struct Sieve(Box<[u64]>);

/// A part of a secret has five of these, so that one of a text whose bits are all set by chance is rare: at most one in two thousand
/// for a secret of 4,000 bytes.
const GRAM: usize = 4;
const SIEVE_BITS: u32 = 17;

impl Sieve {
    /// Of this secret, in 16 KiB.
    pub fn of(secret: &str) -> Self {
        let mut bits = vec![0; 1 << (SIEVE_BITS - u64::BITS.ilog2())];
        for gram in forms(secret).iter().flat_map(|form| form.windows(GRAM)) {
            let (word, bit) = place(gram);
            bits[word] |= bit;
        }
        Self(bits.into())
    }

    /// Of a text without an encoding.
    fn may_have_part(&self, text: &str) -> bool {
        let text: Vec<u8> = text.bytes().map(folded).collect();
        let mut in_a_row = GRAM - 1;
        text.windows(GRAM).any(|gram| {
            let (word, bit) = place(gram);
            in_a_row = if self.0[word] & bit == 0 { GRAM - 1 } else { in_a_row + 1 };
            in_a_row == PART
        })
    }
}

impl fmt::Debug for Sieve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sieve")
    }
}

/// The word of a sieve and the bit in it (Fibonacci hashing: Knuth, The Art of Computer Programming, 6.4).
fn place(gram: &[u8]) -> (usize, u64) {
    let number = gram.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte));
    let hash = number.wrapping_mul(0x9e37_79b1) >> (u32::BITS - SIEVE_BITS);
    ((hash / u64::BITS) as usize, 1 << (hash % u64::BITS))
}

/// The text on one line; `None` if it is empty. The middle of a long text is left out, cut between words. Tokens are
/// replaced, and so is what it has of the secrets that were `sent` to the server, because it may quote the request that it refuses.
pub fn quoted(text: &str, sent: &[Sent<'_>]) -> Option<String> {
    let text: Vec<char> = without_tokens(text).trim().chars().map(|c| if is_harmless(c) { c } else { ' ' }).collect();
    let text = if text.len() <= MAX_HEAD + MAX_TAIL { text.into_iter().collect() } else { cut(&text) };
    (!text.is_empty()).then(|| without_secrets(text, sent))
}

fn cut(text: &[char]) -> String {
    let (head, rest) = text.split_at(MAX_HEAD);
    let tail = &rest[rest.len() - MAX_TAIL..];
    // A single word that is longer is cut inside.
    let head = head.rsplitn(2, |c| *c == ' ').last().unwrap_or(head);
    let tail = tail.splitn(2, |c| *c == ' ').last().unwrap_or(tail);
    head.iter().chain(&CUT.chars().collect::<Vec<_>>()).chain(tail).collect()
}

/// A byte of what a text says, and the bytes of the text that say it.
type Said = (u8, Range<usize>);

fn without_secrets(text: String, sent: &[Sent<'_>]) -> String {
    let is_encoded = text.contains(ENCODED);
    let may_be_in = |sent: &&Sent<'_>| {
        sent.secret.len() >= PART && sent.sieve.is_none_or(|sieve| is_encoded || sieve.may_have_part(&text))
    };
    let forms: Vec<Vec<u8>> = sent.iter().filter(may_be_in).flat_map(|sent| forms(sent.secret)).collect();
    if forms.is_empty() {
        return text;
    }
    let mut is_secret = vec![false; text.len()];
    let mut said: Vec<Said> = text.bytes().enumerate().map(|(at, byte)| (byte, at..at + 1)).collect();
    // Most texts have no encoding, and are looked through once.
    let encodings = if is_encoded { MAX_ENCODINGS } else { 0 };
    for undone in 0..=encodings {
        if undone > 0 {
            said = decoded(&said);
        }
        mark(&said, &forms, &mut is_secret);
    }
    if !is_secret.contains(&true) {
        return text;
    }
    let mut safe = Vec::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        match (is_secret[at], at.checked_sub(1).is_some_and(|before| is_secret[before])) {
            (false, _) => safe.push(byte),
            (true, false) => safe.extend_from_slice(SECRET.as_bytes()),
            (true, true) => {}
        }
    }
    // A secret may end within a character.
    String::from_utf8_lossy(&safe).into_owned()
}

/// Marks what is a part of one of these.
fn mark(said: &[Said], forms: &[Vec<u8>], is_secret: &mut [bool]) {
    let text: Vec<u8> = said.iter().map(|(byte, _)| folded(*byte)).collect();
    // Hardly any part of a secret begins as one of the text does, and the others need no look into a table.
    let begin = |part: &[u8]| usize::from(part[0]) << 8 | usize::from(part[1]);
    let mut begins = vec![false; 1 << 16];
    for part in text.windows(PART) {
        begins[begin(part)] = true;
    }
    let parts = forms.iter().flat_map(|form| form.windows(PART));
    let parts: HashSet<&[u8]> = parts.filter(|part| begins[begin(part)]).collect();
    for (part, said) in text.windows(PART).zip(said.windows(PART)) {
        if let [(_, first), .., (_, last)] = said
            && parts.contains(part)
        {
            is_secret[first.start..last.end].fill(true);
        }
    }
}

/// What a text has of a secret, if it has it: the secret itself, from its end to its begin, in hexadecimal, and in base64, alone or
/// within something longer. Each is [`folded`].
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let plain: Vec<u8> = secret.bytes().map(folded).collect();
    let reversed = plain.iter().rev().copied().collect();
    let hex = secret.bytes().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| HEX[usize::from(digit)]).collect();
    let mut forms = vec![plain, reversed, hex];
    // Behind so many bytes of something else, whose digits, and those that are of both, are left out.
    forms.extend([(0, 0), (1, 2), (2, 3)].map(|(before, left_out)| {
        let bytes: Vec<u8> = std::iter::repeat_n(0, before).chain(secret.bytes()).collect();
        base64(&bytes).split_off(left_out)
    }));
    forms
}

/// Without the padding.
fn base64(bytes: &[u8]) -> Vec<u8> {
    let digits = |part: &[u8]| {
        let [a, b, c] = [0, 1, 2].map(|at| part.get(at).copied().unwrap_or_default());
        [a >> 2, a << 4 | b >> 4, b << 2 | c >> 6, c].into_iter().take(part.len() + 1)
    };
    bytes.chunks(3).flat_map(digits).map(|digit| BASE64[usize::from(digit & 63)]).collect()
}

/// Without what another spelling may change: letters as small ones, and the digits of base64 for addresses as those of the standard.
fn folded(byte: u8) -> u8 {
    match byte.to_ascii_lowercase() {
        b'-' => b'+',
        b'_' => b'/',
        byte => byte,
    }
}

/// Without one encoding of a form (URL Standard, `application/x-www-form-urlencoded`).
fn decoded(said: &[Said]) -> Vec<Said> {
    let hex = |(byte, _): &Said| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (mut decoded, mut rest) = (Vec::with_capacity(said.len()), said);
    while let [(byte, range), after @ ..] = rest {
        rest = after;
        decoded.push(match (byte, after) {
            (b'%', [high, low, after @ ..]) if let (Some(high), Some(low_digit)) = (hex(high), hex(low)) => {
                rest = after;
                (high << 4 | low_digit, range.start..low.1.end)
            }
            (b'+', _) => (b' ', range.clone()),
            _ => (*byte, range.clone()),
        });
    }
    decoded
}

fn without_tokens(text: &str) -> String {
    let mut parts = text.split(TOKEN);
    let mut safe = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let length = part.find(|c: char| !c.is_ascii_alphanumeric() && !"-_.+/=".contains(c)).unwrap_or(part.len());
        let (token, rest) = part.split_at(length);
        // A token that follows another one without a separator belongs to it.
        match TOKEN.len() + length < MIN_TOKEN && !safe.ends_with(LEFT_OUT) {
            true => safe.extend([TOKEN, token]),
            false if safe.ends_with(LEFT_OUT) => {}
            false => safe.push_str(LEFT_OUT),
        }
        safe.push_str(rest);
    }
    safe
}

/// Code and message of the first error in a body, as [`quoted`] has them; `None` if the body is not an OCI error.
pub fn registry_error(body: &[u8], sent: &[Sent<'_>]) -> (Option<String>, Option<String>) {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let first = serde_json::from_slice::<Body>(body).ok().and_then(|body| body.errors.into_iter().next());
    first.map_or((None, None), |first| (quoted(&first.code, sent), quoted(&first.message, sent)))
}

/// A message without the parts that differ from one call to the next, Azure's correlation ids and times: two that have one in common
/// say the same.
pub fn fingerprint(message: &str) -> String {
    let differs = |word: &&str| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_id = word.len() == 36 && word.matches('-').count() == 4;
        let is_time = word.starts_with(|c: char| c.is_ascii_digit()) && word.contains(['-', ':']);
        is_id || is_time
    };
    let words: Vec<_> = message.split_whitespace().filter(|word| !differs(word)).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_message_is_one_bounded_line() {
        assert_eq!(quoted("a\r\nb", &[]), Some("a  b".to_owned()));
        assert_eq!(quoted(&"x".repeat(5000), &[]).map(|text| text.len()), Some(MAX_HEAD + CUT.len() + MAX_TAIL));
        assert_eq!(quoted("a\u{202e}b\u{9b}", &[]), Some("a b ".to_owned()));
        assert_eq!(quoted(" \n", &[]), None);
    }

    #[test]
    fn tokens_in_a_servers_message_are_not_quoted() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzZWNyZXQifQ.c2lnbmF0dXJl-_c";
        for (text, expected) in [
            (format!("refused: access_token={token}&service=x"), "refused: access_token=(a token)&service=x"),
            (format!("{token} {token}"), "(a token) (a token)"),
            (format!("Bearer {token}"), "Bearer (a token)"),
            (token[..40].to_owned(), "(a token)"),
            ("eyJx is no token".to_owned(), "eyJx is no token"),
        ] {
            assert_eq!(quoted(&text, &[]).as_deref(), Some(expected), "{text}");
        }
        // Also where the text is cut in the middle of it.
        let long = format!("{}{token}{}", "x".repeat(MAX_HEAD - 10), "y".repeat(500));
        assert!(!quoted(&long, &[]).expect("words").contains("eyJ"));
    }

    /// A server that answered with the body of the request had the client secret in the log and in the answer to every client.
    #[test]
    fn secrets_that_a_server_was_sent_are_not_quoted_in_any_encoding() {
        let (secret, key) = ("aBc8Q~0123456789.b-c_d%e f", "long+key/of=base64");
        for (text, expected) in [
            ("you sent aBc8Q~0123456789.b-c_d%e f.", "you sent (a secret)."),
            ("client_secret=aBc8Q%7E0123456789.b-c_d%25e+f&scope=x", "client_secret=(a secret)&scope=x"),
            ("client_secret=aBc8Q%7e0123456789%2eb-c_d%25e%20f&scope=x", "client_secret=(a secret)&scope=x"),
            ("client_secret%3DaBc8Q%257E0123456789.b-c_d%2525e%2Bf%26scope", "client_secret%3D(a secret)%26scope"),
            ("two: aBc8Q~0123456789.b-c_d%e f long+key/of=base64", "two: (a secret) (a secret)"),
            ("cut: aBc8Q~01", "cut: (a secret)"),
            ("cut: 3456789.b", "cut: (a secret)"),
            ("%aBc8Q%7", "%aBc8Q%7"),
            ("nothing of it: 0123", "nothing of it: 0123"),
            ("ABC8Q~0123456789.B-C_D%E F and abc8q~01", "(a secret) and (a secret)"),
            ("f e%d_c-b.9876543210~Q8cBa", "(a secret)"),
            ("61426338517e3031323334353637", "(a secret)"),
            ("YUJjOFF+MDEyMzQ1Njc4OS5iLWNfZCVlIGY=", "(a secret)="),
            ("YUJjOFF-MDEyMzQ1Njc4OS5iLWNfZCVlIGY", "(a secret)"),
            ("YUJjOFF%2BMDEyMzQ1Njc4OS5iLWNfZCVlIGY%3D", "(a secret)%3D"),
        ] {
            assert_eq!(quoted(text, &[secret.into(), key.into()]).as_deref(), Some(expected));
            let sieves = [secret, key].map(Sieve::of);
            let sent = [Sent::often(secret, &sieves[0]), Sent::often(key, &sieves[1])];
            assert_eq!(quoted(text, &sent).as_deref(), Some(expected), "with a sieve");
        }
        // Within something longer, as user and password are, it begins at any of three places; few digits of it have no use.
        for before in ["", "u", "us"] {
            let digits = BASE64.map(char::from);
            let bytes = [before.as_bytes(), b":", secret.as_bytes()].concat();
            let encoded = base64(&bytes).into_iter().map(char::from).collect::<String>();
            let said = quoted(&format!("Basic {encoded}"), &[secret.into()]).expect("words");
            assert!(said.ends_with("(a secret)") && said.len() < "Basic 1234(a secret)".len() + PART, "{said}");
            assert!(encoded.chars().all(|digit| digits.contains(&digit)));
        }
        assert_eq!(quoted("x is short", &["x".into(), "".into()]).as_deref(), Some("x is short"));
        assert_eq!(
            quoted("caf\u{e9}\u{e9}\u{e9}\u{e9}", &["\u{e9}\u{e9}\u{e9}\u{e9}".into()]).as_deref(),
            Some("caf(a secret)")
        );
        // Also where the text is cut in the middle of it.
        for before in MAX_HEAD - secret.len()..MAX_HEAD {
            let long = format!("{}{secret}{}", "x".repeat(before), "y".repeat(500));
            let said = quoted(&long, &[secret.into()]).expect("words");
            assert!(
                !secret.as_bytes().windows(PART).any(|part| said.contains(&*String::from_utf8_lossy(part))),
                "{said}"
            );
        }
    }

    /// Each logged error of a registry took 40 us, because the forms of the token in use were made for each.
    #[test]
    fn a_sieve_tells_of_what_has_nothing_of_a_token_that_it_need_not_be_looked_through() {
        let token: String =
            (0u32..3_000).map(|n| char::from(BASE64[n.wrapping_mul(0x9e37_79b1) as usize >> 26])).collect();
        let sieve = Sieve::of(&token);
        for text in [
            "manifest unknown",
            "manifest tagged by \"1.29\" is not found",
            "MANIFEST_UNKNOWN",
            "",
            "abc",
            "repository name not known to registry",
        ] {
            assert!(!sieve.may_have_part(text), "{text}");
        }
        for at in 0..token.len() - PART {
            assert!(sieve.may_have_part(&format!("the token {}.", &token[at..at + PART])), "{at}");
        }
    }

    #[test]
    fn a_long_text_keeps_azures_ids_and_is_cut_between_words() {
        let ids = "Trace ID: 0f6a1b2c-0000-4000-8000-000000000000 Correlation ID: 1f6a1b2c-0000-4000-8000-000000000000 \
                   Timestamp: 2026-11-25 10:00:00Z";
        let long = format!("AADSTS7000215: {}{ids}", "some words ".repeat(40));
        let text = quoted(&long, &[]).expect("words");
        assert!(text.starts_with("AADSTS7000215: some words") && text.ends_with(ids), "{text}");
        assert!(text.contains(" some ... words "), "{text}");
        let fits = format!("AADSTS7000215: {}{ids}", "some words ".repeat(20));
        assert_eq!(quoted(&fits, &[]), Some(fits));
    }

    #[test]
    fn what_differs_in_ids_and_times_alone_says_the_same() {
        let said = |id: &str, time: &str| format!("403 DENIED: no. CorrelationId: {id} Timestamp: {time}");
        let one = said("4b9d2c55-7d5f-4a52-9d0e-0c1e5a7a8f01", "2026-11-24 12:00:00Z");
        let other = said("0e2f1f6c-2f0b-4f36-8a0e-5a7d1b1c9e02", "2026-11-25 01:59:07Z");
        assert_eq!(fingerprint(&one), fingerprint(&other));
        assert_ne!(fingerprint(&one), fingerprint(&one.replace("403", "401")));
    }

    #[test]
    fn only_an_oci_error_body_has_a_code_and_a_message() {
        let body = br#"{"errors":[{"code":"DENIED","message":"retrieving permissions failed"}]}"#;
        assert_eq!(
            registry_error(body, &[]),
            (Some("DENIED".to_owned()), Some("retrieving permissions failed".to_owned()))
        );
        assert_eq!(registry_error(b"<html>", &[]), (None, None));
    }
}
