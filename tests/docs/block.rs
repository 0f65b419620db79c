//! Fenced blocks of Markdown.

use std::path::Path;

use crate::root;

/// What stands between two lines of backticks.
pub(crate) struct Block {
    /// The file and the line of the first backticks.
    pub place: String,
    /// The word behind them.
    pub language: String,
    /// The lines between.
    pub text: String,
}

/// Every block of a page, in order.
pub(crate) fn read(page: &Path, text: &str) -> Vec<Block> {
    let name = page.strip_prefix(root()).unwrap_or(page).display();
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (line, number) in text.lines().zip(1..) {
        let fence = line.trim_start().strip_prefix("```");
        match (fence, open.take()) {
            (Some(language), None) => {
                let place = format!("{name}:{number}");
                open = Some(Block { place, language: language.trim().to_owned(), text: String::new() });
            }
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some(mut block)) => {
                block.text += line;
                block.text.push('\n');
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{name}: a block is not closed");
    blocks
}
