//! Texts in commands that are shown, to be pasted into a POSIX shell.

use std::path::Path;

use oci::printable::is_harmless;

/// A text as one word of a shell. One that a terminal would show as another one is written by what it is made of, so that it can
/// be read and still names the same file; any POSIX shell takes that.
pub(crate) fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@%+=,[]".contains(c);
    // Brackets are a pattern for a shell, which only matters where it matches a file.
    if !text.is_empty() && text.chars().all(|c| is_plain(c) && c != '[' && c != ']') {
        return text.to_owned();
    }
    if text.chars().all(is_harmless) {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    let mut format = String::new();
    for c in text.chars() {
        match c {
            '%' => format.push_str("%%"),
            '\\' => format.push_str(r"\\"),
            '\'' => format.push_str(r"'\''"),
            c if is_harmless(c) => format.push(c),
            // Three digits, so that one that follows is none of them.
            c => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| format.push_str(&format!("\\{byte:03o}"))),
        }
    }
    format!("\"$(printf '{format}')\"")
}

/// The flag by which another command of this program looks at the same tree, with a blank before it; empty for this machine.
pub(crate) fn root_flag(root: &Path) -> String {
    match root.to_str() {
        Some("/") => String::new(),
        _ => format!(" --root {}", shell_word(&root.display().to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `init` showed it without quotes, and what followed the blank was another argument.
    #[test]
    fn a_tree_with_a_blank_in_its_name_is_one_word() {
        for (root, flag) in [("/", ""), ("/t", " --root /t"), ("/a tree", " --root '/a tree'")] {
            assert_eq!(root_flag(Path::new(root)), flag);
        }
    }

    #[test]
    fn a_word_that_a_terminal_would_not_show_still_names_the_same_file() {
        for (text, expected) in [
            ("/etc/a.conf", "/etc/a.conf"),
            ("", "''"),
            ("it's", r"'it'\''s'"),
            ("a\u{1b}7'%d\\n", r#""$(printf 'a\0337'\''%%d\\n')""#),
            ("caf\u{e9}\u{202e}$(false)`\"", r#""$(printf 'café\342\200\256$(false)`"')""#),
        ] {
            let word = shell_word(text);
            assert_eq!(word, expected);
            let shell = std::process::Command::new("sh").args(["-c", &format!("printf %s {word}")]).output();
            assert_eq!(String::from_utf8_lossy(&shell.expect("it runs").stdout), text, "{word}");
        }
    }
}
