//! The YAML text as a tree that keeps what stands in it twice, and where in the text each node is.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::hint::{self, Hint};

/// A node of the file. Unlike `serde_yaml::Value` it keeps both of two keys with one name, so that both can be shown.
pub(crate) enum Tree {
    /// Nothing behind a key, `~` or `null`.
    Null,
    /// A text.
    Text(String),
    /// A number, `true` or `false`, as it is written.
    Scalar(String),
    /// A list.
    List(Vec<Tree>),
    /// A table, in the order of the text.
    Table(Vec<(String, Tree)>),
}

/// A step from a node to one below it.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A key, and how many of the same name stand before it in the table.
    Key(String, usize),
    /// An item of a list.
    Index(usize),
}

/// Line and column, from 1. A flag's is [`Position::default`], before all of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// The brackets that a text may open. The parser refuses those within 128 others, and finds out after a time that grows with the square
/// of how many are open: minutes for the longest text.
const MAX_BRACKETS: usize = 20_000;

/// Whether the parser of YAML may take too long for the text, and why.
pub(crate) fn takes_too_long(text: &str) -> Option<String> {
    let brackets = text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    (brackets > MAX_BRACKETS).then(|| format!("it opens more than {MAX_BRACKETS} brackets"))
}

/// Reads the text of another program's file. The error quotes nothing of it, for it may have a password.
pub(crate) fn parse_yaml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    if let Some(why) = takes_too_long(text) {
        return Err(format!("it is not YAML: {why}"));
    }
    serde_yaml::from_str(text).map_err(|cause| match position(&cause) {
        Some(at) => format!("it is not YAML, line {}", at.line),
        None => "it is not YAML".to_owned(),
    })
}

/// Reads the text. The error is a sentence with the place that it is about, if it is about one.
pub(crate) fn parse(text: &str) -> Result<Tree, (Position, String)> {
    if let Some(why) = takes_too_long(text) {
        return Err((Position::default(), format!("not YAML: {why}")));
    }
    tree(text).map_err(|cause| {
        let Some(at) = position(&cause) else {
            return another_document(text).unwrap_or_else(|| (Position::default(), format!("not YAML: {cause}")));
        };
        match hint::of(text, at.line) {
            Some(Hint::Reason(line, column, sentence)) => (Position { line, column }, sentence),
            Some(Hint::Guess(hint)) => (at, format!("not YAML: {cause}: {hint}")),
            None => (at, format!("not YAML: {cause}")),
        }
    })
}

/// Where the parser, which does not say it, has found that a text is more than one document.
fn another_document(text: &str) -> Option<(Position, String)> {
    let lines = || (1..).zip(text.lines());
    let is_key =
        |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#') && !line.starts_with("---");
    let (first, line) = lines().find(|(_, line)| is_key(line))?;
    let is_outside = |line: &str| is_key(line) && !line.starts_with(' ');
    if line.starts_with(' ')
        && let Some((other, _)) = lines().find(|(at, line)| *at > first && is_outside(line))
    {
        let sentence =
            format!("the line begins with a blank, and line {other} does not: begin both in the same column");
        return Some((Position { line: first, column: 1 }, sentence));
    }
    let second = lines().find(|(at, line)| *at > first && (line.starts_with("---") || line.starts_with("...")));
    let Some((second, _)) = second else {
        return hint::toml(text).map(|(line, sentence)| (Position { line, column: 1 }, sentence));
    };
    let sentence = "a second document begins here: all settings are in one".to_owned();
    Some((Position { line: second, column: 1 }, sentence))
}

fn tree(text: &str) -> Result<Tree, serde_yaml::Error> {
    let mut tree = serde_yaml::from_str(text)?;
    if !matches!(tree, Tree::Null) {
        Written(&mut tree).deserialize(serde_yaml::Deserializer::from_str(text))?;
    }
    Ok(tree)
}

fn position(cause: &serde_yaml::Error) -> Option<Position> {
    cause.location().map(|at| Position { line: at.line(), column: at.column() })
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Nodes)
    }
}

struct Nodes;

impl<'de> Visitor<'de> for Nodes {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, a list or a table")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    /// The same of a file without a node.
    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(String::new()))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(String::new()))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(String::new()))
    }

    fn visit_i128<E>(self, _: i128) -> Result<Tree, E> {
        Ok(Tree::Scalar(String::new()))
    }

    fn visit_u128<E>(self, _: u128) -> Result<Tree, E> {
        Ok(Tree::Scalar(String::new()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar(String::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut table = Vec::new();
        while let Some(Raw(key)) = map.next_key()? {
            table.push((key, map.next_value()?));
        }
        Ok(Tree::Table(table))
    }
}

/// A scalar as it is written, whatever YAML takes it for: `1.10` stays `1.10`.
struct Raw(String);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
                Ok(Raw(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Reads the text once more, and gives the scalars of its tree what is written there: the first time they were numbers.
struct Written<'a>(&'a mut Tree);

impl<'de> DeserializeSeed<'de> for Written<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.0 {
            Tree::Scalar(text) => Raw::deserialize(deserializer).map(|Raw(written)| *text = written),
            Tree::List(_) => deserializer.deserialize_seq(self),
            Tree::Table(_) => deserializer.deserialize_map(self),
            Tree::Null | Tree::Text(_) => IgnoredAny::deserialize(deserializer).map(drop),
        }
    }
}

impl<'de> Visitor<'de> for Written<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the same text")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Tree::List(list) = self.0 else { return Ok(()) };
        for item in list {
            items.next_element_seed(Written(item))?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Tree::Table(table) = self.0 else { return Ok(()) };
        for (_, value) in table {
            map.next_key::<IgnoredAny>()?;
            map.next_value_seed(Written(value))?;
        }
        Ok(())
    }
}

/// Where a node is: at its key, or at the item of a list. serde_yaml keeps no positions in its values but puts one into
/// every error, so the text is read once more and an error raised at the node.
pub(crate) fn find(text: &str, steps: &[Step]) -> Option<Position> {
    position(&Descent { steps }.deserialize(serde_yaml::Deserializer::from_str(text)).err()?)
}

struct Descent<'a> {
    steps: &'a [Step],
}

impl<'de> DeserializeSeed<'de> for Descent<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.steps.first() {
            None => deserializer.deserialize_any(Nothing),
            Some(Step::Key(..)) => deserializer.deserialize_map(self),
            Some(Step::Index(_)) => deserializer.deserialize_seq(self),
        }
    }
}

impl<'de> Visitor<'de> for Descent<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the way to the node")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted, before), rest)) = self.steps.split_first() else {
            return Ok(());
        };
        let mut left = *before;
        let raise = rest.is_empty();
        while let Some(found) = map.next_key_seed(Key { wanted, raise: raise && left == 0 })? {
            match (found, left) {
                (true, 0) => {
                    map.next_value_seed(Descent { steps: rest })?;
                    left = usize::MAX;
                }
                (found, _) => {
                    left -= usize::from(found && left != usize::MAX);
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((Step::Index(wanted), rest)) = self.steps.split_first() else {
            return Ok(());
        };
        for _ in 0..*wanted {
            items.next_element::<IgnoredAny>()?;
        }
        items.next_element_seed(Descent { steps: rest })?;
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// Takes no value at all, so that each is an error where it stands.
struct Nothing;

impl Visitor<'_> for Nothing {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }
}

/// Whether this is the wanted key; with `raise`, that is an error where it stands.
struct Key<'a> {
    wanted: &'a str,
    raise: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        if key == self.wanted && self.raise { Err(E::custom("here")) } else { Ok(key == self.wanted) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_wrongly_indented_is_named_and_not_taken_for_a_value_without_quotes() {
        let below =
            |key, above| format!("{key} is indented below {above}, which has a value: begin both in the same column");
        let beside =
            |key| format!("{key} begins in a column in which no key above it does: indent it as its neighbours");
        let quotes = |c| format!("a value that begins with {c} needs quotes around it");
        let blank =
            |line| format!("the line begins with a blank, and line {line} does not: begin both in the same column");
        let unspaced = |key| {
            format!("{key}: has no blank behind its colon, so it is no setting: put one between it and its value")
        };
        let toml = "this is TOML, and the settings are YAML: write upstream: and, indented below it, domain: example.azurecr.io";
        for (text, line, says) in [
            ("listen: 127.0.0.1:8080\n  tls: {key: /k}\n", 2, below("tls", "listen")),
            ("listen: 'a'\n  tls: {key: /k}\n", 2, below("tls", "listen")),
            ("listen: {address: x}\n  tls:\n    key: [a]\n", 2, below("tls", "listen")),
            ("drain:\n  notice: 5s # words\n    # words\n\n    timeout: {}\n", 5, below("timeout", "notice")),
            ("listen:\n  - address: x\n      tls: {key: /k}\n", 3, below("tls", "address")),
            ("upstream:\n  domain: a\n identity: {kind: default}\n", 3, beside("identity")),
            ("routes:\n  - source: docker.io\n   to: x\n", 3, beside("to")),
            // These are where they belong, and lack quotes.
            ("listen: [::1]:8080\n", 1, quotes('[')),
            ("threads: 2\nlog: *x\n", 2, quotes('*')),
            ("listen:\n  - address: x\n  - address: [::1]:8080\n", 3, quotes('[')),
            // Neither line nor cause was told.
            (" listen: x\nroutes: []\n", 1, blank(2)),
            ("# words\n\n  listen: x\n\n  log: {}\nroutes: []\n", 3, blank(6)),
            ("listen: x\n---\nroutes: []\n", 2, "a second document begins here: all settings are in one".to_owned()),
            ("upstream:\n  domain: a\n  prefix:hub\n", 3, unspaced("prefix")),
            ("upstream:\n  domain: a\n  prefix:hub\n\nlisten: x\n", 3, unspaced("prefix")),
            ("[upstream]\ndomain = \"a\"\n", 1, toml.to_owned()),
            ("# words\n\n[[routes]]\ndomain = \"a\"\n", 3, toml.to_owned()),
            ("listen:\n\taddress: x\n", 2, "the line begins with a tab: indent with spaces".to_owned()),
        ] {
            let Err((at, sentence)) = parse(text) else { panic!("{text} is YAML") };
            assert!(sentence.ends_with(&says), "{text}: {sentence}");
            assert_eq!(at.line, line, "{text}: {sentence}");
        }
    }

    /// A reload of such a file took minutes, in which no other was heard.
    #[test]
    fn a_text_that_takes_the_parser_minutes_is_refused_at_once() {
        let Err((at, sentence)) = parse(&"a: {".repeat(200_000)) else { panic!("it is YAML") };
        assert_eq!((at, sentence.as_str()), (Position::default(), "not YAML: it opens more than 20000 brackets"));
        assert!(parse(&format!("[{}]", "{a: [b]}, ".repeat(9_000))).is_ok());
    }
}
