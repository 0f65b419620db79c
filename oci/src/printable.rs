//! Text of others as a terminal and a log may have it: characters that would make them show something else are escaped.

use std::borrow::Cow;

/// Whether a terminal shows the character on the same line: it is no control character, no line separator, and does not change
/// the direction of text (Unicode Standard Annex 9).
pub fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text in one line.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_harmless)
}

/// A text of several lines, such as a file, with its tabs.
pub fn lines(text: &str) -> String {
    let escaped = text.split_inclusive('\n').map(|line| {
        let content = line.trim_end_matches('\n');
        let content = content.strip_suffix('\r').filter(|_| content.len() < line.len()).unwrap_or(content);
        [escaped(content, |c| c == '\t' || is_harmless(c)), Cow::Borrowed(&line[content.len()..])]
    });
    escaped.flatten().collect()
}

/// A text of JSON, in which the same escapes as its own do: it is the same value.
pub fn json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c == '\n' || is_harmless(c) => safe.push(c),
            // All that is not harmless has one UTF-16 unit.
            c => safe.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    safe
}

/// A text in one line, of so many characters at most; `...` stands for the rest.
pub fn bounded(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", line(&text[..end])),
        None => line(text).into_owned(),
    }
}

fn escaped(text: &str, passes: fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(passes) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if passes(c) { safe.push(c) } else { safe.extend(c.escape_unicode()) }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        for (text, one, several) in [
            ("caf\u{e9} \u{5e9}", "caf\u{e9} \u{5e9}", "caf\u{e9} \u{5e9}"),
            ("a\n\tb\r", "a\\u{a}\\u{9}b\\u{d}", "a\n\tb\\u{d}"),
            ("a\rb\r\nc\r\r\n", "a\\u{d}b\\u{d}\\u{a}c\\u{d}\\u{d}\\u{a}", "a\\u{d}b\r\nc\\u{d}\r\n"),
            ("\u{1b}]0;x\u{7}\n", "\\u{1b}]0;x\\u{7}\\u{a}", "\\u{1b}]0;x\\u{7}\n"),
            ("\u{9b}31m", "\\u{9b}31m", "\\u{9b}31m"),
            ("a\u{202e}b\u{2066}\u{2028}", "a\\u{202e}b\\u{2066}\\u{2028}", "a\\u{202e}b\\u{2066}\\u{2028}"),
        ] {
            assert_eq!((&*line(text), &*lines(text)), (one, several), "{text:?}");
        }
        assert_eq!(json("{\n\"\u{202e}\u{9b}\u{e9}\""), "{\n\"\\u202e\\u009b\u{e9}\"");
        for (text, most, expected) in
            [("caf\u{e9}", 4, "caf\u{e9}"), ("caf\u{e9}s", 4, "caf\u{e9}..."), ("\n\n", 1, "\\u{a}..."), ("", 0, "")]
        {
            assert_eq!(bounded(text, most), expected);
        }
    }
}
