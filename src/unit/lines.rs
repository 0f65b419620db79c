//! The lines of systemd's files (systemd.syntax(7)).

/// Its settings and sections, each as one line: one that ends in a backslash goes on in the next one that is no comment. Comments, which
/// may stand within such a line, are left out.
pub(super) fn lines(content: &str) -> Vec<String> {
    let (mut lines, mut begun) = (Vec::new(), None::<String>);
    for part in content.trim_start_matches('\u{feff}').lines() {
        if part.trim_start().starts_with(['#', ';']) {
            continue;
        }
        let mut line = begun.take().unwrap_or_default() + part;
        let backslashes = line.len() - line.trim_end_matches('\\').len();
        // Of two the second is the first one's.
        if backslashes % 2 == 1 {
            line.pop();
            line.push(' ');
            begun = Some(line);
        } else {
            lines.push(line.trim().to_owned());
        }
    }
    lines.extend(begun.map(|line| line.trim().to_owned()));
    lines
}

/// The settings of `[Service]`, each a key with its value.
pub(super) fn of_service(content: &str) -> impl Iterator<Item = (String, String)> {
    let mut is_service = false;
    lines(content).into_iter().filter_map(move |line| {
        if let Some(section) = line.strip_prefix('[') {
            is_service = section == "Service]";
        }
        let (key, value) = line.split_once('=').filter(|_| is_service)?;
        Some((key.trim().to_owned(), value.trim().to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flags behind the comment were not seen, and a mirror was written beside them, with which dockerd did not start.
    #[test]
    fn a_comment_within_a_line_that_goes_on_was_taken_for_its_end() {
        for (content, expected) in [
            ("A=1\n# B=2\n ; C=3\nD=4", &["A=1", "D=4"][..]),
            ("A=1 \\\n# a comment\n; another\n  --b \\\n  --c\nD=4\n", &["A=1    --b    --c", "D=4"]),
            ("A=1 \\\n# ends in one \\\n  --b\n", &["A=1    --b"]),
            ("A=1 \\\n\n--b\n", &["A=1", "--b"]),
            ("A=1\\\\\nB=2\n", &["A=1\\\\", "B=2"]),
            ("A=1 \\", &["A=1"]),
            ("\u{feff}[Service]\r\nA=1 \\\r\n--b\r\n", &["[Service]", "A=1  --b"]),
        ] {
            assert_eq!(
                lines(content).iter().filter(|line| !line.is_empty()).collect::<Vec<_>>(),
                expected,
                "{content}"
            );
        }
    }
}
