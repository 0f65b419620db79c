//! Whether a name is one of a pattern's, as shells and glob(7) have it. The glob crate takes neither `[^a]` nor a backslash, which Go's
//! filepath.Match and systemd do, and an unfinished bracket is an error to it.

/// Whether it has what stands for other characters.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// `*` stands for anything, `?` for one character, `[a-c]` for one of these and `[!a-c]` for one of all others. What begins with a dot
/// is only met by a dot.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<_>, Vec<_>) = (pattern.chars().collect(), name.chars().collect());
    (name.first() != Some(&'.') || pattern.first() == Some(&'.')) && fits(&pattern, &name)
}

/// Whether all of the name fits. Goes back to the last star only, which suffices, so no pattern takes long.
fn fits(pattern: &[char], name: &[char]) -> bool {
    let (mut at, mut on) = (0, 0);
    // Behind the last star, and how much of the name that stands for at least.
    let mut star: Option<(usize, usize)> = None;
    while on < name.len() {
        if pattern.get(at) == Some(&'*') {
            at += 1;
            star = Some((at, on));
        } else if let Some(next) = pattern.get(at..).and_then(|rest| one(rest, name[on])) {
            at += next;
            on += 1;
        } else if let Some((behind, from)) = star {
            (at, on) = (behind, from + 1);
            star = Some((behind, on));
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

/// How long the part of the pattern is that stands for this one character, if it begins with one.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['[', rest @ ..] => {
            let is_not = rest.first().is_some_and(|first| matches!(first, '!' | '^'));
            let set = &rest[usize::from(is_not)..];
            // A bracket that comes first is one of the set.
            let Some(end) = set.iter().skip(1).position(|c| *c == ']').map(|end| end + 1) else {
                return (c == '[').then_some(1);
            };
            (contains(&set[..end], c) != is_not).then_some(2 + usize::from(is_not) + end)
        }
        ['\\', literal, ..] => (*literal == c).then_some(2),
        [literal, ..] => (*literal == c).then_some(1),
        [] => None,
    }
}

fn contains(mut set: &[char], c: char) -> bool {
    loop {
        match set {
            [from, '-', to, rest @ ..] => {
                if (*from..=*to).contains(&c) {
                    return true;
                }
                set = rest;
            }
            [one, rest @ ..] => {
                if *one == c {
                    return true;
                }
                set = rest;
            }
            [] => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_the_names_that_a_shell_finds() {
        for (pattern, has, has_not) in [
            ("*.conf", &["a.conf", "a.b.conf"][..], &["a.conf~", ".conf", ".a.conf", "conf"][..]),
            ("a?c", &["abc", "a-c"], &["ac", "abbc"]),
            ("a[b-d]*", &["ab", "adx"], &["ae", "a"]),
            ("[!a]x", &["bx"], &["ax", "x"]),
            ("[]a]x", &["]x", "ax"], &["bx"]),
            ("[a", &["[a"], &["a"]),
            (r"\*", &["*"], &["a", "\\*"]),
            ("*a*b*", &["ab", "xaybz"], &["ba"]),
            (".*", &[".a"], &["a"]),
        ] {
            has.iter().for_each(|name| assert!(matches(pattern, name), "{pattern} {name}"));
            has_not.iter().for_each(|name| assert!(!matches(pattern, name), "{pattern} {name}"));
        }
        assert!(!matches(&"*a".repeat(500), &"a".repeat(499)), "at once");
    }
}
