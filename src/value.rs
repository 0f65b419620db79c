//! Secrets, ids and paths as variables, files and settings give them: what editors and shells add to a value is removed,
//! and a value with a character that cannot be in it is refused before it goes anywhere.

use std::error::Error;
use std::fmt;
use std::str::Utf8Error;

/// What a value is; it decides which characters may be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// An id of a tenant, an application or an identity; a tenant's may be its domain.
    Id,
    /// A token, a key or an address: it goes into a header, a form or a URL as it is.
    Token,
    /// An Azure resource id; names of resource groups may have letters of any language.
    Resource,
    /// A client secret.
    Secret,
    /// A password or a path: anything that fits on one line.
    Line,
}

impl Form {
    fn allows(self, c: char) -> bool {
        match self {
            Self::Id => c.is_ascii_alphanumeric() || c == '-' || c == '.',
            Self::Token => c.is_ascii_graphic(),
            Self::Resource => !c.is_whitespace() && !c.is_control(),
            Self::Secret | Self::Line => !c.is_control(),
        }
    }

    fn rule(self) -> &'static str {
        match self {
            Self::Id => "an id has letters, digits, dots and hyphens only",
            Self::Token => "it has visible ASCII characters only",
            Self::Resource => "a resource id has no white space",
            Self::Secret => "a client secret is one line without white space around it",
            Self::Line => "it has to be one line",
        }
    }
}

/// Why a value cannot be right. Displays as a sentence that says where and never quotes the value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ValueError {
    /// The character at this place, counted from 1, does not belong into this form.
    Character(usize, char, Form),
    /// Windows' PowerShell writes it.
    Utf16,
    /// It is in no encoding of Unicode.
    NotUtf8(Utf8Error),
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character(at, c, form) => write!(f, "character {at} is {}: {}", described(*c), form.rule()),
            Self::Utf16 => f.write_str("it is text in UTF-16: save it as UTF-8"),
            Self::NotUtf8(_) => f.write_str("it is not text in UTF-8"),
        }
    }
}

impl Error for ValueError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NotUtf8(cause) => Some(cause),
            Self::Character(..) | Self::Utf16 => None,
        }
    }
}

/// The value without a byte-order mark in front and line ends behind, which editors, `echo` and templates add.
pub(crate) fn clean(text: &str, form: Form) -> Result<&str, ValueError> {
    let text = trimmed(text);
    let wrong = |(at, c): (usize, char)| ValueError::Character(at + 1, c, form);
    if let Some(found) = text.chars().enumerate().find(|(_, c)| !form.allows(*c)) {
        return Err(wrong(found));
    }
    let last = text.chars().count().saturating_sub(1);
    let ends = [(0, text.chars().next()), (last, text.chars().next_back())];
    let around = ends.into_iter().find_map(|(at, c)| c.filter(|c| c.is_whitespace()).map(|c| (at, c)));
    match around {
        Some(found) if form == Form::Secret => Err(wrong(found)),
        _ => Ok(text),
    }
}

/// Whether somebody else's answer has a token here: one that is empty, or that no header may carry, is of nobody who gives tokens.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| Form::Token.allows(c))
}

/// Whether nothing is left of a value when it is cleaned.
pub(crate) fn is_empty(text: &str) -> bool {
    trimmed(text).is_empty()
}

fn trimmed(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text).trim_end_matches(['\r', '\n'])
}

/// A file's content without a byte-order mark in front. It may still be in any encoding but UTF-16: PEM files have
/// comments of all kinds.
pub(crate) fn unmarked(content: &[u8]) -> Result<&[u8], ValueError> {
    match content {
        [0xef, 0xbb, 0xbf, rest @ ..] => Ok(rest),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err(ValueError::Utf16),
        _ => Ok(content),
    }
}

/// A file's content as text, without a byte-order mark in front.
pub(crate) fn text(content: &[u8]) -> Result<&str, ValueError> {
    std::str::from_utf8(unmarked(content)?).map_err(ValueError::NotUtf8)
}

fn described(c: char) -> String {
    match c {
        '\n' | '\r' => "a line break".to_owned(),
        '\t' => "a tab".to_owned(),
        ' ' => "a space".to_owned(),
        '"' | '\'' => "a quotation mark".to_owned(),
        c if c.is_ascii_graphic() => format!("{c:?}"),
        c => format!("U+{:04X}", u32::from(c)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_editors_add_is_removed_and_impossible_characters_are_refused() {
        const ID: &str = "11111111-2222-4333-8444-555555555555";
        const REFUSED: Option<&str> = None;
        for (form, given, expected) in [
            (Form::Id, ID.to_owned(), Some(ID)),
            (Form::Id, format!("{ID}\r\n"), Some(ID)),
            (Form::Id, format!("\u{feff}{ID}\n\n"), Some(ID)),
            (Form::Id, format!("{ID} "), REFUSED),
            (Form::Id, format!("\"{ID}\""), REFUSED),
            (Form::Id, "contoso.onmicrosoft.com\n".to_owned(), Some("contoso.onmicrosoft.com")),
            (Form::Id, "\u{a0}x".to_owned(), REFUSED),
            (Form::Token, "eyJ.eyJ.sig\n".to_owned(), Some("eyJ.eyJ.sig")),
            (Form::Token, "eyJ\n.eyJ.sig".to_owned(), REFUSED),
            (Form::Token, "eyJ\u{e9}".to_owned(), REFUSED),
            (
                Form::Resource,
                "/subscriptions/s/resourceGroups/gr\u{fc}n(1)/x\n".to_owned(),
                Some("/subscriptions/s/resourceGroups/gr\u{fc}n(1)/x"),
            ),
            (Form::Resource, "/subscriptions/s /x".to_owned(), REFUSED),
            (Form::Secret, "a~b c.\n".to_owned(), Some("a~b c.")),
            (Form::Secret, " a".to_owned(), REFUSED),
            (Form::Secret, "a ".to_owned(), REFUSED),
            (Form::Secret, "a \n".to_owned(), REFUSED),
            (Form::Secret, "\na".to_owned(), REFUSED),
            (Form::Secret, "a\u{feff}".to_owned(), Some("a\u{feff}")),
            (Form::Line, " pass word \r\n".to_owned(), Some(" pass word ")),
            (Form::Line, "pass\0word".to_owned(), REFUSED),
            (Form::Line, "\n".to_owned(), Some("")),
        ] {
            let cleaned = clean(&given, form);
            assert_eq!(cleaned.as_ref().ok().copied(), expected, "{form:?} {given:?}: {cleaned:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_character_and_does_not_quote_the_value() {
        for (form, given, expected) in [
            (Form::Id, "1111 2222", "character 5 is a space: an id has letters, digits, dots and hyphens only"),
            (Form::Id, "\"1111\"", "character 1 is a quotation mark: an id has letters, digits, dots and hyphens only"),
            (
                Form::Secret,
                "hunter2\nhunter3",
                "character 8 is a line break: a client secret is one line without white space around it",
            ),
            (
                Form::Secret,
                "hunter2\u{a0}",
                "character 8 is U+00A0: a client secret is one line without white space around it",
            ),
            (Form::Token, "eyJ\u{7}", "character 4 is U+0007: it has visible ASCII characters only"),
        ] {
            assert_eq!(clean(given, form).expect_err("refused").to_string(), expected, "{given:?}");
        }
    }

    #[test]
    fn a_files_encoding_is_named() {
        assert_eq!(text(b"\xef\xbb\xbf-----BEGIN"), Ok("-----BEGIN"));
        for (content, expected) in
            [(&b"\xff\xfea\0"[..], "it is text in UTF-16: save it as UTF-8"), (b"caf\xe9", "it is not text in UTF-8")]
        {
            assert_eq!(text(content).expect_err("refused").to_string(), expected);
        }
    }
}
