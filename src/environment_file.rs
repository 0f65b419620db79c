//! The files of variables that a unit of systemd names by `EnvironmentFile=`.

/// The variables of such a text (systemd.exec(5)): a variable a line, values perhaps in quotes, a backslash at the end of a line goes on in the next.
pub(crate) fn parse(text: &str) -> Vec<(String, String)> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), unquoted(value.trim())))
        .filter(|(name, value)| !name.is_empty() && !name.contains('\0') && !value.contains('\0'))
        .collect()
}

fn unquoted(value: &str) -> String {
    let inside = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    if let Some(single) = inside('\'') {
        return single.to_owned();
    }
    let mut text = String::new();
    let mut characters = inside('"').unwrap_or(value).chars();
    while let Some(c) = characters.next() {
        text.extend(if c == '\\' { characters.next() } else { Some(c) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_systemd_reads_them() {
        let text = "# a comment\n; another\n\nA=1\n B = two words \nC='a \"b\" \\c'\nD=\"a 'b' \\\"c\\\" \\\\\"\nE=a\\ b\n\
                    F=one \\\ntwo\nno variable\n=nothing\nG=\nH=a=b\nI='\nJ=\"";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "a \"b\" \\c"),
            ("D", "a 'b' \"c\" \\"),
            ("E", "a b"),
            ("F", "one  two"),
            ("G", ""),
            ("H", "a=b"),
            ("I", "'"),
            ("J", "\""),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text), expected);
    }
}
