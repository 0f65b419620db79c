//! A part of `docs/architecture.md` is the comment at the top of `src/lib.rs`, which is the only copy that people edit.
//! `UPDATE_REFERENCE=1 cargo test --test docs` writes the part.

use crate::block::{self, Block};
use crate::root;

const COMMAND: &str = "UPDATE_REFERENCE=1 cargo test --test docs";
const PAGE: &str = "docs/architecture.md";
const SOURCE: &str = "src/lib.rs";
/// A section of the page has one more `#` than a section of the comment, because the page has a title.
const LEVEL: &str = "#";

fn begin() -> String {
    format!("<!-- modules: made from {SOURCE} by {COMMAND} -->\n")
}

const END: &str = "<!-- end of modules -->\n";

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).expect("a text")
}

/// The sections of the comment, as Markdown. Its introduction is left out: the page has one.
fn sections() -> String {
    let source = read(SOURCE);
    let comment = source.lines().map_while(|line| line.strip_prefix("//!"));
    let lines = comment.map(|line| line.strip_prefix(' ').unwrap_or(line)).skip_while(|line| !line.starts_with("# "));
    let mut in_block = false;
    let mut text = String::new();
    for line in lines {
        in_block ^= line.starts_with("```");
        if line.starts_with('#') && !in_block {
            text += LEVEL;
        }
        text += line;
        text.push('\n');
    }
    text
}

/// A block of the page that stands in the comment. What is in it is checked by `tests/tidy`.
pub(crate) fn is_made_from_the_source(block: &Block) -> bool {
    block::read(&root().join(PAGE), &sections()).iter().any(|made| made.text == block.text)
}

#[test]
fn the_page_has_the_sections_of_the_source() {
    let sections = sections();
    for title in ["Map, in the order of a request", "Flow", "Layers", "Invariants"] {
        assert!(sections.contains(&format!("## {title}\n")), "{SOURCE} has no section {title:?}");
    }
    let page = read(PAGE);
    let (before, rest) = page.split_once(&begin()).unwrap_or_else(|| panic!("{PAGE} has no line {:?}", begin()));
    let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("{PAGE} has no line {END:?}"));
    let expected = format!("{before}{}\n{sections}\n{END}{after}", begin());
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(root().join(PAGE), expected).expect("written");
        return;
    }
    assert!(page == expected, "{PAGE} differs from the comment of {SOURCE}: write it anew: {COMMAND}");
}
