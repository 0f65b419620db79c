//! `%n`, `%t` and so on in units, as the system's service manager has them (systemd.unit(5), "Specifiers").

use std::borrow::Cow;

/// The text with the values of those that a name decides, or nothing; others, such as `%H` and `%m`, stay as they are.
pub(super) fn expanded(text: &str, unit: &str) -> String {
    let (mut new, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('%') {
        new += before;
        let specifier = after.chars().next();
        let Some(value) = specifier.and_then(|specifier| value(specifier, unit)) else {
            new.push('%');
            rest = after;
            continue;
        };
        new += &value;
        rest = &after[specifier.map_or(0, char::len_utf8)..];
    }
    new + rest
}

/// The value of one of them.
fn value(specifier: char, unit: &str) -> Option<Cow<'_, str>> {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    Some(Cow::Borrowed(match specifier {
        '%' => "%",
        'n' => unit,
        'N' => stem,
        'p' | 'P' => prefix,
        'i' | 'I' => instance,
        't' => "/run",
        'E' => "/etc",
        'S' => "/var/lib",
        'C' => "/var/cache",
        'L' => "/var/log",
        'T' => "/tmp",
        'V' => "/var/tmp",
        'd' => return Some(format!("/run/credentials/{unit}").into()),
        'h' => "/root",
        'u' | 'g' => "root",
        'U' | 'G' => "0",
        _ => return None,
    }))
}

/// Whether a text has none but those that [`expanded`] replaces.
pub(super) fn are_known(text: &str) -> bool {
    let mut all = text.chars();
    let mut specifiers = std::iter::from_fn(|| all.find(|c| *c == '%').map(|_| all.next()));
    specifiers.all(|specifier| specifier.is_some_and(|specifier| value(specifier, "").is_some()))
}

/// Whether one is left that is not known.
pub(super) fn is_left(text: &str) -> bool {
    let mut all = text.split('%').skip(1);
    all.any(|after| after.starts_with(|c: char| c.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifiers_have_their_values() {
        for (text, unit, expected) in [
            ("%E/default/%N", "docker.service", "/etc/default/docker"),
            ("-H unix://%t/%p-%i.sock", "docker@two.service", "-H unix:///run/docker-two.sock"),
            ("%h/.config/%n", "docker.service", "/root/.config/docker.service"),
            ("%d/client.pem", "docker.service", "/run/credentials/docker.service/client.pem"),
            ("100%%", "docker.service", "100%"),
            ("host=%H 5%", "docker.service", "host=%H 5%"),
        ] {
            assert_eq!(expanded(text, unit), expected);
        }
        assert!(is_left("/etc/%H") && !is_left("/etc/docker") && !is_left("5%"));
    }
}
