//! What stands in a file of somebody else, so that it can be shown: without secrets, and without what a terminal would obey.

use oci::printable;

/// What stands in the place of a secret.
const MASK: &str = "***";
/// The end of a key whose value is a secret: `password`, `splunk-token`, `"identitytoken"`, `auth`.
const KEYS: [&str; 5] = ["password", "passwd", "secret", "token", "auth"];

/// A text of any of the languages, line by line: users and passwords of addresses are masked, and values of keys that say that they are
/// secret.
pub(crate) fn masked(text: &str) -> String {
    let masked = |line| without_values(&without_bare_users(&without_users(line)));
    text.split_inclusive('\n').map(|line| printable::lines(&masked(line))).collect()
}

/// `user:password@host` as `***@host`, where no scheme is before it.
fn without_bare_users(line: &str) -> String {
    let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '[' | ']' | '{' | '}');
    let words = line.split_inclusive(is_end).map(|word| match word.rsplit_once('@') {
        Some((user, host)) if user.contains(':') && !user.contains('/') => format!("{MASK}@{host}"),
        _ => word.to_owned(),
    });
    words.collect()
}

/// `https://user:password@host` as `https://***@host`.
fn without_users(line: &str) -> String {
    let (mut shown, mut rest) = (String::new(), line);
    while let Some(at) = rest.find("://") {
        let (before, address) = rest.split_at(at + "://".len());
        shown += before;
        // A password may have any other character, also one that an address may not have.
        let end = address.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).unwrap_or(address.len());
        rest = address;
        if let Some(at) = address[..end].rfind('@') {
            shown += MASK;
            rest = &address[at..];
        }
    }
    shown + rest
}

/// `password = "..."` as `password = "***"`. The value ends with its quotation mark, or where one without marks may end.
fn without_values(line: &str) -> String {
    let (mut shown, mut rest) = (String::new(), line);
    while let Some(value) = value(rest) {
        let (before, after) = rest.split_at(value);
        shown += before;
        let end = match after.chars().next() {
            Some(mark @ ('"' | '\'')) => {
                shown.push(mark);
                let inside = &after[1..];
                let end = end_of_quoted(inside, mark);
                shown += MASK;
                rest = &inside[end..];
                continue;
            }
            _ => after.find([',', '}', ']', '\r', '\n']).unwrap_or(after.len()),
        };
        if end > 0 {
            shown += MASK;
        }
        rest = &after[end..];
    }
    shown + rest
}

fn end_of_quoted(inside: &str, mark: char) -> usize {
    let mut is_escaped = false;
    let is_end = |(_, c): &(usize, char)| {
        let is_end = *c == mark && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped && mark == '"';
        is_end
    };
    inside.char_indices().find(is_end).map_or(inside.len(), |(at, _)| at)
}

/// Where the value of the first secret key begins. One that is a table or a list, or on the next line, has keys of its own, or is none.
fn value(line: &str) -> Option<usize> {
    let lower = line.to_ascii_lowercase();
    let ends = KEYS.iter().flat_map(|key| lower.match_indices(key).map(|(at, _)| at + key.len()));
    let values = ends.filter_map(|end| {
        let after = line[end..].trim_start_matches(['"', '\'']).trim_start();
        let after = after.strip_prefix([':', '=']).filter(|after| !after.starts_with("//"))?.trim_start();
        let is_text = !after.is_empty() && !after.starts_with(['{', '[']);
        is_text.then(|| line.len() - after.len())
    });
    values.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_of_a_file_is_shown_and_all_else_is() {
        for (line, expected) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("https://u:hunter2@m.corp/a@b", "https://***@b"),
            (
                r#"{"https-proxy":"http://u:hunter2@p:3128","b":"c@d"}"#,
                r#"{"https-proxy":"http://***@p:3128","b":"c@d"}"#,
            ),
            (r#"-  "a": ["https://u:hunter2@m", "http://n"],"#, r#"-  "a": ["https://***@m", "http://n"],"#),
            (
                r#"mirrors = ["u:hunter2@m.corp", "git@h:x", "a/b@sha256:1"]"#,
                r#"mirrors = ["***@m.corp", "git@h:x", "a/b@sha256:1"]"#,
            ),
            (r#"{"splunk-token" : "hun\"ter2", "debug": true}"#, r#"{"splunk-token" : "***", "debug": true}"#),
            ("   password = \"hunter2\"\n", "   password = \"***\"\n"),
            ("  Password: hunter2 \r\n", "  Password: ***\r\n"),
            ("auth: {username: a, password: hunter2}", "auth: {username: a, password: ***}"),
            ("auth: 'hunter2' # mine", "auth: '***' # mine"),
            ("    auth:\n      password:\n", "    auth:\n      password:\n"),
            (
                r#"{"auths": {"auth": "aHVudGVyMg=="}, "secret":"", "token":1}"#,
                r#"{"auths": {"auth": "***"}, "secret":"***", "token":***}"#,
            ),
            ("token_auth: x, tokens: [a], password", "token_auth: ***, tokens: [a], password"),
            ("a\u{1b}[8m\u{9b}b\u{202e}\tc", "a\\u{1b}[8m\\u{9b}b\\u{202e}\tc"),
        ] {
            assert_eq!(masked(line), expected, "{line}");
            assert_eq!(masked(expected), expected, "masked twice");
        }
    }
}
