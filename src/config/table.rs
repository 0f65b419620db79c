//! What a table of settings is made of: rows, each a setting with everything that is known of it, and the reading of a
//! table from the file by its rows.
//!
//! [`table!`] makes a struct of the rows and a struct of what the file says, with a field a key. Whoever takes the latter
//! apart names every field, so a key that nothing uses does not compile.

use super::file::{Document, Node};
use super::mistake::{Mistakes, Place, Text};
use super::parse::is_off;

/// Everything about a setting but its type.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its name in the file.
    pub key: &'static str,
    /// The flag that wins over the file, without its dashes.
    pub flag: Option<&'static str>,
    /// A variable: below the flag and above the file; in the table of an identity, below the file.
    pub variable: Option<&'static str>,
    /// What has to be given, as `--help` names it.
    pub value: &'static str,
    /// What counts where nothing is given.
    pub default: Default,
    /// A value as a file has it; empty where the default is a good example.
    pub example: &'static str,
    /// One line: `--help` shows it, and the reference begins with it.
    pub help: &'static str,
    /// More sentences, for the reference, the schema and the manual; may be empty.
    pub more: &'static str,
    /// The least and the greatest number, for the schema: its parser decides.
    pub range: Option<(u64, u64)>,
    /// A regular expression that its text matches, for the schema; empty where `value` says enough.
    pub pattern: &'static str,
    /// What to do about a key with nothing behind it; empty where its type says enough.
    pub if_empty: &'static str,
}

/// What a row has unless it says otherwise.
pub(crate) const ROW: Row = Row {
    key: "",
    flag: None,
    variable: None,
    value: "TEXT",
    default: Default::Words("none"),
    example: "",
    help: "",
    more: "",
    range: None,
    pattern: "",
    if_empty: "",
};

/// What counts where a setting is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Default {
    /// It has to be given.
    Required,
    /// This text, parsed like any other.
    Text(&'static str),
    /// This text, but for the exception that the words name.
    Unless(&'static str, &'static str),
    /// Something that no text says, in words.
    Words(&'static str),
}

/// A setting in its table.
pub(crate) struct Entry {
    /// The setting.
    pub row: &'static Row,
    /// What stands behind its key.
    pub holds: Holds,
}

/// What stands behind a key.
pub(crate) enum Holds {
    /// One value.
    Value,
    /// A list of values.
    List,
    /// A table of these settings.
    Table(Vec<Entry>),
    /// A list of tables of these settings.
    Tables(Vec<Entry>),
    /// One value, or a table of these settings.
    ValueOrTable(Vec<Entry>),
    /// One value, or a list of tables of these settings.
    ValueOrTables(Vec<Entry>),
}

/// The type of a setting: how it stands in the file, and what its text has to be.
pub(crate) trait Shape {
    /// What the file says, not yet parsed.
    type Found: std::default::Default;

    /// Its entry in the table.
    fn entry(&'static self) -> Entry;

    /// Reads what stands behind the key. The wrong shape is a mistake.
    fn read(&self, document: &mut Document<'_>, node: &Node<'_>) -> Self::Found;

    /// Where it stands, if the file has it.
    fn place(found: &Self::Found) -> Option<&Place>;
}

/// A table of the file, made by [`table!`].
pub(crate) trait Table: std::default::Default {
    /// Its settings.
    fn entries() -> Vec<Entry>;

    /// Reads it. A key that is no row is a mistake.
    fn read(document: &mut Document<'_>, node: &Node<'_>) -> Self;

    /// Where it begins.
    fn place(&self) -> Option<&Place>;

    /// The keys that the file has, and where.
    fn given(&self) -> Vec<(&'static str, &Place)>;
}

/// One value, and its parser. The parser's error says what would be right.
pub(crate) struct Value<T> {
    pub row: Row,
    pub parse: fn(&str) -> Result<T, String>,
}

/// A list of values.
pub(crate) struct List<T> {
    pub row: Row,
    pub parse: fn(&str) -> Result<T, String>,
}

/// A table behind a key.
pub(crate) struct Nested<T> {
    pub row: Row,
    pub table: std::marker::PhantomData<T>,
}

/// A table behind a key, or `off`.
pub(crate) struct Switched<T> {
    pub row: Row,
    pub table: std::marker::PhantomData<T>,
}

/// What stands behind the key of a [`Switched`].
pub(crate) enum Switch<T> {
    /// `off`, here.
    Off(Place),
    /// The table.
    On(T),
}

/// A text behind a key, which is what one key of the table is for, or that table.
pub(crate) struct Short<T> {
    pub row: Row,
    pub table: std::marker::PhantomData<T>,
}

/// What stands behind the key of a [`Short`].
pub(crate) enum TextOr<T> {
    /// The text.
    Text(Text),
    /// The table.
    Table(T),
}

/// A list of tables.
pub(crate) struct Tables<T> {
    pub row: Row,
    pub table: std::marker::PhantomData<T>,
}

/// One value, or a list of tables in its place.
pub(crate) struct ValueOrTables<T> {
    pub row: Row,
    pub table: std::marker::PhantomData<T>,
}

/// What stands behind the key of a [`ValueOrTables`].
pub(crate) enum OneOrMany<T> {
    /// The value.
    One(Text),
    /// The list, which begins here.
    Many(Place, Vec<T>),
}

impl<T: 'static> Shape for Value<T> {
    type Found = Option<Text>;

    fn entry(&'static self) -> Entry {
        Entry { row: &self.row, holds: Holds::Value }
    }

    fn read(&self, document: &mut Document<'_>, node: &Node<'_>) -> Option<Text> {
        document.text(node, self.row.if_empty)
    }

    fn place(found: &Option<Text>) -> Option<&Place> {
        found.as_ref().map(|(place, _)| place)
    }
}

impl<T: 'static> Shape for List<T> {
    type Found = Vec<Text>;

    fn entry(&'static self) -> Entry {
        Entry { row: &self.row, holds: Holds::List }
    }

    fn read(&self, document: &mut Document<'_>, node: &Node<'_>) -> Vec<Text> {
        let hint = format!("such as {}", self.row.example);
        document.items(node, &hint).iter().filter_map(|item| document.text(item, "")).collect()
    }

    fn place(found: &Vec<Text>) -> Option<&Place> {
        found.first().map(|(place, _)| place)
    }
}

impl<T: Table + 'static> Shape for Nested<T> {
    type Found = Option<T>;

    fn entry(&'static self) -> Entry {
        Entry { row: &self.row, holds: Holds::Table(T::entries()) }
    }

    fn read(&self, document: &mut Document<'_>, node: &Node<'_>) -> Option<T> {
        Some(T::read(document, node))
    }

    fn place(found: &Option<T>) -> Option<&Place> {
        found.as_ref().and_then(T::place)
    }
}

impl<T: Table + 'static> Shape for Switched<T> {
    type Found = Option<Switch<T>>;

    fn entry(&'static self) -> Entry {
        Entry { row: &self.row, holds: Holds::Table(T::entries()) }
    }

    fn read(&self, document: &mut Document<'_>, node: &Node<'_>) -> Option<Switch<T>> {
        match document.scalar(node) {
            Some(text) if is_off(&text) => Some(Switch::Off(document.place(node))),
            Some(text) => {
                let what = format_args!("unknown value {text:?}: use off, or a table of its keys, or remove the key");
                document.wrong(node, what);
                None
            }
            None => Some(Switch::On(T::read(document, node))),
        }
    }

    fn place(found: &Option<Switch<T>>) -> Option<&Place> {
        match found {
            Some(Switch::Off(place)) => Some(place),
            Some(Switch::On(table)) => table.place(),
            None => None,
        }
    }
}

impl<T: Table + 'static> Shape for Short<T> {
    type Found = Option<TextOr<T>>;

    fn entry(&'static self) -> Entry {
        Entry { row: &self.row, holds: Holds::ValueOrTable(T::entries()) }
    }

    fn read(&self, document: &mut Document<'_>, node: &Node<'_>) -> Option<TextOr<T>> {
        if node.is_table() {
            return Some(TextOr::Table(T::read(document, node)));
        }
        document.text(node, self.row.if_empty).map(TextOr::Text)
    }

    fn place(found: &Option<TextOr<T>>) -> Option<&Place> {
        match found {
            Some(TextOr::Text((place, _))) => Some(place),
            Some(TextOr::Table(table)) => table.place(),
            None => None,
        }
    }
}

impl<T: Table + 'static> Shape for Tables<T> {
    type Found = Vec<T>;

    fn entry(&'static self) -> Entry {
        Entry { row: &self.row, holds: Holds::Tables(T::entries()) }
    }

    fn read(&self, document: &mut Document<'_>, node: &Node<'_>) -> Vec<T> {
        document.items(node, "each item begins with a dash").iter().map(|item| T::read(document, item)).collect()
    }

    fn place(found: &Vec<T>) -> Option<&Place> {
        found.first().and_then(T::place)
    }
}

impl<T: Table + 'static> Shape for ValueOrTables<T> {
    type Found = Option<OneOrMany<T>>;

    fn entry(&'static self) -> Entry {
        Entry { row: &self.row, holds: Holds::ValueOrTables(T::entries()) }
    }

    fn read(&self, document: &mut Document<'_>, node: &Node<'_>) -> Option<OneOrMany<T>> {
        if node.is_table() {
            document.wrong(node, "must be one value, or a list of tables: put a dash before the first key of each");
            return None;
        }
        if !document.is_list(node) {
            return document.text(node, self.row.if_empty).map(OneOrMany::One);
        }
        let items = document.items(node, "");
        let place = document.place(node);
        if items.is_empty() {
            document.wrong(node, "is an empty list: set one item or more, or remove the key");
        }
        let tables: Vec<_> = items.iter().map(|item| T::read(document, item)).collect();
        (!tables.is_empty()).then_some(OneOrMany::Many(place, tables))
    }

    fn place(found: &Option<OneOrMany<T>>) -> Option<&Place> {
        match found {
            Some(OneOrMany::One((place, _)) | OneOrMany::Many(place, _)) => Some(place),
            None => None,
        }
    }
}

impl<T> Value<T> {
    /// The first text that is given, parsed. The ones behind it are parsed too: a mistake in the file is one even where a
    /// flag hides it.
    pub(crate) fn parse<const N: usize>(&self, given: [Option<Text>; N], mistakes: &mut Mistakes) -> Option<T> {
        let mut first = None;
        for text in given.into_iter().flatten() {
            let value = mistakes.parse(text, self.parse);
            first = first.or(value);
        }
        first
    }

    /// The same, or the default's text. `None` only with a mistake, if the default is a text.
    pub(crate) fn parse_or_default<const N: usize>(
        &self,
        given: [Option<Text>; N],
        mistakes: &mut Mistakes,
    ) -> Option<T> {
        let before = mistakes.count();
        let given = self.parse(given, mistakes);
        if given.is_none() && mistakes.count() == before { self.default() } else { given }
    }

    /// The default's text, parsed; a test holds that it is right. `None` if the default is no text.
    pub(crate) fn default(&self) -> Option<T> {
        match self.row.default {
            Default::Text(text) | Default::Unless(text, _) => (self.parse)(text).ok(),
            Default::Required | Default::Words(_) => None,
        }
    }
}

impl<T> List<T> {
    /// All that can be parsed; the rest are mistakes.
    pub(crate) fn parse(&self, given: Vec<Text>, mistakes: &mut Mistakes) -> Vec<T> {
        given.into_iter().filter_map(|text| mistakes.parse(text, self.parse)).collect()
    }
}

/// Makes a table of settings: a static that holds the rows, and a struct of what the file says.
macro_rules! table {
    ($(#[$about:meta])* $rows:ident: $Rows:ident, $Found:ident {
        $($key:ident: $shape:ident<$type:ty> { $($row:tt)* } $(parse $parse:expr)? ;)*
    }) => {
        #[doc = concat!("The rows of [`", stringify!($Found), "`].")]
        pub(crate) struct $Rows { $(pub $key: $shape<$type>,)* }

        $(#[$about])*
        pub(crate) static $rows: $Rows = $Rows {
            $($key: table!(@shape $shape { key: stringify!($key), $($row)* } $($parse)?),)*
        };

        $(#[$about])*
        #[derive(Default)]
        pub(crate) struct $Found {
            /// Where it begins.
            pub place: Option<Place>,
            /// Some of it was not understood, so what seems to be missing may be there under a wrong name.
            pub is_flawed: bool,
            $(pub $key: <$shape<$type> as Shape>::Found,)*
        }

        impl Table for $Found {
            fn entries() -> Vec<Entry> {
                vec![$($rows.$key.entry()),*]
            }

            fn read(document: &mut Document<'_>, node: &Node<'_>) -> Self {
                let mistakes = document.mistakes();
                let mut found = Self { place: Some(document.place(node)), ..Self::default() };
                let known = [$(stringify!($key)),*];
                for entry in document.table(node, &known) {
                    $(if entry.key() == stringify!($key) {
                        found.$key = $rows.$key.read(document, &entry);
                    })*
                }
                found.is_flawed = document.mistakes() > mistakes;
                found
            }

            fn place(&self) -> Option<&Place> {
                self.place.as_ref()
            }

            fn given(&self) -> Vec<(&'static str, &Place)> {
                let all = [$((stringify!($key), <$shape<$type> as Shape>::place(&self.$key))),*];
                all.into_iter().filter_map(|(key, place)| Some((key, place?))).collect()
            }
        }
    };
    (@shape $shape:ident { $($row:tt)* } $parse:expr) => {
        $shape { row: Row { $($row)*, ..ROW }, parse: $parse }
    };
    (@shape $shape:ident { $($row:tt)* }) => {
        $shape { row: Row { $($row)*, ..ROW }, table: std::marker::PhantomData }
    };
}
pub(super) use table;
