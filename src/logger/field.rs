//! Text from outside in a log line: bounded, and escaped so that it cannot look like another field or another line.

use std::fmt::{self, Display, Formatter, Write};

use oci::printable::is_harmless;

/// A value as one field: visible ASCII, at most the given number of bytes and then `...`. Everything else, blanks included, is
/// escaped. An empty value is written as `-`.
pub(crate) struct Word<T>(pub T, pub usize);

/// A value as the last part of a line: at most the given number of bytes and then `...`. Blanks stay; control characters,
/// characters that change the direction of text, and `=`, which would make a field, are escaped.
pub(crate) struct Rest<T>(pub T, pub usize);

impl<T: Display> Display for Word<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match escape(f, self.1, &self.0, &Form { passes: |c| c.is_ascii_graphic(), ..TEXT })? {
            0 => f.write_char('-'),
            _ => Ok(()),
        }
    }
}

impl<T: Display> Display for Rest<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        escape(f, self.1, &self.0, &Form { passes: |c| c != '=' && is_harmless(c), ..TEXT }).map(drop)
    }
}

/// What a place in a line takes of a text.
pub(crate) struct Form {
    /// Whether all bytes pass as they are, wherever they stand. This is tested first and for all of them at once, because a call for
    /// each character would cost more than the rest of the line.
    pub is_plain: fn(&str) -> bool,
    /// Characters that pass.
    pub passes: fn(char) -> bool,
    /// What stands for any other.
    pub escaped: fn(char) -> String,
}

/// A line of text.
pub(crate) const TEXT: Form = Form {
    is_plain: |text| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'='),
    passes: is_harmless,
    escaped: |c| c.escape_unicode().to_string(),
};

/// Writes as much of the escaped value as fits into `room` bytes, then `...` if that is not all. Returns the bytes written.
pub(crate) fn escape(out: &mut dyn Write, room: usize, value: &dyn Display, form: &Form) -> Result<usize, fmt::Error> {
    let mut escaping = Escaping { out, left: room, form, is_full: false };
    let outcome = write!(escaping, "{value}");
    let (written, is_full) = (room - escaping.left, escaping.is_full);
    match outcome {
        Err(_) if is_full => out.write_str("...").map(|()| written + 3),
        outcome => outcome.map(|()| written),
    }
}

/// Fails once it is full, so that formatting a value of a megabyte stops there.
struct Escaping<'a> {
    out: &'a mut dyn Write,
    left: usize,
    form: &'a Form,
    is_full: bool,
}

impl Escaping<'_> {
    fn push(&mut self, piece: &str) -> fmt::Result {
        let Some(left) = self.left.checked_sub(piece.len()) else {
            self.is_full = true;
            return Err(fmt::Error);
        };
        self.left = left;
        self.out.write_str(piece)
    }
}

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Form { is_plain, passes, escaped } = *self.form;
        // The common case: nothing to escape.
        if text.len() <= self.left && (is_plain(text) || text.chars().all(passes)) {
            return self.push(text);
        }
        text.chars().try_for_each(|c| match passes(c) {
            true => self.push(c.encode_utf8(&mut [0; 4])),
            false => self.push(&escaped(c)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_word_is_one_bounded_field_and_the_rest_one_bounded_line() {
        let long = "a".repeat(1 << 20);
        for (value, word, rest) in [
            ("/v2/library/busybox", "/v2/library/busybox", "/v2/library/busybox"),
            ("", "-", ""),
            ("id error=none", "id\\u{20}error=none", "id error\\u{3d}none"),
            ("a\r\n[x]", "a\\u{d}\\u{a}[x]", "a\\u{d}\\u{a}[x]"),
            ("caf\u{e9}", "caf\\u{e9}", "caf\u{e9}"),
            ("\u{9b}31m\u{202e}", "\\u{9b}31m\\u{202e}", "\\u{9b}31m\\u{202e}"),
            (&long, &format!("{}...", "a".repeat(40)), &format!("{}...", "a".repeat(40))),
            // An escape that does not fit is not cut in its middle.
            (&format!("{}\n", "a".repeat(39)), &format!("{}...", "a".repeat(39)), &format!("{}...", "a".repeat(39))),
        ] {
            assert_eq!(Word(value, 40).to_string(), word);
            assert_eq!(Rest(value, 40).to_string(), rest);
        }
        assert_eq!(Word(format_args!("{}:{}", "a b", 1), 40).to_string(), "a\\u{20}b:1", "of several parts");
    }

    proptest! {
        #[test]
        fn no_value_makes_a_second_field_or_line(value in any::<String>(), room in 0_usize..100) {
            let (word, rest) = (Word(&value, room).to_string(), Rest(&value, room).to_string());
            prop_assert!(!word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic()), "{word}");
            prop_assert!(rest.chars().all(is_harmless) && !rest.contains('='), "{rest}");
            prop_assert!(word.len() <= room + 3 && rest.len() <= room + 3);
        }
    }
}
