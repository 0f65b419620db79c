//! What others say, in a log line: bounded, and unable to look like another field or another line.

use std::fmt::{self, Display, Formatter, Write};

/// One word of visible ASCII, of at most so many bytes and three dots: anything else is escaped, blanks too, so it is one
/// field whatever it holds. Nothing at all is a dash.
pub struct Word<T>(pub T, pub usize);

/// The rest of a line, of at most so many bytes and three dots. Blanks are as they are; control characters, what turns the
/// direction of writing, and `=`, which would make a field, are escaped.
pub struct Rest<T>(pub T, pub usize);

impl<T: Display> Display for Word<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match escape(f, self.1, &self.0, |c| c.is_ascii_graphic())? {
            0 => f.write_char('-'),
            _ => Ok(()),
        }
    }
}

impl<T: Display> Display for Rest<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        escape(f, self.1, &self.0, |c| c != '=' && is_harmless(c)).map(drop)
    }
}

/// Whether a character can be shown on a terminal and leaves the line one line: no control character, no separator of
/// lines, and nothing that turns the direction of writing (Unicode Standard Annex 9).
pub fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes what fits, and three dots if that is not all. Gives how many bytes it wrote.
pub fn escape(
    out: &mut dyn Write,
    room: usize,
    value: &dyn Display,
    passes: fn(char) -> bool,
) -> Result<usize, fmt::Error> {
    let mut escaping = Escaping { out, left: room, passes, is_full: false };
    let outcome = write!(escaping, "{value}");
    let (written, is_full) = (room - escaping.left, escaping.is_full);
    match outcome {
        Err(_) if is_full => out.write_str("...").map(|()| written + 3),
        outcome => outcome.map(|()| written),
    }
}

/// Once full it fails, so that a value of a megabyte is not looked through to its end.
struct Escaping<'a> {
    out: &'a mut dyn Write,
    left: usize,
    passes: fn(char) -> bool,
    is_full: bool,
}

impl Escaping<'_> {
    fn put(&mut self, piece: &str) -> fmt::Result {
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
        // All of it at once, as nearly always. Bytes first: a call for each character would cost more than the rest of the line.
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'=';
        if text.len() <= self.left && (text.bytes().all(is_plain) || text.chars().all(self.passes)) {
            return self.put(text);
        }
        text.chars().try_for_each(|c| match (self.passes)(c) {
            true => self.put(c.encode_utf8(&mut [0; 4])),
            false => self.put(&c.escape_unicode().to_string()),
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
