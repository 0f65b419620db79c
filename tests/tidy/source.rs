//! The repository's files, and Rust source as tokens: comments and strings cannot be mistaken for code, and what macros
//! are given is seen too.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, OnceLock};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Directories that hold no source of ours.
const SKIPPED: [&str; 3] = ["target", ".git", "corpus"];

/// A text file of the repository.
pub(crate) struct File {
    /// Relative to the repository's root, with `/`.
    pub path: String,
    pub text: String,
    tokens: OnceLock<Vec<Token>>,
}

/// One token; a group is its delimiters and what is between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Ident(String),
    Punct(char),
    /// The text of a literal as it is written, quotes included.
    Literal(String),
    Open(Delimiter),
    Close(Delimiter),
}

impl Token {
    pub(crate) fn is(&self, name: &str) -> bool {
        matches!(self, Self::Ident(ident) if ident == name)
    }
}

/// The Rust files of the repository, read once.
pub(crate) fn rust() -> &'static [File] {
    static FILES: LazyLock<Vec<File>> = LazyLock::new(|| files("rs"));
    &FILES
}

/// All files of the repository whose names end in `.<extension>`, in order of their paths.
pub(crate) fn files(extension: &str) -> Vec<File> {
    let root = root();
    let mut paths = Vec::new();
    collect(&root, extension, &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let relative = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap_or_else(|cause| panic!("{relative}: {cause}"));
        File { path: relative, text, tokens: OnceLock::new() }
    };
    paths.into_iter().map(read).collect()
}

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn collect(directory: &Path, extension: &str, paths: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).unwrap_or_else(|cause| panic!("{}: {cause}", directory.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        let is_skipped = path.file_name().is_some_and(|name| SKIPPED.iter().any(|skipped| name == *skipped));
        if path.is_dir() && !is_skipped {
            collect(&path, extension, paths);
        } else if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
}

impl File {
    /// Whether all of the file is test code.
    pub(crate) fn is_test(&self) -> bool {
        let parts: Vec<_> = self.path.split('/').collect();
        parts[..parts.len() - 1].contains(&"tests") || self.path.ends_with("/tests.rs")
    }

    /// The tokens of the file, doc comments included as attributes.
    pub(crate) fn tokens(&self) -> &[Token] {
        self.tokens.get_or_init(|| {
            let mut tokens = Vec::new();
            flatten(self.stream(), &mut tokens);
            tokens
        })
    }

    /// The tokens of the file without the items that are for tests only.
    pub(crate) fn code(&self) -> Vec<Token> {
        if self.is_test() {
            return Vec::new();
        }
        without_tests(self.tokens())
    }

    pub(crate) fn stream(&self) -> TokenStream {
        self.text.parse().unwrap_or_else(|cause| panic!("{}: {cause}", self.path))
    }
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    for tree in stream {
        match tree {
            TokenTree::Ident(ident) => tokens.push(Token::Ident(ident.to_string())),
            TokenTree::Punct(punct) => tokens.push(Token::Punct(punct.as_char())),
            TokenTree::Literal(literal) => tokens.push(Token::Literal(literal.to_string())),
            TokenTree::Group(group) => {
                tokens.push(Token::Open(group.delimiter()));
                flatten(group.stream(), tokens);
                tokens.push(Token::Close(group.delimiter()));
            }
        }
    }
}

/// Leaves out each item behind `#[cfg(test)]`: up to its `;` or the end of its braces.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    use Delimiter::{Brace, Bracket, Parenthesis};
    let marker = [
        Token::Punct('#'),
        Token::Open(Bracket),
        Token::Ident("cfg".to_owned()),
        Token::Open(Parenthesis),
        Token::Ident("test".to_owned()),
        Token::Close(Parenthesis),
        Token::Close(Bracket),
    ];
    let mut kept = Vec::new();
    let mut rest = tokens;
    while !rest.is_empty() {
        let Some(item) = rest.strip_prefix(&marker[..]) else {
            kept.push(rest[0].clone());
            rest = &rest[1..];
            continue;
        };
        let mut depth = 0_usize;
        let length = item.iter().position(|token| {
            match token {
                Token::Open(_) => depth += 1,
                Token::Close(delimiter) => {
                    depth = depth.saturating_sub(1);
                    return depth == 0 && *delimiter == Brace;
                }
                Token::Punct(';') => return depth == 0,
                _ => {}
            }
            false
        });
        rest = &item[length.map_or(item.len(), |last| last + 1)..];
    }
    kept
}
