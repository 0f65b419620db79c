//! Why a text is not YAML, in the words of whoever has written it. The parser's own are about its grammar, and it finds out late.

/// What is probably wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// The whole reason, and the line and column that it is about, from 1.
    Reason(usize, usize, String),
    /// What to look at, beside what the parser says.
    Guess(String),
}

/// About a text that cannot be read for something in this line, or before.
pub(super) fn of(text: &str, line: usize) -> Option<Hint> {
    if let Some((line, column, c)) = control(text) {
        let sentence = format!("there is the control character U+{:04X}, which no YAML has: remove it", u32::from(c));
        return Some(Hint::Reason(line, column, sentence));
    }
    if let Some(line) = first_tab(text, line) {
        let sentence = "the line begins with a tab: indent with spaces";
        return Some(Hint::Reason(line, 1, sentence.to_owned()));
    }
    let near = (1..).zip(text.lines()).take(line).filter(|(_, line)| !line.trim().is_empty());
    let near: Vec<_> = near.collect();
    // The parser finds out a line later.
    if let Some((line, sentence)) = near.iter().rev().take(2).find_map(|(at, line)| Some((*at, unspaced(line)?))) {
        return Some(Hint::Reason(line, 1, sentence));
    }
    misplaced(text, line).or_else(|| {
        unquoted(text, line).map(|c| Hint::Guess(format!("a value that begins with {c} needs quotes around it")))
    })
}

/// The first character that no text of YAML may have (YAML 1.1 section 5.1), which the parser tells without its line.
fn control(text: &str) -> Option<(usize, usize, char)> {
    let is_wrong = |c: &char| {
        (c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}'))
            || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    };
    let (index, c) = text.char_indices().find(|(_, c)| is_wrong(c))?;
    let before = text.get(..index)?;
    let begin = before.rfind('\n').map_or(0, |newline| newline + 1);
    Some((1 + before.matches('\n').count(), 1 + before.get(begin..)?.chars().count(), c))
}

/// The first line, up to this one, with a tab in its indentation. YAML allows it in places, so it counts only where the
/// text cannot be read.
fn first_tab(text: &str, last: usize) -> Option<usize> {
    let begins_with_tab = |line: &str| line.trim_start_matches(' ').starts_with('\t');
    text.lines().take(last).position(begins_with_tab).map(|index| index + 1)
}

/// Whether a setting has its value right behind the colon, as in `prefix:hub`: YAML takes both for one text. The sentence has no part of
/// the value.
pub(super) fn unspaced(line: &str) -> Option<String> {
    let (key, value) = line.trim_start_matches([' ', '-']).split_once(':')?;
    let is_setting = super::all().iter().any(|(_, row)| row.key == key);
    let is_it = is_setting && !value.is_empty() && !value.starts_with([' ', '\t']);
    is_it
        .then(|| format!("{key}: has no blank behind its colon, so it is no setting: put one between it and its value"))
}

/// The line with the name of a table as TOML has it, which YAML takes for a document of its own.
pub(super) fn toml(text: &str) -> Option<(usize, String)> {
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-\"".contains(&byte));
    let is_table = |line: &str| {
        let name = line.trim().strip_prefix('[').and_then(|name| name.trim_start_matches('[').split_once(']'));
        name.is_some_and(|(name, rest)| is_name(name) && rest.trim_matches(']').is_empty())
    };
    let (line, _) = (1..).zip(text.lines()).find(|(_, line)| is_table(line))?;
    Some((
        line,
        "this is TOML, and the settings are YAML: write upstream: and, indented below it, domain: example.azurecr.io"
            .to_owned(),
    ))
}

/// A line with a key: `  - source: docker.io`.
struct Keyed<'a> {
    /// Where the line begins, which is its dash if it has one.
    begin: usize,
    /// Where its key begins.
    column: usize,
    key: &'a str,
    has_value: bool,
}

impl<'a> Keyed<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let unindented = line.trim_start_matches(' ');
        let begin = line.len() - unindented.len();
        let keyed = unindented.trim_start_matches("- ").trim_start_matches(' ');
        let (key, value) = keyed.split_once(": ").or_else(|| Some((keyed.trim_end().strip_suffix(':')?, "")))?;
        let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        let value = value.trim_start();
        // A text of several lines, and an anchor, are no value yet.
        let has_value = !value.is_empty() && !value.starts_with(['#', '|', '>', '&']);
        is_key.then(|| Self { begin, column: line.len() - keyed.len(), key, has_value })
    }
}

/// Whether the key of this line is indented below one that has a value, or begins where none above it does.
fn misplaced(text: &str, line: usize) -> Option<Hint> {
    let index = line.checked_sub(1)?;
    let wrong = Keyed::of(text.lines().nth(index)?)?;
    let is_blank = |line: &&str| line.trim_start().is_empty() || line.trim_start().starts_with('#');
    let before: Vec<_> = text.lines().take(index).filter(|line| !is_blank(line)).map(Keyed::of).collect();
    // A line of another kind is a text, or a list, of whose columns nothing is known.
    let above = before.last()?.as_ref()?;
    let column = wrong.begin + 1;
    if wrong.begin > above.column {
        return above.has_value.then(|| {
            let sentence = format!(
                "{} is indented below {}, which has a value: begin both in the same column",
                wrong.key, above.key
            );
            Hint::Reason(line, column, sentence)
        });
    }
    let columns = before.iter().flatten().flat_map(|keyed| [keyed.begin, keyed.column]);
    let is_there = columns.into_iter().any(|column| column == wrong.begin);
    let sentence =
        || format!("{} begins in a column in which no key above it does: indent it as its neighbours", wrong.key);
    (!is_there).then(|| Hint::Reason(line, column, sentence()))
}

/// The character that YAML takes for a sign of its own at the start of this line's value, as in `listen: [::1]:8080`.
fn unquoted(text: &str, line: usize) -> Option<char> {
    let line = text.lines().nth(line.checked_sub(1)?)?;
    let (_, value) = line.split_once(": ")?;
    value.trim_start().chars().next().filter(|c| "[{*&!%@`".contains(*c))
}
